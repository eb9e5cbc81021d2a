import Bottleneck from 'bottleneck'
import { redisLimiter } from 'inflight-limit/redis'
import { Redis } from 'ioredis'
// Bottleneck's scripts fail on what ioredis 6 answers.
import { Redis as Redis5 } from 'ioredis5'
import { createClient } from 'redis'
import { Semaphore } from 'redis-semaphore'

/**
 * One limit of a fleet, as one process sees it.
 *
 * @typedef {object} Fleet
 * @property {() => Promise<() => unknown>} acquire - resolves to what gives the permit back.
 * @property {() => Promise<unknown>} settled - resolves when Redis knows of all that was given
 * back, if what gave it back has resolved.
 * @property {() => Promise<unknown>} ping - is answered after all that was sent before it.
 * @property {(sha: string, keys: string[], args: string[]) => Promise<unknown>} evalsha - by the
 * same client.
 * @property {() => unknown} close - ends its connections.
 *
 * @typedef {object} FleetOptions
 * @property {number} port
 * @property {string} name
 * @property {number} capacity
 * @property {number} [lease] - after which a crashed process's permits are to come back, in ms.
 */

const LEASE = 10_000

/** Longer than the bench. */
const PATIENCE = 600_000

/** @param {Redis | Redis5} client @returns {Omit<Fleet, 'acquire'>} */
function byIoredis(client) {
	return {
		settled: async () => {},
		ping: () => client.ping(),
		evalsha: (sha, keys, args) => client.evalsha(sha, keys.length, ...keys, ...args),
		close: () => client.disconnect(),
	}
}

/**
 * @param {import('inflight-limit/redis').RedisClient & { quit(): Promise<unknown> }} client
 * @param {FleetOptions} options
 * @returns {Pick<Fleet, 'acquire' | 'settled' | 'close'>}
 */
function ours(client, { name, capacity, lease = LEASE }) {
	const limiter = redisLimiter({
		client,
		name,
		capacity,
		lease,
		maxQueue: 5_000,
		maxWait: PATIENCE,
	})
	return {
		acquire: async () => {
			const permit = await limiter.acquire()
			return () => permit.release()
		},
		settled: () => limiter.onIdle(),
		close: async () => {
			limiter.close()
			await limiter.onIdle()
			await client.quit()
		},
	}
}

/** @type {Record<string, (options: FleetOptions) => Promise<Fleet>>} */
export const peers = {
	'ours, ioredis': async (options) => {
		const client = new Redis(options.port)
		return { ...byIoredis(client), ...ours(client, options) }
	},

	'ours, redis': async (options) => {
		const client = createClient({ socket: { port: options.port } })
		client.on('error', () => {})
		await client.connect()
		return {
			...ours(/** @type {any} */ (client), options),
			ping: () => client.ping(),
			evalsha: (sha, keys, args) => client.evalSha(sha, { keys, arguments: args }),
		}
	},

	'redis-semaphore': async ({ port, name, capacity, lease = LEASE }) => {
		const client = new Redis(port)
		return {
			acquire: async () => {
				const semaphore = new Semaphore(client, name, capacity, {
					acquireTimeout: PATIENCE,
					lockTimeout: lease,
					onLockLost: () => {},
				})
				await semaphore.acquire()
				return () => semaphore.release()
			},
			...byIoredis(client),
		}
	},

	bottleneck: async ({ port, name, capacity, lease }) => {
		const limiter = new Bottleneck({
			id: name,
			maxConcurrent: capacity,
			datastore: 'ioredis',
			Redis: Redis5,
			clientOptions: { port },
		})
		await limiter.ready()
		const { client } = /** @type {{ client: Redis5 }} */ (limiter.clients())
		// It has no lease, but jobs that fail when they take too long.
		const job = lease === undefined ? {} : { expiration: lease }
		return {
			acquire: () =>
				new Promise((resolve, reject) => {
					const over = limiter.schedule(
						job,
						() =>
							new Promise((done) => {
								resolve(() => {
									done(undefined)
									return over
								})
							}),
					)
					over.catch(reject)
				}),
			...byIoredis(client),
			close: () => limiter.disconnect(),
		}
	},
}
