import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest'
import { type Block, blocksOf, faultsOf, inCommonJs, isCommonJs } from './support/blocks.js'
import { request } from './support/clients.js'
import { install, node, scratch } from './support/packed.js'

/*
 * What docs/frameworks.md, docs/programs.md and docs/testing.md say, from the packed package: their
 * programs run as they stand there, and the limit holds in frameworks that no other test knows.
 */

// A registry takes its time, and so does a compiler on a busy machine.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 })

const root = join(import.meta.dirname, '..')
const { folder, remove } = scratch()
const users = join(folder, 'users')
const modules = join(users, 'node_modules')

beforeAll(async () => {
	mkdirSync(users)
	await install(users, [
		inject('tarball'),
		...[
			'express@5',
			'koa@3',
			'connect@3',
			'fastify@5',
			'@fastify/middie@9',
			'hono@4',
			'@hono/node-server@2',
		],
		...['core', 'common', 'platform-express', 'platform-fastify'].map(
			(name) => `@nestjs/${name}@11`,
		),
		...[
			'reflect-metadata',
			'rxjs@7',
			'serverless-http@4',
			'supertest@7',
			'jest@30',
			'prom-client@15',
			...['node@20', 'express@5', 'koa@3', 'connect@3'].map((name) => `@types/${name}`),
		],
	])
	symlinkSync(join(root, 'node_modules/vitest'), join(modules, 'vitest'))
	// Next takes 340 MB. So what its custom server calls is all that there is of it here.
	mkdirSync(join(modules, 'next'))
	writeFileSync(join(modules, 'next/package.json'), '{ "main": "index.js" }')
	writeFileSync(
		join(modules, 'next/index.js'),
		`module.exports = () => ({ prepare: async () => {}, getRequestHandler: () => (req, res) => res.end('Next') })`,
	)
	writeFileSync(
		join(modules, 'next/index.d.ts'),
		`import type { RequestListener } from 'node:http'
		declare function next(options: { dev: boolean }): { prepare(): Promise<void>, getRequestHandler(): RequestListener }
		export = next`,
	)
})

afterAll(remove)

describe.each(['docs/frameworks.md', 'docs/programs.md'])('%s', (page) => {
	const blocks = blocksOf(page)
	const inTypeScript = blocks.filter(({ language }) => language === 'ts')

	test.each(
		blocks
			.filter(({ language }) => language === 'js')
			.flatMap((block) => [block, inCommonJs(block)])
			.map((block) => [block.name, block] as const),
	)('%s runs as pasted', async (_name, block) => {
		expect(await faultsOf(users, block)).toEqual([])
	})

	test.each(['nodenext', 'commonjs'])(
		'its programs compile as %s in strict TypeScript, and those in TypeScript run',
		async (module) => {
			const home = join(users, page, module)
			mkdirSync(home, { recursive: true })
			const type = module === 'nodenext' ? 'module' : 'commonjs'
			writeFileSync(join(home, 'package.json'), JSON.stringify({ type }))
			blocks.forEach(({ name, text }, i) => {
				writeFileSync(join(home, `${i}.ts`), `// ${name}\n${text}`)
			})
			const compilerOptions = {
				...{
					target: 'es2022',
					module,
					moduleResolution: module === 'commonjs' ? 'bundler' : module,
				},
				...{
					strict: true,
					experimentalDecorators: true,
					emitDecoratorMetadata: true,
					types: ['node'],
				},
				...{ skipLibCheck: true, rootDir: '.', outDir: 'out' },
			}
			writeFileSync(
				join(home, 'tsconfig.json'),
				JSON.stringify({ compilerOptions, include: ['*.ts'] }),
			)
			const compiler = join(root, 'node_modules/typescript/bin/tsc')
			expect(await node(home, [compiler, '-p', home])).toEqual({ code: 0, output: '' })
			for (const block of inTypeScript) {
				const compiled = join(home, 'out', `${blocks.indexOf(block)}.js`)
				expect(await faultsOf(users, block, compiled)).toEqual([])
			}
		},
	)
})

describe('the programs of docs/programs.md', () => {
	/** Tells its parent the port in place of 3000. */
	const PORT = `
		const { Server } = require('node:net')
		const { listen } = Server.prototype
		Server.prototype.listen = function (...args) {
			this.once('listening', () => process.send(this.address().port))
			return listen.call(this, 0, '127.0.0.1', ...args.filter((arg) => typeof arg === 'function'))
		}
	`
	const ada = { authorization: `Basic ${btoa('ada:1234')}` }
	const bob = { authorization: `Basic ${btoa('bob:5678')}` }

	/** Begins a program. @returns its port, and how it ends when it is told to. */
	async function start({ text, language, name }: Block) {
		const file = join(
			users,
			`${name.replaceAll(/\W+/g, '-')}-served.${language === 'ts' ? 'cts' : 'mjs'}`,
		)
		writeFileSync(file, text)
		writeFileSync(join(users, 'port.cjs'), PORT)
		let program = file
		if (language === 'ts') {
			program = file.replace(/cts$/, 'cjs')
			const compiler = join(root, 'node_modules/typescript/bin/tsc')
			const options = [
				'--module nodenext --target es2022 --types node --skipLibCheck --ignoreConfig',
				'--experimentalDecorators --emitDecoratorMetadata',
			]
				.join(' ')
				.split(' ')
			expect(await node(users, [compiler, ...options, file])).toEqual({ code: 0, output: '' })
		}
		const child = fork(program, [], {
			cwd: users,
			execArgv: ['--require', './port.cjs'],
			silent: true,
		})
		const ended = once(child, 'exit')
		const [port] = await once(child, 'message')
		child.disconnect()
		const end = async (): Promise<unknown> => {
			child.kill('SIGTERM')
			return (await ended)[0]
		}
		return { port: port as number, end }
	}

	test.each(blocksOf('docs/programs.md').map((block) => [block.name, block] as const))(
		'%s does what the page says',
		async (_name, block) => {
			const { port, end } = await start(block)
			const statuses = async (headers: Record<string, string>, count: number) => {
				const answers = Array.from({ length: count }, () =>
					request(port, { path: '/orders', headers }),
				)
				return (await Promise.all(answers)).map(({ status }) => status).sort()
			}
			const status = async (path: string, headers = {}) =>
				(await request(port, { path, headers })).status

			const served = [200, 200, 200, 200, 200, 200]
			const one = { 'x-forwarded-for': '198.51.100.1' }
			// What a client writes before the address that the proxy adds changes nothing.
			const forged = { 'x-forwarded-for': '192.0.2.7, 198.51.100.1' }
			const other = { 'x-forwarded-for': '198.51.100.2' }
			const groups = Promise.all([
				statuses(bob, 8),
				Promise.all([statuses(one, 4), statuses(forged, 4)]).then((both) => both.flat().sort()),
				statuses(other, 6),
			])
			expect(await status('/health')).toBe(200)
			for (const path of ['/metrics', '/limits/']) {
				expect([await status(path), await status(path, bob), await status(path, ada)]).toEqual([
					401, 401, 200,
				])
			}
			expect((await request(port, { path: '/metrics', headers: ada })).body).toContain(
				'inflight_limit_active{limiter="per-user"}',
			)
			expect(await groups).toEqual([[...served, 429, 429], [...served, 429, 429], served])

			const late = Array.from({ length: 4 }, () => request(port, { path: '/orders', headers: bob }))
			const active = /active\{limiter="in-all"\} 2/
			while (!active.test((await request(port, { path: '/metrics', headers: ada })).body));
			expect(await end()).toBe(0)
			expect((await Promise.all(late)).map(({ status }) => status).sort()).toEqual([
				200, 200, 503, 503,
			])
		},
	)
})

describe('docs/testing.md', () => {
	const blocks = blocksOf('docs/testing.md')
	const write = (name: string, { text }: Block) => writeFileSync(join(users, name), text)

	test('its programs for Vitest pass', async () => {
		const own = blocks.filter(({ text }) => text.includes("from 'vitest'"))
		expect(own.length).toBeGreaterThan(0)
		own.forEach((block, i) => {
			write(`${i}.test.mjs`, block)
		})
		const { code, output } = await node(users, [
			join(modules, 'vitest/vitest.mjs'),
			'run',
			'--root',
			users,
		])
		expect(output).toContain(`${own.length} passed`)
		expect(code, output).toBe(0)
	})

	test('its programs for node:test pass', async () => {
		const own = blocks.filter(({ text }) => text.includes("from 'node:test'"))
		expect(own.length).toBeGreaterThan(0)
		for (const [i, block] of own.entries()) {
			write(`node-${i}.mjs`, block)
			const { code, output } = await node(users, ['--test', `node-${i}.mjs`])
			expect(output).toMatch(/^\S+ pass 1$/m)
			expect(code, output).toBe(0)
		}
	})

	test('its programs for Jest pass', async () => {
		const own = blocks.filter(isCommonJs)
		expect(own.length).toBeGreaterThan(0)
		mkdirSync(join(users, 'jest'))
		own.forEach((block, i) => {
			write(`jest/${i}.test.cjs`, block)
		})
		const program = [join(modules, 'jest/bin/jest.js'), '--testMatch', '**/jest/*.test.cjs']
		const { code, output } = await node(users, program)
		expect(code, output).toBe(0)
	})
})

/** Each begins an app whose handler is `handle()`, behind `guard`, and resolves to its server. */
const APPS = {
	Fastify: `
		const { default: Fastify } = await import('fastify')
		const { default: middie } = await import('@fastify/middie')
		const app = Fastify()
		await app.register(middie)
		app.use(guard)
		app.get('/', (request) => handle(request.raw))
		await app.listen({ port: 0, host: '127.0.0.1' })
		return app.server
	`,
	Hono: `
		const { getRequestListener } = await import('@hono/node-server')
		const { Hono } = await import('hono')
		const app = new Hono()
		app.get('/', async (c) => c.text(await handle(c.env.incoming)))
		const listener = getRequestListener(app.fetch)
		return http.createServer((req, res) => guard(req, res, () => listener(req, res))).listen(0, '127.0.0.1')
	`,
	'Nest on Express': nest(''),
	'Nest on Fastify': nest(
		"new (createRequire(import.meta.url)('@nestjs/platform-fastify').FastifyAdapter)(), { logger: false }",
		'.raw',
	),
}

function nest(adapter: string, raw = ''): string {
	return `
		createRequire(import.meta.url)('reflect-metadata')
		const { Controller, Get, Module, Req } = createRequire(import.meta.url)('@nestjs/common')
		const { NestFactory } = createRequire(import.meta.url)('@nestjs/core')
		class Hello { hello(req) { return handle(req${raw}) } }
		Controller()(Hello)
		Get()(Hello.prototype, 'hello', Object.getOwnPropertyDescriptor(Hello.prototype, 'hello'))
		Req()(Hello.prototype, 'hello', 0)
		class App {}
		Module({ controllers: [Hello] })(App)
		const app = await NestFactory.create(App, ${adapter || '{ logger: false }'})
		app.use(guard)
		await app.listen(0, '127.0.0.1')
		return app.getHttpServer()
	`
}

test.each(Object.entries(APPS))(
	'in %s the limit holds, and each permit comes back',
	async (name, start) => {
		const program = `
		import { once } from 'node:events'
		import http from 'node:http'
		import { createRequire } from 'node:module'
		import { setTimeout as sleep } from 'node:timers/promises'
		import { admission, limit } from 'inflight-limit/express'

		const guard = limit({ capacity: 1, maxQueue: 2 })
		const { limiter } = guard
		const waits = []
		let finish = () => {}
		let admitted = () => {}
		async function handle(req) {
			waits.push(typeof admission(req)?.waited)
			const finished = new Promise((resolve) => { finish = () => resolve('done') })
			admitted()
			return finished
		}
		async function start() { ${start} }
		const server = await start()
		if (!server.listening) await once(server, 'listening')
		const { port } = server.address()
		function get(signal) {
			const url = 'http://127.0.0.1:' + port + '/'
			return fetch(url, { signal, headers: { connection: 'close' } }).then(async (answer) => [answer.status, await answer.text()])
		}
		async function until(reached) { while (!reached()) await sleep(1) }

		const first = get()
		await until(() => waits.length === 1)
		const leaver = new AbortController()
		const left = get(leaver.signal).catch(() => 'left')
		await until(() => limiter.queued === 1)
		const second = get()
		await until(() => limiter.queued === 2)
		const [status, body] = await get()
		leaver.abort()
		await until(() => limiter.queued === 1)
		finish()
		const one = await first
		await until(() => waits.length === 2)
		finish()
		const results = { waits, one, left: await left, two: await second, rejected: [status, JSON.parse(body).reason] }
		await limiter.onIdle()
		console.log(JSON.stringify({ ...results, active: limiter.active, completed: limiter.stats().completed }))
		process.exit()
	`
		const file = `${name.replaceAll(' ', '-')}.mjs`
		writeFileSync(join(users, file), program)
		const { code, output } = await node(users, [file])
		expect(code, output).toBe(0)
		expect(JSON.parse(output)).toEqual({
			waits: ['number', 'number'],
			one: [200, 'done'],
			left: 'left',
			two: [200, 'done'],
			rejected: [503, 'queue-full'],
			active: 0,
			completed: 2,
		})
	},
)

test('behind serverless-http an app is limited, and answers', async () => {
	const program = `
		import { handler, guard } from './serverless.mjs'
		const event = { version: '2.0', rawPath: '/', requestContext: { http: { method: 'GET', path: '/' } }, headers: {} }
		const answers = await Promise.all([1, 2, 3, 4].map(() => handler(event, {})))
		await guard.limiter.onIdle()
		console.log(JSON.stringify([answers.map(({ statusCode }) => statusCode), guard.limiter.stats().completed]))
	`
	const block = blocksOf('docs/frameworks.md').find(({ text }) =>
		text.includes('serverless'),
	) as Block
	const exposed = block.text
		.replace(
			'app.use(limit(3))',
			'export const guard = limit({ capacity: 3, maxQueue: 0 })\napp.use(guard)',
		)
		.replace("res.send('Hello\\n')", "setTimeout(() => res.send('Hello\\n'), 50)")
	writeFileSync(join(users, 'serverless.mjs'), exposed)
	writeFileSync(join(users, 'invoke.mjs'), program)
	const { code, output } = await node(users, ['invoke.mjs'])
	expect(code, output).toBe(0)
	expect(JSON.parse(output)).toEqual([[200, 200, 200, 503], 3])
})
