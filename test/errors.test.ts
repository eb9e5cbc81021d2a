import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { REJECTION_REASONS } from '../src/errors.js'

/*
 * Each error and each warning has a code, and docs/errors.md has each code, with its cause and its
 * remedy.
 */

const root = join(import.meta.dirname, '..')
const page = readFileSync(join(root, 'docs/errors.md'), 'utf8')

const sources = ['src', 'adapters'].flatMap((folder) =>
	readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
		.filter((name) => name.endsWith('.ts') && !name.endsWith('assets.ts'))
		.map((name) => {
			const path = `${folder}/${name}`
			return { path, text: readFileSync(join(root, path), 'utf8') }
		}),
)

/** The parts of the page, by the code that is their title. */
const sections = new Map(
	page
		.split(/^#{2,3} /m)
		.map((part) => [/^`(\w+)`\n/.exec(part)?.[1], part] as const)
		.filter(([code]) => code !== undefined),
)

test('the page has the codes of the sources, and no others', () => {
	const codes = sources.flatMap(
		({ text }) => text.match(/(?<=')(ERR_)?INFLIGHT_[A-Z_]+(?=')/g) ?? [],
	)
	expect([...sections.keys()].sort()).toEqual([...new Set(codes)].sort())
})

test.each([...sections])('%s has a cause and a remedy', (_code, part) => {
	expect(part).toMatch(/cause/i)
	expect(part).toMatch(/remedy/i)
})

test('the page has the reasons of a rejection, and no others', () => {
	const rows = sections.get('ERR_INFLIGHT_REJECTED')?.matchAll(/^\| `(?!reason`)([a-z-]+)`/gm) ?? []
	expect([...rows].map(([, reason]) => reason).sort()).toEqual([...REJECTION_REASONS].sort())
})

describe.each(sources)('$path', ({ path, text }) => {
	test('makes no error and emits no warning without a code', () => {
		const made =
			text.match(/(?<!coded\(\s*'ERR_INFLIGHT_[A-Z_]+',\s*)new (Type|Range)?Error\(/g) ?? []
		// Why Redis is unavailable: the text of a warning that has a code.
		const allowed = path.startsWith('adapters/redis/') ? ['new Error('] : []
		expect(made.filter((each) => !allowed.includes(each))).toEqual([])
	})
})
