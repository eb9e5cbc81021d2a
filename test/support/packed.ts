import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

/** What `npm pack` and its build read, in a checkout that has never been built. */
const SOURCES = [
	'LICENSE',
	'README.md',
	'CHANGELOG.md',
	'package.json',
	'tsconfig.json',
	'tsconfig.build.json',
	'tsconfig.cjs.json',
	'scripts',
	'src',
	'adapters',
]

/** What is imported, after the name of the package. */
export const ENTRIES = [
	'',
	'/adaptive',
	'/cluster',
	'/dashboard',
	'/express',
	'/fetch',
	'/koa',
	'/opentelemetry',
	'/prometheus',
	'/redis',
]

/** A new folder outside the repository, and how to be rid of it. */
export function scratch(): { folder: string; remove: () => void } {
	const folder = mkdtempSync(join(tmpdir(), 'inflight-limit-'))
	return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/**
 * Packs the package as it would be published, from a copy of the sources: what somebody has in
 * `dist` neither counts nor changes.
 *
 * @returns the path of the tarball, in `folder`.
 */
export async function pack(folder: string): Promise<string> {
	const checkout = join(folder, 'checkout')
	for (const name of SOURCES) {
		if (existsSync(join(root, name)))
			cpSync(join(root, name), join(checkout, name), { recursive: true })
	}
	symlinkSync(join(root, 'node_modules'), join(checkout, 'node_modules'))
	const { stdout } = await run('npm', ['pack', '--silent', '--pack-destination', folder], {
		cwd: checkout,
	})
	return join(folder, stdout.trim().split('\n').at(-1) as string)
}

/** Installs packages, or tarballs, in an empty folder. */
export async function install(folder: string, packages: string[]): Promise<void> {
	writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
	const quietly = [
		'--no-audit',
		'--no-fund',
		'--ignore-scripts',
		'--loglevel=error',
		'--prefer-offline',
	]
	await run('npm', ['install', ...quietly, ...packages], { cwd: folder })
}

/** Runs a program, or a tool, with this Node. @returns all that it printed, and how it ended. */
export async function node(cwd: string, args: string[]): Promise<{ code: number; output: string }> {
	try {
		const { stdout, stderr } = await run(process.execPath, args, { cwd, maxBuffer: 2 ** 26 })
		return { code: 0, output: stdout + stderr }
	} catch (error) {
		const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
		return { code, output: stdout + stderr }
	}
}
