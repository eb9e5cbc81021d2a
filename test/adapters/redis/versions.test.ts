import { Redis as Redis5 } from 'ioredis5'
import { createClient as createClient5 } from 'redis5'
import { afterAll, expect, test, vi } from 'vitest'
import { type RedisClient, redisLimiter } from '../../../adapters/redis/index.js'
import { describeRedis, endAll, type Server, startServer, WHEN_BUSY } from '../../support/redis.js'

/* The other test files use the newest version of each client. */

const clients = {
	'ioredis 5': async ({ port }: Server) => {
		const client = new Redis5(port, '127.0.0.1')
		client.on('error', () => {})
		return { client: client as RedisClient, end: () => client.disconnect() }
	},
	'redis 5': async ({ port }: Server) => {
		const client = createClient5({ socket: { host: '127.0.0.1', port } })
		client.on('error', () => {})
		await client.connect()
		return { client: client as unknown as RedisClient, end: () => client.destroy() }
	},
}

describeRedis('older clients', { concurrent: true, retry: WHEN_BUSY }, () => {
	afterAll(endAll)

	test.for(Object.keys(clients) as (keyof typeof clients)[])(
		'%s: a waiter is woken, Redis goes away and comes back, and nothing is left',
		async (kind) => {
			const server = await startServer()
			const [one, other] = [await clients[kind](server), await clients[kind](server)]
			const [first, second] = [one, other].map(({ client }) =>
				redisLimiter({ client, name: kind, capacity: 1, lease: 20_000, redisTimeout: 500 }),
			) as [ReturnType<typeof redisLimiter>, ReturnType<typeof redisLimiter>]
			await vi.waitFor(() => first.run(() => {}), 10_000)
			const held = await first.acquire()
			const waiting = second.acquire()
			await vi.waitFor(() => expect(second.stats().fleet.processes).toBe(2), 5_000)
			held.release()
			;(await waiting).release()

			server.pause()
			await vi.waitFor(async () => {
				await first.run(() => {}, { maxWait: 10 }).catch(() => {})
				expect(first.available).toBe(false)
			}, 5_000)
			server.resume()
			await vi.waitFor(() => expect(first.available).toBe(true), 10_000)
			expect(await second.run((permit) => permit.token)).toBeGreaterThan(0)
			for (const limiter of [first, second]) {
				limiter.close()
				await limiter.onIdle()
			}
			one.end()
			other.end()
		},
	)
})
