import { AsyncLocalStorage } from 'node:async_hooks'
import { execFile } from 'node:child_process'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import express from 'express'
import { Redis } from 'ioredis'
import Koa from 'koa'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import * as forExpress from '../../../adapters/express.js'
import * as forKoa from '../../../adapters/koa.js'
import {
	type RedisClient,
	type RedisLimiter,
	type RedisLimiterOptions,
	redisLimiter,
} from '../../../adapters/redis/index.js'
import {
	describeRedis,
	endAll,
	later,
	type Pool,
	servers,
	startPool,
	startRelay,
	startServer,
	WHEN_BUSY,
} from '../../support/redis.js'

const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

const clients = {
	redis: async (port: number, keyPrefix = '') => {
		const client = createClient({ socket: { host: '127.0.0.1', port }, keyPrefix })
		client.on('error', () => {})
		await client.connect()
		return { client: client as unknown as RedisClient, end: () => client.destroy() }
	},
	ioredis: async (port: number, keyPrefix = '') => {
		const client = new Redis(port, '127.0.0.1', { keyPrefix })
		client.on('error', () => {})
		return { client: client as RedisClient, end: () => client.disconnect() }
	},
}

async function close(...limiters: RedisLimiter[]): Promise<void> {
	for (const limiter of limiters) {
		limiter.close()
		await limiter.onIdle()
	}
}

const execute = promisify(execFile)

/** Tests at a time, each with a Redis of its own. */
const AT_ONCE = 8

let names = 0

/** A Redis, and what a test needs with it. */
class ClientBench {
	readonly client: RedisClient
	readonly raw: Redis
	readonly port: number

	constructor(client: RedisClient, port: number) {
		this.client = client
		this.port = port
		this.raw = new Redis(port, '127.0.0.1')
	}

	readonly make = (options: Partial<RedisLimiterOptions> = {}) => {
		const { client } = this
		const { lease = 4_000 } = options
		const given = {
			client,
			name: `limiter ${++names}`,
			capacity: 2,
			lease,
			redisTimeout: lease / 4,
		}
		return redisLimiter({ ...given, ...options })
	}

	/** Nothing is left of a limiter. */
	readonly finish = async (limiter: ReturnType<ClientBench['make']>): Promise<void> => {
		await close(limiter)
		const key = `inflight:{${encodeURIComponent(limiter.name)}}`
		expect((await this.raw.keys('*')).filter((name) => name.startsWith(key))).toEqual([])
	}
}

async function onBench(
	pool: Pool,
	kind: keyof typeof clients,
	body: (bench: ClientBench) => Promise<void>,
): Promise<void> {
	const server = await pool.take()
	const { client, end } = await clients[kind](server.port)
	const bench = new ClientBench(client, server.port)
	try {
		await body(bench)
	} finally {
		end()
		await bench.raw.flushall()
		bench.raw.disconnect()
		pool.give(server)
	}
}

describeRedis.each(servers)('%s', { concurrent: true, retry: WHEN_BUSY }, (binary) => {
	let pool: Pool

	beforeAll(async () => {
		pool = await startPool(AT_ONCE, [], binary)
	})
	afterAll(endAll)

	const kinds = Object.keys(clients) as (keyof typeof clients)[]
	const both = describe.each(kinds)

	both('through %s', (kind) => {
		test('first come, first served, never more than the capacity; each token higher than those before', () =>
			onBench(pool, kind, async ({ make, finish }) => {
				const limiter = make()
				const a = await limiter.acquire()
				const b = await limiter.acquire()
				const order: string[] = []
				const waiting = ['c', 'd', 'e'].map(async (name) => {
					const permit = await limiter.acquire()
					order.push(name)
					expect(permit.waited).toBeGreaterThan(0)
					return permit
				})
				await sleep(50)
				expect(limiter).toMatchObject({ active: 2, queued: 3, capacity: 2, available: true })
				a.release()
				a.release()
				const c = await waiting[0]
				b.release()
				const d = await waiting[1]
				c?.release()
				const e = await waiting[2]
				expect(order).toEqual(['c', 'd', 'e'])
				const tokens = [a, b, c, d, e].map((permit) => permit?.token as number)
				expect(tokens).toEqual([...tokens].sort((x, y) => x - y))
				expect(new Set(tokens).size).toBe(5)
				expect(c?.signal.aborted).toBe(false)
				d?.release()
				e?.release()
				await finish(limiter)
				expect(limiter.stats()).toMatchObject({
					admitted: 5,
					completed: 5,
					active: 0,
					queued: 0,
					keys: 0,
				})
			}))

		test('a client that puts a prefix before its keys: a waiter is woken by a message', () =>
			onBench(pool, kind, async ({ raw, port }) => {
				const prefixed = await clients[kind](port, '{app}:')
				const options = {
					client: prefixed.client,
					name: 'prefixed',
					capacity: 1,
					redisTimeout: 2_000,
				}
				const limiter = redisLimiter(options)
				const permit = await limiter.acquire()
				const waiting = later(limiter.acquire())
				const resized = redisLimiter(options)
				await sleep(50)
				const since = performance.now()
				permit.release()
				const next = await waiting
				expect(performance.now() - since).toBeLessThan(1_000)
				const third = later(resized.acquire())
				await vi.waitFor(() => expect(resized.stats().fleet.processes).toBe(2), 5_000)
				await resized.resize(2)
				;(await third).release()
				await vi.waitFor(() => expect(limiter.capacity).toBe(2), 5_000)
				expect(await raw.keys('{app}:*')).not.toEqual([])
				next.release()
				await close(limiter, resized)
				prefixed.end()
				expect(await raw.keys('{app}:*')).toEqual([])
			}))

		test('one command to admit, one to release', () =>
			onBench(pool, kind, async ({ raw, make, finish }) => {
				const limiter = make()
				await limiter.run(() => {})
				await limiter.onIdle()
				await raw.config('RESETSTAT')
				for (let i = 0; i < 100; i++) await limiter.run(() => {})
				await limiter.onIdle()
				const stats = await raw.info('commandstats')
				const calls = Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1])
				expect(calls).toBeGreaterThanOrEqual(200)
				expect(calls).toBeLessThanOrEqual(202)
				expect(stats).not.toMatch(/cmdstat_eval:/)
				await finish(limiter)
			}))

		test('bounds, cancels and weights', () =>
			onBench(pool, kind, async ({ make, finish }) => {
				const limiter = make({ maxQueue: 1 })
				const heavy = await limiter.acquire({ weight: 2 })
				const late = expect(limiter.acquire({ maxWait: 500 })).rejects.toMatchObject({
					reason: 'timeout',
				})
				await sleep(30)
				await expect(limiter.acquire()).rejects.toMatchObject({
					reason: 'queue-full',
					retryAfter: 1,
				})
				await late
				await expect(limiter.acquire({ maxWait: 0 })).rejects.toMatchObject({ reason: 'timeout' })
				const cancel = new AbortController()
				const cancelled = limiter.acquire({ signal: cancel.signal })
				await sleep(30)
				cancel.abort('left')
				await expect(cancelled).rejects.toBe('left')
				// The answer and the cancel cross.
				const crossing = new AbortController()
				const crossed = limiter.acquire({ signal: crossing.signal })
				crossing.abort('at once')
				await expect(crossed).rejects.toBe('at once')
				await expect(limiter.acquire({ signal: AbortSignal.abort('before') })).rejects.toBe(
					'before',
				)
				heavy.release()
				await limiter.run(async (permit) => expect(permit.token).toBeGreaterThan(0), { weight: 2 })
				await expect(limiter.acquire({ weight: 3 })).rejects.toThrow(RangeError)
				await expect(limiter.run(3 as never)).rejects.toThrow('task must be a function')
				await expect(limiter.acquire({ signal: {} as never })).rejects.toThrow(TypeError)
				expect(limiter.stats().rejected).toMatchObject({ 'queue-full': 1, timeout: 2, aborted: 3 })
				await finish(limiter)
				await expect(limiter.acquire()).rejects.toMatchObject({ reason: 'closed' })
			}))

		test('a cancel that crosses with the answer that it is queued takes its place from Redis', () =>
			onBench(pool, kind, async ({ raw, make, finish }) => {
				const limiter = make()
				const held = await limiter.acquire({ weight: 2 })
				const cancel = new AbortController()
				const left = limiter.acquire({ signal: cancel.signal })
				cancel.abort('left')
				await expect(left).rejects.toBe('left')
				await sleep(50)
				const queue = `inflight:{${encodeURIComponent(limiter.name)}}:queue`
				await vi.waitFor(async () => expect(await raw.zcard(queue)).toBe(0), 1_000)
				held.release()
				await limiter.run(() => {}, { weight: 2, maxWait: 1_000 })
				await finish(limiter)
			}))

		test('cancels that cross with answers a hundred times leave no permit behind', () =>
			onBench(pool, kind, async ({ make, finish }) => {
				const limiter = make()
				await limiter.run(() => {})
				for (let i = 0; i < 100; i++) {
					const cancel = new AbortController()
					const waiting = limiter.acquire({ signal: cancel.signal }).then(
						(permit) => permit.release(),
						() => {},
					)
					if (i % 2) await new Promise(setImmediate)
					cancel.abort()
					await waiting
				}
				await sleep(20)
				await limiter.run(() => {}, { weight: 2, maxWait: 1_000 })
				await finish(limiter)
			}))

		test('a capacity for the whole fleet can be changed', () =>
			onBench(pool, kind, async ({ make, finish }) => {
				const one = make()
				const other = make({ name: one.name })
				const resized = vi.fn()
				other.observe({ resized })
				const held = [await one.acquire(), await other.acquire()]
				const third = later(other.acquire())
				await sleep(30)
				await one.resize(3)
				held.push(await third)
				await vi.waitFor(() => expect(other.capacity).toBe(3), 5_000)
				expect(resized).toHaveBeenCalledWith({ limiter: one.name, capacity: 3 })
				expect(one.stats().fleet.processes).toBeGreaterThanOrEqual(1)
				for (const permit of held) permit.release()
				await close(one)
				await finish(other)
				expect(() => one.resize(0)).toThrow(RangeError)
			}))

		test('names of users stay in their keys', () =>
			onBench(pool, kind, async ({ raw, make, finish }) => {
				const limiter = make({ name: 'a}:{b} %: c' })
				const other = make({ name: 'a' })
				const permit = await limiter.acquire()
				const all = await raw.keys('inflight:*')
				expect(all).toContain('inflight:{a%7D%3A%7Bb%7D%20%25%3A%20c}')
				for (const key of all) expect(await raw.pttl(key)).toBeGreaterThan(0)
				expect(await other.run(() => 'free')).toBe('free')
				permit.release()
				await finish(limiter)
				await finish(other)
			}))

		test('an idle limiter leaves Redis by itself, and comes back', () =>
			onBench(pool, kind, async ({ raw, make, finish }) => {
				const limiter = make({ lease: 500 })
				await vi.waitFor(() => limiter.run(() => {}), 5_000)
				expect(await raw.keys('inflight:*')).not.toEqual([])
				await vi.waitFor(async () => expect(await raw.keys('inflight:*')).toEqual([]), 5_000)
				expect(await vi.waitFor(() => limiter.run(() => 'again'), 5_000)).toBe('again')
				await finish(limiter)
			}))

		test('a limiter that is used again and again, but never for long, stays', () =>
			onBench(pool, kind, async ({ raw, make, finish }) => {
				const limiter = make({ lease: 1_000 })
				await vi.waitFor(() => limiter.run(() => {}), 5_000)
				await raw.config('RESETSTAT')
				for (let i = 0; i < 60; i++) {
					await limiter.run(() => {})
					await sleep(50)
				}
				expect(await raw.info('commandstats')).not.toContain('cmdstat_eval:')
				await finish(limiter)
			}))

		test('Redis flushed: holders count before newcomers are admitted', () =>
			onBench(pool, kind, async ({ raw, make, finish }) => {
				const limiter = make()
				const held = [await limiter.acquire(), await limiter.acquire()]
				await raw.flushall()
				const waiting = later(limiter.acquire())
				await sleep(300)
				expect(limiter).toMatchObject({ active: 2, queued: 1 })
				held[0]?.release()
				const permit = await waiting
				expect(held.every(({ signal }) => !signal.aborted)).toBe(true)
				permit.release()
				held[1]?.release()
				await finish(limiter)
			}))

		test('two limiters of one name share a client: each notices that the other has opened the books', () =>
			onBench(pool, kind, async ({ raw, make, finish }) => {
				const options = { name: 'twice', lease: 1_000 }
				const [one, other] = [make(options), make(options)]
				for (const limiter of [one, other]) await vi.waitFor(() => limiter.run(() => {}), 5_000)
				await vi.waitFor(async () => expect(await raw.keys('inflight:*')).toEqual([]), 5_000)
				const held = [await one.acquire(), await one.acquire()]
				await raw.flushall()
				const waiting = later(other.acquire())
				await sleep(300)
				expect([other.active, other.queued]).toEqual([0, 1])
				for (const permit of held) permit.release()
				;(await waiting).release()
				await close(one)
				// The other one still listens.
				await vi.waitFor(() => other.run(() => {}), 5_000)
				expect(await raw.pubsub('CHANNELS', 'inflight:{twice}:books')).toHaveLength(1)
				await finish(other)
				await vi.waitFor(async () => expect(await raw.pubsub('CHANNELS', '*')).toEqual([]), 5_000)
			}))

		test.each(['Express', 'Koa'])('in %s, with the same figures and rejections', (framework) =>
			onBench(pool, kind, async ({ make, finish }) => {
				const limiter = make({
					capacity: 1,
					maxQueue: 1,
					weight: () => 1,
					skip: (req: object) => 'url' in req && req.url === '/free',
				})
				await limiter.run(() => {})
				let app: http.RequestListener
				const go: (() => void)[] = []
				const storage = new AsyncLocalStorage<number>()
				let contexts = 0
				const handle = async (signal: AbortSignal | undefined) => {
					expect(signal?.aborted).toBe(false)
					if (storage.getStore() !== undefined) contexts++
					await new Promise<void>((resolve) => go.push(resolve))
				}
				if (framework === 'Express') {
					const made = express()
					made.use((_req, _res, next) => storage.run(1, next))
					made.use(forExpress.limit(limiter))
					made.use(async (req, res) => {
						await handle(
							req.url === '/free'
								? new AbortController().signal
								: forExpress.admission(req)?.signal,
						)
						res.send('done')
					})
					app = made
				} else {
					const made = new Koa()
					made.use((_ctx, next) => storage.run(1, next))
					made.use(forKoa.limit(limiter))
					made.use(async (ctx) => {
						await handle(
							ctx.path === '/free' ? new AbortController().signal : forKoa.admission(ctx)?.signal,
						)
						ctx.body = 'done'
					})
					app = made.callback()
				}
				const web = http.createServer(app).listen(0, '127.0.0.1')
				await new Promise((resolve) => web.once('listening', resolve))
				const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}`
				const first = fetch(url)
				await vi.waitFor(() => expect(go.length).toBe(1), 5_000)
				const second = fetch(url)
				await vi.waitFor(() => expect(limiter.queued).toBe(1), 5_000)
				await sleep(30)
				const third = await fetch(url)
				expect(third.status).toBe(503)
				expect(third.headers.get('retry-after')).toBe('1')
				expect(await third.json()).toMatchObject({ reason: 'queue-full' })
				go[0]?.()
				expect((await first).status).toBe(200)
				await vi.waitFor(() => expect(go.length).toBe(2), 5_000)
				go[1]?.()
				expect((await second).status).toBe(200)
				expect(contexts).toBe(2)
				await limiter.onIdle()
				expect(limiter.stats()).toMatchObject({
					admitted: 3,
					completed: 3,
					rejected: { 'queue-full': 1 },
				})
				web.close()
				web.closeAllConnections()
				await finish(limiter)
			}),
		)
	})

	test.each([
		['and Redis answers', '', '{ maxWait: 300 }', 'timeout'],
		['and Redis has gone', 'client.destroy()', '{ maxWait: 300 }', 'timeout'],
		['but has no bound: it does not keep the process alive', '', '{ maxWait: Infinity }', ''],
	])('a wait outside of requests, where nothing else is alive, %s', (_, before, options, said) =>
		onBench(pool, 'redis', async ({ port }) => {
			// A program of its own, on the built package.
			const program = `
				import { redisLimiter } from 'inflight-limit/redis'
				import { createClient } from 'redis'
				const client = createClient({ socket: { host: '127.0.0.1', port: ${port} } })
				client.on('error', () => {})
				await client.connect()
				const limiter = redisLimiter({ client, name: 'alone', capacity: 1, redisTimeout: 2_000 })
				await limiter.acquire()
				client.unref()
				${before}
				const wait = (result) => result.catch((error) => console.log(error.reason))
				wait(limiter.acquire(${options}))
				wait(limiter.run(() => {}, ${options}))`
			const { stdout } = await execute(
				process.execPath,
				['--input-type=module', '--eval', program],
				{
					cwd: import.meta.dirname,
					timeout: 20_000,
				},
			)
			expect(stdout.trim().split('\n')).toEqual(said === '' ? [''] : [said, said])
		}),
	)

	test('with 1,000 waiting and nothing released, next to nothing is asked of Redis', () =>
		onBench(pool, 'redis', async ({ raw, make, finish }) => {
			const limiter = make({ lease: 10_000 })
			const held = [await limiter.acquire(), await limiter.acquire()]
			const waiting = Array.from({ length: 1_000 }, () =>
				limiter.acquire().catch((error) => error.reason),
			)
			const queue = `inflight:{${encodeURIComponent(limiter.name)}}:queue`
			await vi.waitFor(async () => expect(await raw.zcard(queue)).toBe(1_000), 5_000)
			await sleep(100)
			await raw.config('RESETSTAT')
			await sleep(3_000)
			const calls = Number(
				/cmdstat_evalsha:calls=(\d+)/.exec(await raw.info('commandstats'))?.[1] ?? 0,
			)
			expect(calls).toBeLessThanOrEqual(2)
			limiter.close()
			expect(new Set(await Promise.all(waiting))).toEqual(new Set(['closed']))
			for (const permit of held) permit.release()
			await finish(limiter)
		}))
})

// Alone: it blocks its process.
describeRedis('a process that is blocked', { retry: WHEN_BUSY }, () => {
	afterAll(endAll)

	test('a process that could not renew its lease learns it, by a signal that looks at the clock', async () => {
		const { port } = await startServer()
		const { client, end } = await clients.redis(port)
		const limiter = redisLimiter({
			client,
			name: 'blocked',
			capacity: 2,
			lease: 500,
			redisTimeout: 100,
		})
		await vi.waitFor(() => limiter.run(() => {}), 5_000)
		const permit = await limiter.acquire()
		const { signal } = permit
		const until = performance.now() + 600
		while (performance.now() < until);
		expect(signal.aborted).toBe(true)
		expect(signal.reason).toMatchObject({ code: 'ERR_INFLIGHT_LEASE_LOST', name: 'LeaseLostError' })
		expect(() => signal.throwIfAborted()).toThrow('could not renew its lease')
		permit.release()
		await vi.waitFor(() => limiter.run(() => {}), 5_000)
		await close(limiter)
		end()
	})
})

describeRedis('Redis away', { concurrent: true, retry: WHEN_BUSY }, () => {
	let pool: Pool

	beforeAll(async () => {
		// One for each attempt of each.
		pool = await startPool(24)
	})
	afterAll(endAll)

	test.for(Object.keys(clients) as (keyof typeof clients)[])(
		'%s: a decision in time, by whenUnavailable',
		async (kind) => {
			const server = await pool.take()
			const { client, end } = await clients[kind](server.port)
			const make = (whenUnavailable: 'local' | 'reject' | 'admit', more: object = {}) =>
				redisLimiter({
					client,
					name: `${kind} ${whenUnavailable}`,
					capacity: 2,
					lease: 2_000,
					whenUnavailable,
					...more,
				})
			const limiters = { local: make('local'), reject: make('reject'), admit: make('admit') }
			const own = make('local', { localCapacity: 1, name: `${kind} own` })
			const all = [...Object.values(limiters), own]
			await Promise.all(
				all.map((one) =>
					vi.waitFor(() => one.run((permit) => expect(permit.token).toBeGreaterThan(0)), 10_000),
				),
			)
			await vi.waitFor(() => expect(all.every(({ available }) => available)).toBe(true), 5_000)
			// Each knows that all is free.
			await Promise.all(all.map((one) => one.onIdle()))
			const told: object[] = []
			limiters.local.observe({ availability: (facts) => told.push(facts) })
			const warnings = () =>
				warned.mock.calls.filter(([text]) => String(text).includes(`the limiter ${kind} `)).length
			const before = warnings()
			server.pause()
			const since = performance.now()
			const local = [await limiters.local.acquire(), await limiters.local.acquire()]
			expect(performance.now() - since).toBeLessThan(600)
			const third = limiters.local.acquire({ maxWait: 100 })
			await expect(third).rejects.toMatchObject({ reason: 'timeout' })
			await expect(limiters.reject.acquire()).rejects.toMatchObject({ reason: 'unavailable' })
			await expect(limiters.reject.acquire()).rejects.toMatchObject({ reason: 'unavailable' })
			const many = await Promise.all([1, 2, 3].map(() => limiters.admit.acquire()))
			const only = await own.acquire()
			await expect(own.acquire({ maxWait: 20 })).rejects.toMatchObject({ reason: 'timeout' })
			expect(only.token).toBe(0)
			expect(limiters.local.available).toBe(false)
			// What it can't know of the fleet, it doesn't guess.
			const newcomer = make('local', { name: `${kind} newcomer` })
			await expect(newcomer.acquire()).rejects.toMatchObject({ reason: 'unavailable' })
			expect(warnings() - before).toBe(5)
			server.resume()
			await vi.waitFor(
				() => expect(limiters.local.available && limiters.admit.available).toBe(true),
				5_000,
			)
			expect(told).toEqual([
				{ limiter: `${kind} local`, available: false },
				{ limiter: `${kind} local`, available: true },
			])
			// What was admitted meanwhile counts.
			await expect(limiters.local.acquire({ maxWait: 200 })).rejects.toMatchObject({
				reason: 'timeout',
			})
			for (const permit of [...local, ...many, only]) permit.release()
			await limiters.local.run(() => {}, { weight: 2 })
			await vi.waitFor(() => newcomer.run(() => {}), 5_000)
			await close(...all, newcomer)
			end()
		},
	)

	test('a process that held nothing gets its part after three leases, and tells why before', async () => {
		const server = await pool.take()
		const { client, end } = await clients.ioredis(server.port)
		const other = await clients.ioredis(server.port)
		const options = { name: 'parts', capacity: 4, lease: 1_000, redisTimeout: 250 }
		const holder = redisLimiter({ client, ...options })
		const idle = redisLimiter({ client: other.client, ...options })
		await vi.waitFor(() => holder.run(() => {}), 10_000)
		await vi.waitFor(() => idle.run(() => {}), 10_000)
		const permits = await Promise.all([1, 2, 3, 4].map(() => holder.acquire()))
		const waiting = Promise.all([1, 2].map(() => idle.acquire({ maxWait: 10_000 })))
		await vi.waitFor(
			() => expect(idle.stats()).toMatchObject({ queued: 2, fleet: { processes: 2, active: 4 } }),
			5_000,
		)
		server.pause()
		const early = idle.acquire({ maxWait: 1_500 })
		await expect(early).rejects.toMatchObject({ reason: 'unavailable' })
		const parts = await waiting
		expect(parts.map(({ token }) => token)).toEqual([0, 0])
		expect(permits.every(({ signal }) => signal.aborted)).toBe(true)
		await expect(idle.acquire({ maxWait: 100 })).rejects.toMatchObject({ reason: 'timeout' })
		server.resume()
		for (const permit of [...permits, ...parts]) permit.release()
		await vi.waitFor(() => idle.run(() => {}, { weight: 4 }), 10_000)
		await close(holder, idle)
		end()
		other.end()
	})

	test('a process that is alone in its fleet goes on with the whole capacity, also of each key', async () => {
		const server = await pool.take()
		const { client, end } = await clients.ioredis(server.port)
		const options = { client, capacity: 2, lease: 10_000, redisTimeout: 250 }
		const plain = redisLimiter({ ...options, name: 'alone' })
		const keyed = redisLimiter({ ...options, name: 'alone, keyed', key: () => 'a' })
		await vi.waitFor(() => plain.run(() => {}), 20_000)
		await vi.waitFor(() => keyed.run(() => {}, { key: 'a' }), 20_000)
		server.pause()
		const held = [
			...(await Promise.all([1, 2].map(() => plain.acquire()))),
			...(await Promise.all(['b', 'b', 'c'].map((key) => keyed.acquire({ key })))),
		]
		for (const third of [
			plain.acquire({ maxWait: 50 }),
			keyed.acquire({ key: 'b', maxWait: 50 }),
		]) {
			await expect(third).rejects.toMatchObject({ reason: 'timeout' })
		}
		server.resume()
		for (const permit of held) permit.release()
		await vi.waitFor(() => expect(plain.available && keyed.available).toBe(true), 5_000)
		await close(plain, keyed)
		end()
	})

	test.each([
		['nobody else waits: it is free', false],
		['another process waits, and may have it: it is not', true],
	])('a permit is on its way back, and %s', async (_, waits) => {
		const server = await pool.take()
		const relay = await startRelay(server.port)
		const { client, end } = await clients.ioredis(relay.port)
		const other = await clients.ioredis(server.port)
		const options = { name: 'returning', capacity: 1, lease: 4_000, redisTimeout: 500 }
		const limiter = redisLimiter({ client, ...options })
		const waiting = redisLimiter({ client: other.client, ...options })
		await vi.waitFor(() => limiter.run(() => {}), 10_000)
		await limiter.onIdle()
		const permit = await limiter.acquire()
		const granted = waits ? waiting.acquire() : undefined
		if (waits) await vi.waitFor(() => expect(limiter.stats().fleet.queued).toBe(1), 5_000)
		relay.stall()
		permit.release()
		const next = limiter.acquire({ maxWait: 1_500 })
		if (waits) await expect(next).rejects.toMatchObject({ reason: 'unavailable' })
		else (await next).release()
		expect(limiter.available).toBe(false)
		relay.flow()
		;(await granted)?.release()
		await vi.waitFor(() => expect(limiter.available).toBe(true), 5_000)
		await close(limiter, waiting)
		end()
		other.end()
		relay.close()
	})

	test.each(['local', 'reject'] as const)(
		'an idle process learns that Redis is back before its next request, with %j',
		async (whenUnavailable) => {
			const server = await pool.take()
			const { client, end } = await clients.ioredis(server.port)
			const options = { name: whenUnavailable, whenUnavailable, capacity: 1, lease: 1_000 }
			const limiter = redisLimiter({ client, ...options })
			const raw = new Redis(server.port)
			await vi.waitFor(() => limiter.run(() => {}), 10_000)
			server.pause()
			await vi.waitFor(async () => {
				await limiter.run(() => {}).catch(() => {})
				expect(limiter.available).toBe(false)
			}, 5_000)
			// It has had no request for longer than a lease when Redis is back.
			await sleep(1_500)
			server.resume()
			await vi.waitFor(() => expect(limiter.available).toBe(true), 5_000)
			// It leaves the fleet all the same.
			await vi.waitFor(async () => expect(await raw.keys('*')).toEqual([]), 5_000)
			expect(limiter.available).toBe(true)
			raw.disconnect()
			limiter.close()
			end()
		},
	)

	test('a Redis that has just started, and may have lost its memory, lets nobody in until the others are back', async () => {
		const began = performance.now()
		const young = await startServer()
		const { client, end } = await clients.ioredis(young.port)
		const limiter = redisLimiter({
			client,
			name: 'young',
			capacity: 2,
			lease: 1_000,
			redisTimeout: 250,
		})
		const since = performance.now()
		await vi.waitFor(() => limiter.run(() => {}), 5_000)
		// By what docs/redis.md says, at most 3 s after its start, and not before the others are back.
		expect(performance.now() - since).toBeLessThan(3_300)
		expect(performance.now() - began).toBeGreaterThan(900)
		await close(limiter)
		end()
	})
})

describe('options', () => {
	const client = { evalSha() {}, subscribe() {}, on() {} } as unknown as RedisClient
	const good = { client, name: 'a', capacity: 1 }
	test.each([
		[{ client: {} }, TypeError, 'client must be a client of redis or ioredis; got an object'],
		[{ capacity: 0 }, RangeError, 'capacity must be an integer from 1; got 0'],
		[
			{ capacity: Number.POSITIVE_INFINITY },
			RangeError,
			'capacity must be an integer from 1; got Infinity',
		],
		[{ localCapacity: '1' }, TypeError, 'localCapacity must be an integer from 1; got "1"'],
		[{ name: '' }, RangeError, 'name must be'],
		[{ name: undefined }, TypeError, 'name must be'],
		[
			{ lease: 100 },
			RangeError,
			'lease must be a number of milliseconds from 500 to 3600000; got 100',
		],
		[{ lease: '1' }, TypeError, 'lease must be a number of milliseconds'],
		[{ lease: null }, TypeError, 'lease must be a number of milliseconds'],
		[
			{ redisTimeout: 5_000 },
			RangeError,
			'redisTimeout must be a number of milliseconds from 10 to 2500; got 5000',
		],
		[
			{ whenUnavailable: 'x' },
			RangeError,
			"whenUnavailable must be one of 'local', 'reject', 'admit'; got \"x\"",
		],
		[{ whenUnavailable: 3 }, TypeError, 'whenUnavailable must be one of'],
		[{ key: 'a' }, TypeError, 'key must be a function; got "a"'],
	])('%o', (wrong, type, message) => {
		const call = () => redisLimiter({ ...good, ...wrong } as never)
		expect(call).toThrow(type)
		expect(call).toThrow(message)
	})
})
