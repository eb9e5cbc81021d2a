import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type RedisClient, redisLimiter } from '../../../adapters/redis/index.js'
import { describeRedis, endAll, type Server, startOldServer } from '../../support/redis.js'

vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

describeRedis('the connection for messages is lost', () => {
	let server: Server
	let raw: Redis

	beforeAll(async () => {
		server = await startOldServer()
		raw = new Redis(server.port, '127.0.0.1')
	})
	afterAll(() => {
		raw.disconnect()
		endAll()
	})

	const clients = {
		redis: async () => {
			const client = createClient({ socket: { host: '127.0.0.1', port: server.port } })
			client.on('error', () => {})
			await client.connect()
			return { client: client as unknown as RedisClient, end: () => client.destroy() }
		},
		ioredis: async () => {
			const client = new Redis(server.port, '127.0.0.1')
			client.on('error', () => {})
			return { client: client as RedisClient, end: () => client.disconnect() }
		},
	}

	test.each(Object.keys(clients) as (keyof typeof clients)[])(
		'%s: it is made again, and who was given a permit meanwhile learns of it',
		async (kind) => {
			const { client, end } = await clients[kind]()
			const limiter = redisLimiter({ client, name: kind, capacity: 1, lease: 20_000 })
			const idle = redisLimiter({ client, name: `${kind} idle`, capacity: 1, lease: 500 })
			await idle.run(() => {})
			const permit = await limiter.acquire()
			const waiting = limiter.acquire()
			await sleep(1_300)
			expect(limiter.queued).toBe(1)
			const since = performance.now()
			await raw.client('KILL', 'TYPE', 'PUBSUB')
			permit.release()
			const next = await waiting
			// A renewal by itself would come after 5 s.
			expect(performance.now() - since).toBeLessThan(3_000)
			next.release()
			for (const one of [limiter, idle]) {
				one.close()
				await one.onIdle()
			}
			const channels = () => raw.pubsub('CHANNELS', 'inflight:*')
			await vi.waitFor(async () => expect(await channels()).toEqual([]))
			// Nobody listens any more: nothing is subscribed again.
			await raw.client('KILL', 'TYPE', 'PUBSUB')
			await sleep(300)
			expect(await channels()).toEqual([])
			end()
		},
	)
})
