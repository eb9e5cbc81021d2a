import { Redis } from 'ioredis'
import { createClient } from 'redis'
import {
	type RedisClient,
	type RedisLimiter,
	type RedisLimiterOptions,
	redisLimiter,
} from '../../adapters/redis/index.js'
import type { Server } from './redis.js'

let names = 0

/** A Redis of its own, and limiters on it, which end with the test. */
export class Bench {
	/** None begins like another. */
	readonly name = `bench ${1_000 + names++}`
	readonly server: Server
	readonly admin: Redis
	readonly #defaults: Partial<RedisLimiterOptions<never>>
	readonly #ends: (() => void)[] = []

	constructor(server: Server, defaults: Partial<RedisLimiterOptions<never>>) {
		this.server = server
		this.admin = new Redis(server.port, '127.0.0.1')
		this.#defaults = defaults
	}

	readonly make = async (
		options: Partial<RedisLimiterOptions<never>> & { user?: string } = {},
	): Promise<RedisLimiter> => {
		const { user, ...rest } = options
		const account = user === undefined ? {} : { username: user, password: 'p' }
		const client = createClient({
			socket: { host: '127.0.0.1', port: this.server.port },
			...account,
		})
		client.on('error', () => {})
		await client.connect()
		const { lease } = { ...this.#defaults, ...rest }
		const limiter = redisLimiter({
			client: client as unknown as RedisClient,
			name: this.name,
			capacity: 2,
			// A busy machine may be late.
			redisTimeout: (lease as number) / 4,
			...this.#defaults,
			...rest,
		})
		this.#ends.push(() => {
			limiter.close()
			client.destroy()
		})
		return limiter
	}

	/** One of the three keys of the limiters. */
	readonly key = (suffix = ''): string => {
		const keyed = this.#defaults.key === undefined ? '' : ':keyed'
		return `inflight:{${encodeURIComponent(this.name)}}${keyed}${suffix}`
	}

	async end(): Promise<void> {
		for (const end of this.#ends) end()
		this.server.resume()
		await this.admin.config('SET', 'maxmemory', '0')
		await this.admin.flushall()
		this.admin.disconnect()
	}
}
