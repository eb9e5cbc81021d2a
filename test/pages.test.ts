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
import { type Block, blocksOf, faultsOf, inCommonJs, isCommonJs } from './support/blocks.js'
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
const OTHERS = ['frameworks', 'programs', 'testing', 'architecture', 'api'].map(
	(name) => `docs/${name}.md`,
)
const blocks = PAGES.filter((page) => !OTHERS.includes(page)).flatMap(blocksOf)
const { folder, remove } = scratch()

const PACKAGES = ['express', 'koa', 'redis', '@redis', 'prom-client', '@opentelemetry', '@types']

/** Of a package that is not installed here: it lets everything pass. */
const STANDINS = {
	'express-rate-limit': {
		'package.json': '{ "main": "index.js" }',
		'index.js': 'exports.rateLimit = (options) => (req, res, next) => next()',
		'index.d.ts':
			'export declare function rateLimit(options: object): (req: unknown, res: unknown, next: () => void) => void',
	},
}

beforeAll(() => {
	const modules = join(folder, 'node_modules')
	mkdirSync(modules)
	symlinkSync(root, join(modules, 'inflight-limit'))
	for (const name of PACKAGES) symlinkSync(join(root, 'node_modules', name), join(modules, name))
	for (const [name, files] of Object.entries(STANDINS)) {
		mkdirSync(join(modules, name))
		for (const [file, code] of Object.entries(files)) writeFileSync(join(modules, name, file), code)
	}
	mkdirSync(join(folder, 'assets'))
	writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
})

afterAll(async () => {
	endAll()
	remove()
})

test('the programs are turned into CommonJS as docs/quick-start.md says', () => {
	const page = readFileSync(join(root, 'docs/quick-start.md'), 'utf8')
	const rows = Array.from(page.matchAll(/^\| `((?:im|ex)port .+?)` +\| `(.+?)` +\|$/gm))
	expect(rows.length).toBeGreaterThan(3)
	for (const [, text = '', turned] of rows) {
		expect(inCommonJs({ name: '', language: 'js', text }).text).toBe(turned)
	}
})

describe('the programs of the README and the docs', () => {
	/** The files that a block is pasted into, for the compiler, and what it makes of them. */
	const asModule = { pasted: 'ts', compiled: 'js' }
	const asCommonJs = { pasted: 'cts', compiled: 'cjs' }

	test('are complete, and compile, as ES modules and as CommonJS', async () => {
		expect(blocks.length).toBeGreaterThan(40)
		// A program with `require` is one in JavaScript.
		const files = blocks.flatMap((block, i) =>
			isCommonJs(block) ? [] : [`${i}.${asModule.pasted}`, `${i}.${asCommonJs.pasted}`],
		)
		for (const file of files) {
			const { name, text } = blocks[Number.parseInt(file, 10)] as Block
			writeFileSync(join(folder, file), `// ${name}\n${text}`)
		}
		const compilerOptions = {
			target: 'es2022',
			module: 'nodenext',
			types: ['node'],
			strict: true,
			// Each is a module of its own, with the same names.
			moduleDetection: 'force',
			skipLibCheck: true,
			rootDir: '.',
			outDir: 'out',
		}
		writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }))
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
				.flatMap((block, i): [name: string, Block, compiled?: string][] => {
					if (isCommonJs(block)) return [[block.name, block]]
					if (block.language === 'js') {
						return [block, inCommonJs(block)].map((one) => [one.name, one])
					}
					return [asModule, asCommonJs].map(({ compiled }) => [
						`${block.name} as ${compiled}`,
						block,
						join(folder, 'out', `${i}.${compiled}`),
					])
				})
				.filter(([, { text }]) => /(from |require\()'redis'/.test(text) === redis)
			const env: NodeJS.ProcessEnv = {}
			beforeAll(async () => {
				if (redis) env.REDIS_URL = `redis://127.0.0.1:${(await startServer()).port}`
			})

			test.for(own)('%s', async ([, block, compiled], { expect }) => {
				expect(await faultsOf(folder, block, compiled, env)).toEqual([])
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
