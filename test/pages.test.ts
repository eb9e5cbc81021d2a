import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { REDIS_LIMITER_OPTIONS } from '../adapters/redis/options.js'
import { LIMITER_OPTIONS } from '../src/limiter/options.js'
import { node, scratch } from './support/packed.js'

const root = join(import.meta.dirname, '..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const PAGES = [
	'README.md',
	...readdirSync(join(root, 'docs'), { encoding: 'utf8' })
		.filter((name) => name.endsWith('.md'))
		.map((name) => `docs/${name}`),
]
const programs = PAGES.flatMap((page) =>
	Array.from(
		readFileSync(join(root, page), 'utf8').matchAll(/^```js\n(.*?)^```$/gms),
		([, program = '']) => program,
	),
)
const { folder, remove } = scratch()

/** The names that the programs of the pages use without declaring them. */
const AROUND = `
	import type { Readable } from 'node:stream'
	declare module 'inflight-limit/express' {
		interface RequestLike { user?: { id: string } }
	}
	declare global {
		const app: import('express').Express
		const koa: import('koa')
		const handle: import('node:http').RequestListener
		const renderReport: import('express').RequestHandler
		const render: import('express').RequestHandler
		const requireAdmin: import('express').RequestHandler
		const resize: import('express').RequestHandler
		const search: import('express').RequestHandler
		const admin: import('express').RequestHandler
		const expensive: (query: object) => Promise<string>
		const openChannel: (req: object) => Promise<Readable>
		const urls: string[]
		const model: string
		const refresh: () => Promise<void>
		const work: () => Promise<void>
		const server: import('node:http').Server
		const client: import('redis').RedisClientType
		const guard: import('inflight-limit/express').Middleware
		const limit: typeof import('inflight-limit/express').limit
		const adaptive: typeof import('inflight-limit/adaptive').adaptive
		const admission: typeof import('inflight-limit').admission
		const requestStart: typeof import('inflight-limit').requestStart
		const requestDeadline: typeof import('inflight-limit').requestDeadline
		const Limiter: typeof import('inflight-limit').Limiter
	}
`

beforeAll(() => {
	mkdirSync(join(folder, 'node_modules'))
	symlinkSync(root, join(folder, 'node_modules/inflight-limit'))
	for (const name of ['express', 'koa', 'redis', '@redis', 'prom-client', '@opentelemetry', '@types']) {
		symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name))
	}
	writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
})

afterAll(remove)

test('the programs of the README and the docs compile', async () => {
	expect(programs.length).toBeGreaterThan(20)
	writeFileSync(join(folder, 'around.d.ts'), AROUND)
	const files = programs.map((program, i) => {
		writeFileSync(join(folder, `${i}.ts`), `${program}\nexport {}\n`)
		return `${i}.ts`
	})
	const compilerOptions = {
		target: 'es2022',
		module: 'nodenext',
		types: ['node'],
		strict: true,
		// The programs are JavaScript, where a caught error needs no cast.
		useUnknownInCatchVariables: false,
		skipLibCheck: true,
		noEmit: true,
	}
	writeFileSync(
		join(folder, 'tsconfig.json'),
		JSON.stringify({ compilerOptions, files: ['around.d.ts', ...files] }),
	)
	const { code, output } = await node(folder, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder])
	expect(output).toBe('')
	expect(code).toBe(0)
})

test.each(['express', 'koa'])('the first program for %s serves requests', async (name) => {
	const program = programs.find((text) => text.includes(`from '${name}'`)) as string
	const around = `
		const expensive = async (query) => 'the answer to ' + query.q
		${program.replace('app.listen(3000)', "const server = app.listen(0, '127.0.0.1')")}
		server.once('listening', async () => {
			const { port } = server.address()
			const answer = await fetch('http://127.0.0.1:' + port + '/?q=1')
			console.log(await answer.text())
			process.exit()
		})
	`
	writeFileSync(join(folder, `${name}.js`), around)
	expect(await node(folder, [`${name}.js`])).toEqual({ code: 0, output: 'the answer to 1\n' })
})

test.each([
	['README.md', ['src/limiter/options.ts', 'src/queue/options.ts'], LIMITER_OPTIONS, ['onReject']],
	['docs/redis.md', ['adapters/redis/options.ts'], REDIS_LIMITER_OPTIONS, []],
])(
	'the table of options in %s has each option with the default that its type documents',
	(page, code, options, ofAdapters) => {
		const table = readFileSync(join(root, page), 'utf8').matchAll(/^\| `(\w+)` +\| (.+?) +\|/gm)
		const rows = Array.from(table, ([, name = '', value = '']) => [name, value])
		expect(rows.map(([name]) => name).sort()).toEqual([...options, ...ofAdapters].sort())
		const source = code.map((file) => readFileSync(join(root, file), 'utf8')).join('\n')
		for (const [name = '', value] of rows) {
			const docs = new RegExp(`/\\*\\*((?:(?!\\*/).)*)\\*/\\s+${name}\\??[:(]`, 's').exec(source)?.[1]
			const text = (docs ?? '').replaceAll(/\s+\*?\s*/g, ' ')
			const documented = /Default: (.*)\.\s*$/.exec(text)?.[1]
			if (!(ofAdapters as string[]).includes(name))
				expect([name, documented ?? 'required']).toEqual([name, value])
		}
	},
)

test.each([...PAGES, 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'])(
	'what %s links to is there',
	(name) => {
		const text = readFileSync(join(root, name), 'utf8')
		for (const [, target = ''] of text.matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/g)) {
			expect(existsSync(join(root, name, '..', target)) ? 'there' : `no ${target}`).toBe('there')
		}
	},
)

test('the commands that it names are there', () => {
	const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
	for (const [, name = ''] of readme.matchAll(/npm run ([\w:]+)/g)) expect(scripts).toHaveProperty([name])
})
