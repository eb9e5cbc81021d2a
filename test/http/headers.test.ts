import express from 'express'
import { describe, expect, test } from 'vitest'
import { type LimitOptions, limit } from '../../adapters/express.js'
import { Limiter } from '../../src/limiter/limiter.js'
import { type Answer, request, serve, until, workshop } from '../support/clients.js'
import { frameworks, listen } from '../support/frameworks.js'

/** What an answer tells of the limiter. */
function told({ headers }: Answer): Record<string, unknown> {
	return {
		timing: headers['server-timing'],
		policy: headers['ratelimit-policy'],
		state: headers.ratelimit,
	}
}

const nothing = { timing: undefined, policy: undefined, state: undefined }

describe.each(frameworks)('$name', (framework) => {
	test('tells how long a request waited, and what is left of the capacity, when asked to', async () => {
		const work = workshop()
		const options = {
			capacity: 2,
			maxQueue: 1,
			name: 'reports',
			serverTiming: true,
			rateLimitFields: true,
		}
		const running = await serve(framework, options, work.handler)
		const { port, limiter } = running
		const waited: number[] = []
		limiter.observe({ admitted: (facts) => waited.push(facts.waited) })
		const requests = [request(port, { path: '/1' })]
		await until(() => work.begun.length === 1)
		requests.push(request(port, { path: '/2' }))
		await until(() => work.begun.length === 2)
		requests.push(request(port, { path: '/3' }))
		await until(() => limiter.queued === 1)
		const rejected = await request(port, { path: '/4' })
		work.finishAll()
		const [first, second, third] = (await Promise.all(requests)) as [Answer, Answer, Answer]

		const policy = '"reports";q=2;qu="concurrent-requests"'
		expect(told(first)).toEqual({ timing: 'queue;dur=0', policy, state: '"reports";r=1' })
		expect(told(second)).toEqual({ timing: 'queue;dur=0', policy, state: '"reports";r=0' })
		expect(told(third)).toMatchObject({
			policy,
			state: expect.stringMatching(/^"reports";r=[01]$/),
		})
		const dur = Number(/^queue;dur=([\d.]+)$/.exec(third.headers['server-timing'] as string)?.[1])
		expect(dur).toBeGreaterThan(0)
		expect(dur).toBeCloseTo(waited[2] as number, 3)
		expect(rejected.status).toBe(503)
		const retryAfter = rejected.headers['retry-after']
		expect(told(rejected)).toEqual({
			timing: undefined,
			policy,
			state: `"reports";r=0;t=${retryAfter}`,
		})
		await running[Symbol.asyncDispose]()
	})

	test('tells nothing unless asked to', async () => {
		const running = await serve(framework, { capacity: 1 }, (_req, res) => res.end())
		const served = await request(running.port)
		running.limiter.close()
		const rejected = await request(running.port)
		expect([served.status, rejected.status]).toEqual([200, 503])
		expect(told(served)).toEqual(nothing)
		expect(told(rejected)).toEqual(nothing)
		await running[Symbol.asyncDispose]()
	})

	test('a key with a capacity of its own is told of that', async () => {
		const options = { capacity: () => 7, key: () => 'ada', rateLimitFields: true }
		const running = await serve(framework, options, (_req, res) => res.end('ok'))
		const answer = await request(running.port)
		expect(told(answer)).toMatchObject({
			policy: '"default";q=7;qu="concurrent-requests"',
			state: '"default";r=6',
		})
		await running[Symbol.asyncDispose]()
	})

	test('with a key, tells of that key only', async () => {
		const work = workshop()
		const key = (subject: { req?: object }): string =>
			((subject.req ?? subject) as { headers: Record<string, string> }).headers['x-user'] as string
		const options = { capacity: 3, key: key as () => string, rateLimitFields: true }
		const running = await serve(framework, options, work.handler)
		const ask = (user: string): Promise<Answer> =>
			request(running.port, { headers: { 'x-user': user } })
		const ada = [ask('ada'), ask('ada'), ask('ada')]
		await until(() => work.begun.length === 3)
		const bob = ask('bob')
		await until(() => work.begun.length === 4)
		work.finishAll()
		await Promise.all(ada)
		expect((await bob).headers.ratelimit).toBe('"default";r=2')
		await running[Symbol.asyncDispose]()
	})
})

/** The answer of an Express app with these limits before one handler. */
async function through(...limits: (LimitOptions | Limiter)[]): Promise<Answer> {
	const app = express()
	for (const options of limits) app.use(limit(options as LimitOptions))
	app.use((_req, res) => void res.append('Server-Timing', 'db;dur=3').send('ok'))
	const { server, port } = await listen(app)
	const answer = await request(port)
	server.closeAllConnections()
	server.close()
	return answer
}

test('each limiter that a request met is told of, beside what others tell', async () => {
	const both = { serverTiming: true, rateLimitFields: true }
	const shared = new Limiter({ capacity: 9, name: 'a "shared\\ one"', ...both })
	const answer = await through({ capacity: 2, name: 'outer', ...both }, shared, shared)
	expect(told(answer)).toEqual({
		timing: 'queue;dur=0, queue;dur=0, db;dur=3',
		policy:
			'"outer";q=2;qu="concurrent-requests", "a \\"shared\\\\ one\\"";q=9;qu="concurrent-requests"',
		state: '"outer";r=1, "a \\"shared\\\\ one\\"";r=8',
	})
	const closed = new Limiter({ capacity: 9, name: 'closed', ...both })
	closed.close()
	expect((await through({ capacity: 2, name: 'outer', ...both }, closed)).headers.ratelimit).toBe(
		'"outer";r=1, "closed";r=0;t=1',
	)
})

test('a name that is not ASCII is encoded', async () => {
	const name = 'Größe 50 % "x" 🚀'
	const answer = await through({ capacity: 2, name, rateLimitFields: true })
	expect(told(answer).state).toBe('"Gr%C3%B6%C3%9Fe 50 %25 \\"x\\" %F0%9F%9A%80";r=1')
	expect(decodeURIComponent(String(told(answer).state).replaceAll('\\', ''))).toContain(name)
})

test('one alone is told; no bound is no quota; a quota is no larger than a field can say', async () => {
	expect(told(await through({ capacity: 2, serverTiming: true }))).toMatchObject({
		timing: 'queue;dur=0, db;dur=3',
		policy: undefined,
	})
	expect(
		told(await through({ capacity: Number.POSITIVE_INFINITY, rateLimitFields: true })),
	).toMatchObject({
		policy: undefined,
		state: undefined,
	})
	const largest = { capacity: Number.MAX_SAFE_INTEGER, rateLimitFields: true }
	expect(told(await through(largest))).toMatchObject({
		policy: '"default";q=999999999999999;qu="concurrent-requests"',
		state: '"default";r=999999999999999',
	})
})

test('a weight counts as much as it takes', async () => {
	const answer = await through({ capacity: 9, weight: () => 4, rateLimitFields: true })
	expect(answer.headers.ratelimit).toBe('"default";r=5')
})

test('a response whose head is on its way can be told no more', async () => {
	const app = express()
	app.use((_req, res, next) => {
		res.write('begun ')
		next()
	})
	app.use(limit({ capacity: 1, serverTiming: true, rateLimitFields: true }))
	app.use((_req, res) => void res.end('and done'))
	const { server, port } = await listen(app)
	expect(await request(port)).toMatchObject({ status: 200, body: 'begun and done' })
	server.closeAllConnections()
	server.close()
})

test('both are options like the others', () => {
	const wrong =
		(options: object): (() => unknown) =>
		() =>
			limit({ capacity: 1, ...options } as LimitOptions)
	expect(wrong({ serverTiming: 1 })).toThrow('serverTiming must be true or false; got 1')
	expect(wrong({ rateLimitFields: 'yes' })).toThrow(
		'rateLimitFields must be true or false; got "yes"',
	)
	expect(limit({ capacity: 1, serverTiming: undefined }).limiter.serverTiming).toBe(false)
})
