import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type RedisClient, redisLimiter } from '../../../adapters/redis/index.js'
import {
	describeRedis,
	endAll,
	later,
	type Pool,
	servers,
	startPool,
	startSentinel,
	WHEN_BUSY,
} from '../../support/redis.js'

vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

/** The first renewal comes after 3 s: what happens before it came by a message. */
const PATIENT = { capacity: 1, lease: 12_000, redisTimeout: 2_000 }

describeRedis('the connection for messages is lost', { concurrent: true, retry: WHEN_BUSY }, () => {
	let pool: Pool

	beforeAll(async () => {
		// One for each attempt of each.
		pool = await startPool(21)
	})
	afterAll(endAll)

	const clients = {
		redis: async (port: number) => {
			const client = createClient({ socket: { host: '127.0.0.1', port } })
			client.on('error', () => {})
			await client.connect()
			return {
				client: client as unknown as RedisClient,
				end: () => client.destroy(),
				again: () => client.connect(),
			}
		},
		ioredis: async (port: number) => {
			const client = new Redis(port, '127.0.0.1')
			client.on('error', () => {})
			return {
				client: client as RedisClient,
				end: () => client.disconnect(),
				again: async () => {
					if (client.status !== 'end') await once(client, 'end')
					await client.connect()
				},
			}
		},
	}

	/** Clients that give up when they lose a connection. */
	const stubborn = {
		redis: async (port: number) => {
			const socket = { host: '127.0.0.1', port, reconnectStrategy: false } as const
			const client = createClient({ socket })
			client.on('error', () => {})
			await client.connect()
			return { client: client as unknown as RedisClient, end: () => client.destroy() }
		},
		ioredis: async (port: number) => {
			const client = new Redis(port, '127.0.0.1', { retryStrategy: () => null })
			client.on('error', () => {})
			return { client: client as RedisClient, end: () => client.disconnect() }
		},
	}

	test.for(Object.keys(clients) as (keyof typeof clients)[])(
		'%s: it is made again, and a waiter that was given a permit meanwhile learns of it',
		async (kind) => {
			const { port } = await pool.take()
			const raw = new Redis(port, '127.0.0.1')
			const { client, end } = await clients[kind](port)
			const limiter = redisLimiter({ client, name: kind, ...PATIENT })
			const idle = redisLimiter({ client, name: `${kind} idle`, capacity: 1, lease: 500 })
			await Promise.all([
				vi.waitFor(() => idle.run(() => {}), 5_000),
				vi.waitFor(() => limiter.run(() => {}), 10_000),
			])
			const permit = await limiter.acquire()
			const waiting = later(limiter.acquire())
			const channels = () => raw.pubsub('CHANNELS', 'inflight:*')
			await vi.waitFor(async () => expect(await raw.keys('*idle*')).toEqual([]), 5_000)
			expect(limiter.queued).toBe(1)
			const since = performance.now()
			await raw.client('KILL', 'TYPE', 'PUBSUB')
			permit.release()
			const next = await waiting
			// A renewal by itself would come after 3 s.
			expect(performance.now() - since).toBeLessThan(2_500)
			next.release()
			for (const one of [limiter, idle]) {
				one.close()
				await one.onIdle()
			}
			await vi.waitFor(async () => expect(await channels()).toEqual([]), 5_000)
			// Nobody listens any more: nothing is subscribed again.
			await raw.client('KILL', 'TYPE', 'PUBSUB')
			await sleep(300)
			expect(await channels()).toEqual([])
			raw.disconnect()
			end()
		},
	)

	test.for(Object.keys(stubborn) as (keyof typeof stubborn)[])(
		'%s, of a client that never connects again: it is made again',
		async (kind) => {
			const { port } = await pool.take()
			const raw = new Redis(port, '127.0.0.1')
			const { client, end } = await stubborn[kind](port)
			const limiter = redisLimiter({ client, name: kind, ...PATIENT })
			await vi.waitFor(() => limiter.run(() => {}), 10_000)
			const channels = () => raw.pubsub('CHANNELS', 'inflight:*')
			expect(await channels()).toHaveLength(2)
			await raw.client('KILL', 'TYPE', 'PUBSUB')
			await vi.waitFor(async () => expect(await channels()).toEqual([]), 5_000)
			await vi.waitFor(async () => expect(await channels()).toHaveLength(2), 10_000)
			const permit = await limiter.acquire()
			const waiting = later(limiter.acquire())
			await sleep(100)
			const since = performance.now()
			permit.release()
			;(await waiting).release()
			// A renewal would come after 3 s.
			expect(performance.now() - since).toBeLessThan(2_000)
			// It ends with its client.
			end()
			await vi.waitFor(async () => expect(await channels()).toEqual([]), 5_000)
			await sleep(2_500)
			expect(await channels()).toEqual([])
			raw.disconnect()
		},
	)

	test('ioredis, of a client that gives up when it reaches no sentinel: it is made again', async () => {
		const server = await pool.take()
		const raw = new Redis(server.port, '127.0.0.1')
		const sentinel = await startSentinel(server, servers[0] as string)
		const client = new Redis({
			sentinels: [{ host: '127.0.0.1', port: sentinel.port }],
			name: 'main',
			sentinelRetryStrategy: () => null,
		})
		const failed = vi.fn()
		client.on('error', failed)
		const limiter = redisLimiter({ client: client as RedisClient, name: 'a', ...PATIENT })
		await vi.waitFor(() => limiter.run(() => {}), 10_000)
		const channels = () => raw.pubsub('CHANNELS', 'inflight:*')
		expect(await channels()).toHaveLength(2)
		await sentinel.kill()
		await raw.client('KILL', 'TYPE', 'PUBSUB')
		await vi.waitFor(async () => expect(await channels()).toEqual([]), 5_000)
		// It looks for the sentinel at once, and does not find it.
		await sleep(500)
		await sentinel.start()
		await vi.waitFor(async () => expect(await channels()).toHaveLength(2), 10_000)
		expect(failed).not.toHaveBeenCalled()
		client.disconnect()
		raw.disconnect()
	})

	test.for(Object.keys(clients) as (keyof typeof clients)[])(
		'%s: the client is closed, and connected again: so are its messages, and not before',
		async (kind) => {
			const { port } = await pool.take()
			const raw = new Redis(port, '127.0.0.1')
			const { client, end, again } = await clients[kind](port)
			const limiter = redisLimiter({
				client,
				name: kind,
				whenUnavailable: 'reject',
				...PATIENT,
			})
			await vi.waitFor(() => limiter.run(() => {}), 10_000)
			const channels = () => raw.pubsub('CHANNELS', 'inflight:*')
			for (let i = 0; i < 2; i++) {
				end()
				await expect(limiter.acquire()).rejects.toMatchObject({ reason: 'unavailable' })
				await sleep(1_500)
				expect(await channels()).toEqual([])
				await again()
				await vi.waitFor(() => limiter.run(() => {}), 10_000)
				const permit = await limiter.acquire()
				const waiting = later(limiter.acquire())
				await sleep(100)
				const since = performance.now()
				permit.release()
				;(await waiting).release()
				// A renewal would come after 3 s.
				expect(performance.now() - since).toBeLessThan(2_500)
			}
			limiter.close()
			await limiter.onIdle()
			raw.disconnect()
			end()
		},
	)
})
