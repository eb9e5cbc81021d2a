// Writes docs/api.md from the published declarations: what each entry exports, with its comments.
// Run after `npm run build`, by `npm run api`. A test compares the page with what this would write.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** @typedef {{ file: string, comment: string, code: string }} Declaration */

/** @param {string} file */
function read(file) {
	return readFileSync(join(root, file), 'utf8')
}

/**
 * Finds the declaration of a name: in this file, or in the one that it is exported from.
 *
 * @param {string} file
 * @param {string} name
 * @returns {Declaration}
 */
function declarationOf(file, name) {
	const source = read(file)
	const begin = new RegExp(
		`^(/\\*\\*(?:(?!\\*/)[^])*\\*/\\n)?(export )?(declare )?(abstract )?(class|interface|type|function|const) ${name}\\b`,
		'm',
	).exec(source)
	if (begin !== null) {
		// A declaration ends with the first line that is not indented and is a closing brace or ends
		// with a semicolon.
		const rest = source.slice(begin.index + (begin[1]?.length ?? 0))
		const lines = rest.split('\n')
		const end = lines.findIndex((line) => /^\S.*;$|^}$/.test(line))
		return { file, comment: textOf(begin[1] ?? ''), code: lines.slice(0, end + 1).join('\n') }
	}
	const from = Array.from(
		source.matchAll(/(?:export|import) (?:type )?{([^}]*)} from '([^']+)'/g),
	).find(([, names = '']) =>
		names.split(',').some((one) => one.replace('type ', '').trim() === name),
	)
	if (from === undefined) throw new Error(`${file} does not declare ${name}`)
	return declarationOf(join(dirname(file), (from[2] ?? '').replace(/\.js$/, '.d.ts')), name)
}

/** @param {string} file @returns {string[]} what it exports */
function exportsOf(file) {
	const source = read(file)
	const own = source.matchAll(
		/^export (?:declare )?(?:abstract )?(?:class|interface|type|function|const) (\w+)/gm,
	)
	const others = Array.from(source.matchAll(/^export (?:type )?{([^}]*)}/gm), ([, names = '']) =>
		names.split(',').map((name) => name.replace('type ', '').trim()),
	)
	return [...Array.from(own, ([, name = '']) => name), ...others.flat()]
		.filter((name) => name !== '')
		.sort()
}

/** @param {string} comment @returns {string} its text, as Markdown */
function textOf(comment) {
	const lines = comment
		.replace(/^\/\*\*/, '')
		.replace(/\*\/\n$/, '')
		.split('\n')
		.map((line) => line.replace(/^\s*\* ?/, '').trimEnd())
	return lines
		.join('\n')
		.replace(/{@link (\w+)}/g, '`$1`')
		.replace(/^@param (\w+) - /gm, '- `$1`: ')
		.replace(/^@returns /gm, '- Returns ')
		.replace(/^@throws ([A-Z]\w+(?:, \w+)*) - /gm, '- Throws $1: ')
		.trim()
}

/** @param {Declaration} declaration */
function isType({ code }) {
	return /^(export )?(declare )?(interface|type) /.test(code)
}

/**
 * The declaration, and the interfaces that it extends if no entry exports them.
 *
 * @param {Declaration} declaration
 * @param {string[]} exported
 * @returns {string}
 */
function withBases(declaration, exported) {
	const [, base] = /^[^{]*\bextends (\w+)/.exec(declaration.code) ?? []
	const code = codeOf(declaration)
	if (base === undefined || exported.includes(base) || !isType(declaration)) return code
	try {
		return `${code}\n\n${withBases(declarationOf(declaration.file, base), exported)}`
	} catch {
		// A type of Node.
		return code
	}
}

/** @param {Declaration} declaration */
function codeOf({ code }) {
	return code
		.replace(/^([^{]*) implements \w+/, '$1')
		.replace(/^export /, '')
		.replace(/^declare /, '')
		.replace(/^\s+#private;\n/m, '')
}

/** @returns {string} the page, as Biome formats it */
export function apiPage() {
	const { exports } = JSON.parse(read('package.json'))
	const parts = [
		'# API',
		'What each entry exports, as its types and their comments say it. `npm run api` writes this page.',
	]
	/** @type {Set<string>} the declarations that are on the page already */
	const known = new Set()
	const entries = Object.entries(exports).flatMap(([entry, { require: path }]) =>
		path === undefined
			? []
			: [{ entry, types: path.replace(/^\.\//, '').replace(/\.js$/, '.d.ts') }],
	)
	const exported = entries.flatMap(({ types }) => exportsOf(types))
	for (const { entry, types } of entries) {
		const name = `inflight-limit${entry.slice(1)}`
		parts.push(`## \`${name}\``)
		const again = []
		const declarations = exportsOf(types).map((one) => ({
			name: one,
			...declarationOf(types, one),
		}))
		// Functions and classes come before the types that they name.
		declarations.sort((a, b) => Number(isType(a)) - Number(isType(b)))
		for (const { name: one, ...declaration } of declarations) {
			const code = withBases(declaration, exported)
			if (known.has(code)) {
				again.push(`\`${one}\``)
				continue
			}
			known.add(code)
			parts.push(`### ${one}`)
			if (declaration.comment !== '') parts.push(declaration.comment)
			parts.push(`\`\`\`ts\n${code}\n\`\`\``)
		}
		if (again.length > 0) parts.push(`Also, as above: ${again.join(', ')}.`)
	}
	return execFileSync(
		join(root, 'node_modules/.bin/biome'),
		['format', '--stdin-file-path=docs/api.md'],
		{
			cwd: root,
			encoding: 'utf8',
			input: `${parts.join('\n\n')}\n`,
		},
	)
}

if (process.argv[1] === fileURLToPath(import.meta.url))
	writeFileSync(join(root, 'docs/api.md'), apiPage())
