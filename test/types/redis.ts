// What must compile of the entry for Redis, and what must not.
import { RejectedError } from 'inflight-limit'
import { limit } from 'inflight-limit/express'
import { limit as limitKoa } from 'inflight-limit/koa'
import {
	type FleetPermit,
	LeaseLostError,
	type RedisLimiter,
	redisLimiter,
} from 'inflight-limit/redis'
import { Cluster, Redis } from 'ioredis'
import { createClient, createCluster, createSentinel } from 'redis'
import { type Equal, holds } from './equal.js'

const node = { host: '127.0.0.1', port: 6379 }
for (const client of [new Redis(6379), new Cluster([node])]) {
	redisLimiter({ client, name: 'renders', capacity: 10 })
}
redisLimiter({
	client: createCluster({ rootNodes: [{ socket: node }] }),
	name: 'renders',
	capacity: 10,
})
redisLimiter({
	client: createSentinel({ name: 'main', sentinelRootNodes: [node] }),
	name: 'renders',
	capacity: 10,
})
const client = createClient()
const renders = redisLimiter({
	client,
	name: 'renders',
	capacity: 10,
	maxQueue: 500,
	maxWait: 10_000,
	lease: 5_000,
	whenUnavailable: 'reject',
	skip: (req: { path: string }) => req.path === '/health',
})
holds<Equal<typeof renders, RedisLimiter>>()
limit(renders)
limitKoa(renders)
export async function use(): Promise<void> {
	const text = await renders.run(async ({ signal, token }) => `${signal.aborted} ${token}`)
	holds<Equal<typeof text, string>>()
	using permit = await renders.acquire({ weight: 2 })
	holds<Equal<typeof permit, FleetPermit>>()
	await renders.resize(3)
	// @ts-expect-error - read-only
	permit.token = 3
	// @ts-expect-error - a weight can't change
	permit.weigh(2)
}
new LeaseLostError('').code satisfies 'ERR_INFLIGHT_LEASE_LOST'
RejectedError.name satisfies string

// @ts-expect-error - no client
redisLimiter({ name: 'renders', capacity: 10 })
// @ts-expect-error - not a client
redisLimiter({ client: {}, name: 'renders', capacity: 10 })
// @ts-expect-error - misspelt
redisLimiter({ client, name: 'renders', capacity: 10, leas: 3 })
// @ts-expect-error - no such rule
redisLimiter({ client, name: 'renders', capacity: 10, whenUnavailable: 'wait' })
const tenants = redisLimiter({
	client,
	name: 'tenants',
	capacity: 5,
	key: (req: { tenant?: string }) => req.tenant,
})
tenants.run(({ token }) => token, { key: 'a', maxWait: 10 })
// @ts-expect-error - a key is a string
tenants.acquire({ key: 3 })
