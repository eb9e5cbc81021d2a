import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, afterEach, expect, test } from 'vitest'
import { request, until } from './support/clients.js'
import { describeRedis, endAll, startServer } from './support/redis.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const running: ChildProcess[] = []

afterEach(() => {
	for (const child of running.splice(0)) child.kill('SIGKILL')
})

/** Starts an example, and waits until it has said where it listens. */
async function start(
	name: string,
	servers = 1,
	env: NodeJS.ProcessEnv = {},
): Promise<{ ports: number[]; child: ChildProcess; lines: string[] }> {
	const child = spawn(process.execPath, [`examples/${name}.js`], {
		cwd: root,
		env: { ...process.env, PORT: '0', ...env },
		stdio: ['ignore', 'pipe', 'inherit'],
	})
	running.push(child)
	const lines: string[] = []
	let text = ''
	child.stdout.on('data', (chunk) => {
		text += chunk
		const complete = text.split('\n')
		text = complete.pop() ?? ''
		lines.push(...complete)
	})
	await until(() => lines.length >= servers)
	const ports = lines.slice(0, servers).map((line) => Number(new URL(line).port))
	return { ports, child, lines }
}

function statuses(answers: { status: number }[]): number[] {
	return answers.map(({ status }) => status)
}

test.each([
	['express-app', 'Hello from Express\n'],
	['koa-app', 'Hello from Koa\n'],
])('%s serves all, three at a time', async (name, body) => {
	const { ports } = await start(name)
	const begin = performance.now()
	const answers = await Promise.all(Array.from({ length: 7 }, () => request(ports[0] as number)))
	for (const answer of answers) expect(answer).toMatchObject({ status: 200, body })
	// Seven at three a time are three rounds of 100 ms.
	expect(performance.now() - begin).toBeGreaterThan(280)
})

test('expensive-route rejects what is too much, and its neighbours never wait', async () => {
	const { ports } = await start('expensive-route')
	const port = ports[0] as number
	const reports = Promise.all(Array.from({ length: 10 }, () => request(port, { path: '/report' })))
	expect(await request(port, { path: '/health' })).toMatchObject({ status: 200, body: 'fine\n' })
	expect(statuses(await reports).sort()).toEqual([200, 200, 200, 200, 200, 200, 200, 503, 503, 503])
})

test('limit-per-user gives each user a limit of their own, and the rest one by address', async () => {
	const { ports } = await start('limit-per-user')
	const ask = (headers: Record<string, string>) =>
		request(ports[0] as number, { path: '/export', headers })
	const [ada, guests, bob] = await Promise.all([
		Promise.all([1, 2, 3, 4].map(() => ask({ authorization: 'Bearer 1234' }))),
		// What a client makes up gives it no limit of its own.
		Promise.all([{}, {}, ...['ada', 'eve'].map((it) => ({ authorization: it }))].map(ask)),
		ask({ authorization: 'Bearer 5678' }),
	])
	expect(statuses(ada).sort()).toEqual([200, 200, 429, 429])
	expect(statuses(guests).sort()).toEqual([200, 200, 429, 429])
	expect(bob).toMatchObject({ status: 200, body: 'exported for bob\n' })
})

test('shared-limiter bounds both apps together', async () => {
	const { ports } = await start('shared-limiter', 2)
	const answers = await Promise.all([...ports, ...ports, ...ports].map((port) => request(port)))
	for (const { status, body } of answers) {
		expect(status).toBe(200)
		expect(['1 at work\n', '2 at work\n']).toContain(body)
	}
})

test('graceful-shutdown lets requests at work finish, rejects those that wait, and ends', async () => {
	const { ports, child, lines } = await start('graceful-shutdown')
	const port = ports[0] as number
	const answers = [request(port)]
	const stats = async (): Promise<{ active: number; queued: number }> =>
		JSON.parse((await request(port, { path: '/stats' })).body)
	while ((await stats()).active === 0);
	answers.push(request(port))
	while ((await stats()).queued === 0);
	const ended = new Promise((resolve) => child.once('exit', (code) => resolve(code)))
	child.kill('SIGTERM')
	expect(statuses(await Promise.all(answers))).toEqual([200, 503])
	expect(await ended).toBe(0)
	expect(lines).toContain('idle')
})

test('access-log tells waiting from work', async () => {
	const { ports, lines } = await start('access-log')
	const port = ports[0] as number
	await Promise.all([1, 2, 3].map(() => request(port)))
	await until(() => lines.length === 4)
	const logged = lines
		.slice(1)
		.map((line) => /^GET \/ (\d+) wait=(\d+)ms work=(\d+)ms$/.exec(line)?.slice(1).map(Number))
	const served = logged.filter((entry) => entry?.[0] === 200)
	expect(logged.filter((entry) => entry?.[0] === 503).length).toBe(1)
	expect(served.length).toBe(2)
	expect(served[0]?.[1]).toBe(0)
	expect(served[1]?.[1]).toBeGreaterThan(50)
	for (const entry of served) expect(entry?.[2]).toBeGreaterThan(90)
})

test('outbound-semaphore shows what goes wrong, and what is right', async () => {
	const { stdout } = await promisify(execFile)(
		process.execPath,
		['examples/outbound-semaphore.js'],
		{
			cwd: root,
		},
	)
	const [counter, lock, semaphore] = stdout.trim().split('\n')
	expect(Number(/^counter: highest (\d+) of 3/.exec(counter ?? '')?.[1])).toBeGreaterThan(3)
	expect(lock).toMatch(/^counter under a lock: highest 3 of 3, \d+ ms, order( \d){10}$/)
	expect(semaphore).toMatch(/^semaphore: highest 3 of 3, \d+ ms, order( \d){10}$/)
})

test('outbound-fetch holds its permits until the bodies have been read', async () => {
	const { stdout } = await promisify(execFile)(process.execPath, ['examples/outbound-fetch.js'], {
		cwd: root,
	})
	const [semaphore, limited] = stdout.trim().split('\n')
	expect(
		Number(/^semaphore around fetch: highest (\d+) of 3$/.exec(semaphore ?? '')?.[1]),
	).toBeGreaterThan(3)
	expect(limited).toBe('limitFetch: highest 3 of 3')
})

test('adaptive-capacity begins with its initial capacity, and serves', async () => {
	const { ports } = await start('adaptive-capacity')
	const port = ports[0] as number
	const stats = async () => JSON.parse((await request(port, { path: '/capacity' })).body)
	expect(await stats()).toMatchObject({ capacity: 20, completed: 0 })
	// One after the other: many at once make the event loop late, on a machine with much else to do.
	for (let i = 0; i < 5; i++) expect((await request(port)).status).toBe(200)
	expect(await stats()).toMatchObject({ completed: 5 })
})

test('overload serves all that come in time', async () => {
	const { ports, lines } = await start('overload')
	const tokens: Record<string, string> = { ada: 'Bearer 1', bob: 'Bearer 2', eve: 'Bearer 3' }
	const ask = (customer: string, headers = {}) =>
		request(ports[0] as number, {
			headers: { authorization: tokens[customer] ?? '', 'grpc-timeout': '30S', ...headers },
		})
	const late = { 'x-request-start': `t=${Date.now() / 1000 - 60}` }
	const customers = ['eve', 'eve', 'ada', 'ada', 'ada', 'bob', 'a guest']
	const answers = await Promise.all([
		...customers.map((customer) => ask(customer)),
		ask('bob', late),
	])
	expect(statuses(answers)).toEqual([200, 200, 200, 200, 200, 200, 200, 503])
	expect(lines.slice(1).toSorted()).toEqual(
		customers.map((customer) => `served ${customer}`).toSorted(),
	)
})

test('cluster-limit is one limit for two processes, and ends when it is told to', async () => {
	const { ports, child, lines } = await start('cluster-limit', 2, { PORT: '0' })
	// Both workers share one port.
	expect(ports[0]).toBe(ports[1])
	const begin = performance.now()
	const answers = await Promise.all(Array.from({ length: 6 }, () => request(ports[0] as number)))
	const processes = new Set<string>()
	for (const { status, body } of answers) {
		expect(status).toBe(200)
		processes.add(/^waited \d+ ms in process (\d+)\n$/.exec(body)?.[1] ?? '')
	}
	expect(processes.size).toBe(2)
	// Six at two a time are three rounds of 200 ms.
	expect(performance.now() - begin).toBeGreaterThan(580)
	expect(lines.length).toBe(2)
	const ended = new Promise((resolve) => child.once('exit', resolve))
	child.kill('SIGTERM')
	expect(await ended).toBe(0)
})

describeRedis('with a Redis', () => {
	afterAll(endAll)

	test('fleet-limit is one limit for two processes, and leaves when it is told to end', async () => {
		const redis = await startServer()
		const env = { REDIS_URL: `redis://127.0.0.1:${redis.port}` }
		const started = await Promise.all([start('fleet-limit', 1, env), start('fleet-limit', 1, env)])
		const [one, other] = started.map(({ ports }) => ports[0] as number) as [number, number]
		// A Redis that has just started lets nobody in until all processes may be back.
		await request(one)
		const begin = performance.now()
		const answers = await Promise.all(
			[one, other, one, other, one, other].map((port) => request(port)),
		)
		for (const { status, body } of answers) {
			expect(status).toBe(200)
			expect(body).toMatch(/^waited \d+ ms\n$/)
		}
		// Six at two a time are three rounds of 200 ms.
		expect(performance.now() - begin).toBeGreaterThan(580)
		for (const { child } of started) {
			const ended = new Promise((resolve) => child.once('exit', resolve))
			child.kill('SIGTERM')
			expect(await ended).toBe(0)
		}
	})
})

test('there is no example without a test', () => {
	expect(readdirSync(`${root}/examples`).sort()).toEqual(
		[
			'access-log.js',
			'adaptive-capacity.js',
			'cluster-limit.js',
			'expensive-route.js',
			'express-app.js',
			'fleet-limit.js',
			'graceful-shutdown.js',
			// Tested by grafana.test.ts.
			'grafana',
			'koa-app.js',
			'limit-per-user.js',
			'outbound-fetch.js',
			'outbound-semaphore.js',
			'overload.js',
			'shared-limiter.js',
		].sort(),
	)
})
