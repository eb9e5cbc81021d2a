import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import { createCluster } from 'redis'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type RedisClient, redisLimiter } from '../../adapters/redis.js'
import { describeRedis, endAll, type Server, startServer } from '../support/redis.js'

vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

/** More at work than one limiter alone would see, first come, first served across both. */
async function check(clients: RedisClient[], name: string): Promise<void> {
	const limiters = clients.map((client) => redisLimiter({ client, name, capacity: 2, lease: 2_000 }))
	let active = 0
	let most = 0
	const work = async (i: number): Promise<void> => {
		await limiters[i % limiters.length]?.run(async () => {
			most = Math.max(most, ++active)
			await sleep(5)
			active--
		})
	}
	await Promise.all(Array.from({ length: 60 }, (_, i) => work(i)))
	expect(most).toBe(2)
	for (const limiter of limiters) {
		expect(limiter.stats().rejected).toMatchObject({ timeout: 0, unavailable: 0 })
		limiter.close()
		await limiter.onIdle()
	}
}

describeRedis('a cluster of three nodes', () => {
	let nodes: Server[] = []

	beforeAll(async () => {
		const options = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000']
		nodes = await Promise.all([1, 2, 3].map(() => startServer(options)))
		const ports = nodes.map(({ port }) => `127.0.0.1:${port}`)
		execFileSync('redis-cli', ['--cluster', 'create', ...ports, '--cluster-yes'])
		await sleep(3_000)
	})
	afterAll(endAll)

	test.each(['renders', 'a}b{c', 'partner'])('%s, through both clients at once', async (name) => {
		const port = nodes[0]?.port as number
		const one = new Cluster([{ host: '127.0.0.1', port }])
		const other = createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${port}` }] })
		other.on('error', () => {})
		await other.connect()
		await check([one, other], name)
		one.disconnect()
		other.destroy()
	})
})

describeRedis('a replica takes over', () => {
	afterAll(endAll)

	test('who holds a permit counts before newcomers get in', async () => {
		const master = await startServer()
		const replica = await startServer()
		const direct = new Redis(replica.port)
		await direct.replicaof('127.0.0.1', master.port)
		await sleep(1_500)
		const at = { port: master.port }
		const client = new Redis({
			sentinels: undefined as never,
			host: '127.0.0.1',
			port: at.port,
			retryStrategy: () => {
				client.options.port = replica.port
				return 20
			},
		})
		client.on('error', () => {})
		await sleep(2_000)
		const limiter = redisLimiter({ client, name: 'failover', capacity: 3, lease: 1_000 })
		const held = [await limiter.acquire(), await limiter.acquire(), await limiter.acquire()]
		await sleep(100)
		await direct.replicaof('NO', 'ONE')
		await master.kill()
		await sleep(600)
		const order: string[] = []
		const waiting = limiter.acquire().then((permit) => {
			order.push('waited')
			return permit
		})
		await sleep(400)
		expect(order).toEqual([])
		expect(Number(await direct.exists('inflight:{failover}'))).toBe(1)
		for (const permit of held) permit.release()
		;(await waiting).release()
		limiter.close()
		await limiter.onIdle()
		client.disconnect()
		direct.disconnect()
	})
})
