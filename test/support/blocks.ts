import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/*
 * The programs of the README and the docs: what stands there in a block of `js` or `ts` runs when
 * it is pasted alone.
 */

const root = join(import.meta.dirname, '../..')

export interface Block {
	/** The page and the line where it begins. */
	readonly name: string
	readonly language: 'js' | 'ts'
	readonly text: string
}

/** @returns the programs of a page. */
export function blocksOf(page: string): Block[] {
	const markdown = readFileSync(join(root, page), 'utf8')
	return Array.from(
		markdown.matchAll(/^```(js|ts)\n(.*?)^```$/gms),
		({ index, 1: language, 2: text }) => ({
			name: `${page}:${markdown.slice(0, index).split('\n').length}`,
			language: language as 'js' | 'ts',
			text: text as string,
		}),
	)
}

export function isCommonJs({ text }: Block): boolean {
	return /\brequire\(/.test(text)
}

/** Turns a program in JavaScript into CommonJS, by the rule in docs/quick-start.md. */
export function inCommonJs(block: Block): Block {
	const text = block.text
		.replaceAll(
			/^import ({[^}]+}|\w+) from '([^']+)'/gm,
			(_, names: string, from) => `const ${names.replaceAll(' as ', ': ')} = require('${from}')`,
		)
		.replaceAll(/^import ('[^']+')/gm, 'require($1)')
		.replaceAll(/^export const (\w+) =/gm, 'exports.$1 =')
	return { ...block, name: `${block.name} in CommonJS`, text }
}

/** What a program serves; `GET /` if it names no route. */
function routesOf({ text }: Block): [method: string, path: string][] {
	const named = Array.from(
		text.matchAll(/[.@](get|post)\(\s*'(\/[^']*)'/gi),
		([, method = '', path = '']) => [method.toUpperCase(), path.replaceAll(/:\w+/g, '1')],
	)
	return named.length > 0 ? (named as [string, string][]) : [['GET', '/']]
}

/**
 * Runs a program in a folder, where what it imports is installed, and visits what it serves.
 *
 * @param compiled - what to run in its place, if it must be compiled.
 * @returns what went wrong; nothing, if it served each visit, ended by itself and was not warned.
 */
export async function faultsOf(
	folder: string,
	block: Block,
	compiled?: string,
	env: NodeJS.ProcessEnv = {},
) {
	const base = block.name.replaceAll(/\W+/g, '-')
	const file = compiled ?? `${base}.${isCommonJs(block) ? 'cjs' : 'mjs'}`
	if (compiled === undefined) writeFileSync(join(folder, file), block.text)
	const options = {
		cwd: folder,
		timeout: 20_000,
		env: { ...process.env, ...env, ROUTES: JSON.stringify(routesOf(block)) },
	}
	const args = ['--require', join(import.meta.dirname, 'visit.cjs'), file]
	return new Promise<string[]>((resolve) => {
		execFile(process.execPath, args, options, (error, stdout, stderr) => {
			// On a busy machine, Redis can be slow to answer.
			const told = stderr.replaceAll(/^.*INFLIGHT_REDIS_(?:UNAVAILABLE|BACK).*$/gm, '')
			const warned = told.includes('Warning')
			resolve(error || warned ? [`${block.name} ${error?.message ?? ''}`, stdout, stderr] : [])
		})
	})
}
