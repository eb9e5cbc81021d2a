import {
	existsSync,
	mkdirSync,
	readdirSync,
	readFileSync,
	symlinkSync,
	writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CLUSTER_LIMITER_OPTIONS } from '../adapters/cluster/options.js'
import { REDIS_LIMITER_OPTIONS } from '../adapters/redis/options.js'
import { apiPage } from '../scripts/api.js'
import { LIMITER_OPTIONS } from '../src/limiter/options.js'
import { blocksOf, faultsOf, isCommonJs } from './support/blocks.js'
import { node, scratch } from './support/packed.js'
import { describeRedis, endAll, startServer } from './support/redis.js'

const root = join(import.meta.dirname, '..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const PAGES = [
	'README.md',
	...readdirSync(join(root, 'docs'), { encoding: 'utf8' })
		.filter((name) => name.endsWith('.md'))
		.map((name) => `docs/${name}`),
]
/**
 * Pages whose programs are tested elsewhere, or are none: frameworks.test.ts; an adapter in this
 * repository; declarations.
 */
const OTHERS = ['docs/frameworks.md', 'docs/testing.md', 'docs/architecture.md', 'docs/api.md']
const blocks = PAGES.filter((page) => !OTHERS.includes(page)).flatMap(blocksOf)
const { folder, remove } = scratch()

/** What authentication adds to a request, as its types do. */
const AROUND = `
	declare module 'inflight-limit/express' {
		interface RequestLike { user?: { id: string } }
	}
	declare global {
		namespace Express {
			interface Request { user?: { id: string } }
		}
	}
	export {}
`

const PACKAGES = ['express', 'koa', 'redis', '@redis', 'prom-client', '@opentelemetry', '@types']

/** Of a package that is not installed here: it lets everything pass. */
const STANDINS = {
	'express-rate-limit': 'export const rateLimit = (options) => (req, res, next) => next()',
}

beforeAll(() => {
	const modules = join(folder, 'node_modules')
	mkdirSync(modules)
	symlinkSync(root, join(modules, 'inflight-limit'))
	for (const name of PACKAGES) symlinkSync(join(root, 'node_modules', name), join(modules, name))
	for (const [name, code] of Object.entries(STANDINS)) {
		mkdirSync(join(modules, name))
		writeFileSync(
			join(modules, name, 'package.json'),
			'{ "type": "module", "exports": "./index.js" }',
		)
		writeFileSync(join(modules, name, 'index.js'), code)
	}
	mkdirSync(join(folder, 'assets'))
	writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
})

afterAll(async () => {
	endAll()
	remove()
})

describe('the programs of the README and the docs', () => {
	const compiled = (index: number) => join(folder, 'out', `${index}.js`)

	test('are complete, and compile', async () => {
		expect(blocks.length).toBeGreaterThan(40)
		writeFileSync(join(folder, 'around.d.ts'), AROUND)
		const files = blocks.map((block, i) => {
			const name = `${i}.${isCommonJs(block) ? 'cts' : 'ts'}`
			writeFileSync(join(folder, name), `// ${block.name}\n${block.text}`)
			return name
		})
		const compilerOptions = {
			target: 'es2022',
			module: 'nodenext',
			types: ['node'],
			strict: true,
			// The programs are JavaScript, where parameters have no types, and a caught error needs no
			// cast.
			noImplicitAny: false,
			useUnknownInCatchVariables: false,
			// Each is a module of its own, with the same names.
			moduleDetection: 'force',
			skipLibCheck: true,
			rootDir: '.',
			outDir: 'out',
		}
		writeFileSync(
			join(folder, 'tsconfig.json'),
			JSON.stringify({ compilerOptions, files: ['around.d.ts', ...files] }),
		)
		const { code, output } = await node(folder, [
			join(root, 'node_modules/typescript/bin/tsc'),
			'-p',
			folder,
		])
		expect(output).toBe('')
		expect(code).toBe(0)
	})

	describe.concurrent.for([
		['without a Redis', false, describe],
		['with a Redis', true, describeRedis],
	] as const)('%s', ([, redis, describeHere]) => {
		describeHere('run as pasted', () => {
			const own = blocks
				.map((block, i) => [block.name, block, i] as const)
				.filter(([, { text }]) => text.includes("from 'redis'") === redis)
			const env: NodeJS.ProcessEnv = {}
			beforeAll(async () => {
				if (redis) env.REDIS_URL = `redis://127.0.0.1:${(await startServer()).port}`
			})

			test.for(own)('%s', async ([, block, i], { expect }) => {
				const faults = await faultsOf(
					folder,
					block,
					block.language === 'ts' ? compiled(i) : undefined,
					env,
				)
				expect(faults).toEqual([])
			})
		})
	})
})

test.each([
	[
		'docs/options.md',
		['src/limiter/options.ts', 'src/queue/options.ts'],
		LIMITER_OPTIONS,
		['onReject'],
	],
	[
		'docs/redis.md',
		['adapters/redis/options.ts', 'adapters/shared-options.ts'],
		REDIS_LIMITER_OPTIONS,
		[],
	],
	[
		'docs/cluster.md',
		['adapters/cluster/options.ts', 'adapters/shared-options.ts'],
		CLUSTER_LIMITER_OPTIONS,
		[],
	],
])(
	'the table of options in %s has each option with the default that its type documents',
	(page, code, options, ofAdapters) => {
		const table = readFileSync(join(root, page), 'utf8').matchAll(/^\| `(\w+)` +\| (.+?) +\|/gm)
		const rows = Array.from(table, ([, name = '', value = '']) => [name, value])
		expect(rows.map(([name]) => name).sort()).toEqual([...options, ...ofAdapters].sort())
		const source = code.map((file) => readFileSync(join(root, file), 'utf8')).join('\n')
		for (const [name = '', value] of rows) {
			const docs = new RegExp(`/\\*\\*((?:(?!\\*/).)*)\\*/\\s+${name}\\??[:(]`, 's').exec(
				source,
			)?.[1]
			const text = (docs ?? '').replaceAll(/\s+\*?\s*/g, ' ')
			const documented = /Default: (.*)\.\s*$/.exec(text)?.[1]
			if (!(ofAdapters as string[]).includes(name))
				expect([name, documented ?? 'required']).toEqual([name, value])
		}
	},
)

test('docs/api.md says what the declarations say', () => {
	expect(
		readFileSync(join(root, 'docs/api.md'), 'utf8') === apiPage() ? 'same' : 'run npm run api',
	).toBe('same')
})

/** What a page can be linked to by: its headings, as GitHub names them. */
function anchorsOf(path: string): string[] {
	const headings = readFileSync(path, 'utf8').matchAll(/^#+ (.+)$/gm)
	return Array.from(headings, ([, heading = '']) =>
		heading
			.toLowerCase()
			.replaceAll(/[^\p{L}\p{N}_ -]/gu, '')
			.replaceAll(' ', '-'),
	)
}

test.each([...PAGES, 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'])(
	'what %s links to is there',
	(name) => {
		const text = readFileSync(join(root, name), 'utf8')
		const missing = Array.from(
			text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g),
			([link, file = '', anchor]) => {
				const path = file === '' ? join(root, name) : join(root, name, '..', file)
				const there = existsSync(path) && (anchor === undefined || anchorsOf(path).includes(anchor))
				return there ? [] : [link]
			},
		)
		expect(missing.flat()).toEqual([])
	},
)

test('the commands that it names are there', () => {
	const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
	for (const [, name = ''] of readme.matchAll(/npm run ([\w:]+)/g))
		expect(scripts).toHaveProperty([name])
})
