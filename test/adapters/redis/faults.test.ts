import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type RedisClient, type RedisLimiterOptions, redisLimiter } from '../../../adapters/redis/index.js'
import {
	describeRedis,
	endAll,
	type Server,
	servers,
	startOldServer,
	startWorker,
} from '../../support/redis.js'

/*
 * What Redis, its users, and those who share it can do to a limiter. In each case there are never
 * more at work than the capacity, and in the end the whole capacity is back.
 */

const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

const LEASE = 1_000

describeRedis.each(servers)('%s', (binary) => {
	let server: Server
	let admin: Redis
	let names = 0
	const open: { client: RedisClient; end(): unknown }[] = []
	const limiters: ReturnType<typeof redisLimiter>[] = []

	beforeAll(async () => {
		server = await startOldServer(['--enable-debug-command', 'yes'], binary)
		admin = new Redis(server.port, '127.0.0.1')
	})
	afterEach(async () => {
		for (const limiter of limiters.splice(0)) limiter.close()
		for (const { end } of open.splice(0)) end()
		await admin.config('SET', 'maxmemory', '0')
		await admin.flushall()
		warned.mockClear()
	})
	afterAll(() => {
		admin.disconnect()
		endAll()
	})

	async function connect(user?: string): Promise<RedisClient> {
		const account = user === undefined ? {} : { username: user, password: 'p' }
		const client = createClient({ socket: { host: '127.0.0.1', port: server.port }, ...account })
		client.on('error', () => {})
		await client.connect()
		open.push({ client: client as unknown as RedisClient, end: () => client.destroy() })
		return client as unknown as RedisClient
	}

	async function make(options: Partial<RedisLimiterOptions> & { user?: string } = {}) {
		const { user, ...rest } = options
		const given = { client: await connect(user), name: `fault ${names}`, capacity: 2, lease: LEASE, ...rest }
		const limiter = redisLimiter(given)
		limiters.push(limiter)
		return limiter
	}

	/** Counts who is at work. */
	function gauge() {
		const seen = { working: 0, most: 0, served: 0, rejected: {} as Record<string, number> }
		const work = async (limiter: ReturnType<typeof redisLimiter>, ms: number): Promise<void> => {
			try {
				await limiter.run(async () => {
					seen.most = Math.max(seen.most, ++seen.working)
					await sleep(ms)
					seen.working--
					seen.served++
				})
			} catch (error) {
				const { reason = String(error) } = error as { reason?: string }
				seen.rejected[reason] = (seen.rejected[reason] ?? 0) + 1
			}
		}
		return { seen, work }
	}

	/**
	 * Waits until one can have the whole capacity: longer than a pause between two attempts to join.
	 */
	async function whole(limiter: ReturnType<typeof redisLimiter>): Promise<void> {
		const take = () => limiter.run(() => {}, { weight: 2, maxWait: 3 * LEASE })
		await vi.waitFor(take, { timeout: 6_000, interval: 50 })
	}

	const key = (): string => `inflight:{fault%20${names}}`

	/** What can become of one key; `undefined`: it is not there. */
	const disturbances: Record<string, (key: string) => Promise<unknown>> = {
		'is deleted': (key) => admin.del(key),
		expires: (key) => admin.pexpire(key, 1),
		'is renamed': (key) => admin.rename(key, `${key}:elsewhere`).catch(() => {}),
		'is a string': (key) => admin.set(key, 'junk'),
		'is a list': async (key) => {
			await admin.del(key)
			await admin.rpush(key, 'junk')
		},
		'is empty but for a stranger’s field': async (key) => {
			const type = await admin.type(key)
			await admin.del(key)
			if (type === 'zset') await admin.zadd(key, 1, 'stranger')
			else await admin.hset(key, 'stranger', 'x')
		},
		'is junk in each field': async (key) => {
			if ((await admin.type(key)) !== 'hash') return
			for (const field of await admin.hkeys(key)) await admin.hset(key, field, 'junk')
		},
	}
	const everything: Record<string, () => Promise<unknown>> = {
		FLUSHALL: () => admin.flushall(),
		'FLUSHALL and SCRIPT FLUSH': async () => {
			await admin.flushall()
			await admin.script('FLUSH')
		},
		'SCRIPT FLUSH': () => admin.script('FLUSH'),
		'FLUSHALL and CLIENT KILL': async () => {
			await admin.flushall()
			await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
		},
	}
	for (const [what, disturb] of Object.entries(disturbances)) {
		for (const suffix of ['', ':queue', ':leases']) {
			everything[`${suffix || 'the hash'} ${what}`] = () => disturb(key() + suffix)
		}
	}

	describe.each(Object.keys(everything))('%s', (what) => {
		test('while one process holds all permits, and another comes', { timeout: 20_000 }, async () => {
			names++
			const options = { maxWait: 15_000, whenUnavailable: 'reject' as const, redisTimeout: 250 }
			const [a, b] = [await make(options), await make(options)]
			await a.run(() => {})
			const { seen, work } = gauge()
			const all = [work(a, 1_600), work(a, 1_600)]
			await vi.waitFor(() => expect(seen.working).toBe(2), 5_000)
			await everything[what]?.()
			for (let i = 0; i < 4; i++) all.push(work(b, 50))
			await Promise.all(all)
			expect(seen).toMatchObject({ most: 2, served: 6, rejected: {} })
			await whole(a)
		})
	})

	test.each(['', ':queue', ':leases'])(
		'the key %j is evicted, and a process that holds all permits dies: they are back',
		async (suffix) => {
			names++
			const limiter = await make({ maxWait: 10_000 })
			await limiter.run(() => {})
			const options = { name: `fault ${names}`, capacity: 2, lease: LEASE }
			const worker = await startWorker({ port: server.port, probePort: server.port, concurrency: 0, options })
			for (const place of [0, 1]) await worker.take(place)
			for (const place of [0, 1]) await worker.admitted(place)
			await admin.del(key() + suffix)
			const ended = new Promise((resolve) => worker.child.once('exit', resolve))
			worker.child.kill('SIGKILL')
			await ended
			const since = performance.now()
			await whole(limiter)
			expect(performance.now() - since).toBeLessThan(2 * LEASE)
		},
	)

	test.each(['local', 'reject'] as const)(
		'stopped for one and a half leases while one process holds all permits, with %j',
		async (whenUnavailable) => {
			names++
			const options = { capacity: 4, whenUnavailable, maxWait: 20_000 }
			const fleet = [await make(options), await make(options), await make(options), await make(options)]
			for (const limiter of fleet) await limiter.run(() => {})
			const { seen, work } = gauge()
			const held = [0, 1, 2, 3].map(() => work(fleet[0] as (typeof fleet)[0], 4 * LEASE))
			await vi.waitFor(() => expect(seen.working).toBe(4), 5_000)
			await sleep(LEASE / 2)
			server.pause()
			const others = fleet.slice(1).map(async (limiter) => {
				while (seen.served < 4) {
					await work(limiter, 20)
					await sleep(20)
				}
			})
			await sleep(1.5 * LEASE)
			server.resume()
			await Promise.all([...held, ...others])
			expect(seen.most).toBe(4)
		},
	)

	/** All that the scripts and the clients may ask of Redis. */
	const COMMANDS = [
		...['eval', 'evalsha', 'subscribe', 'publish', 'info', 'time', 'type', 'del', 'pexpire'],
		...['hget', 'hmget', 'hset', 'hdel', 'hscan'],
		...['zadd', 'zrem', 'zrange', 'zcard', 'zmscore', 'zscan'],
	]
	const all = ['reset', 'on', '>p', '~*', '&*', '+@all']

	test('the rights that docs/redis.md lists are enough', async () => {
		names++
		const page = readFileSync(join(import.meta.dirname, '../../../docs/redis.md'), 'utf8')
		const [, words = ''] = /ACL SETUSER limiter on >password ([^`]*)/.exec(page) ?? []
		await admin.call('ACL', 'SETUSER', 'documented', 'reset', 'on', '>p', ...words.trim().split(/\s+/))
		const limiter = await make({ user: 'documented' })
		const { seen, work } = gauge()
		await Promise.all(Array.from({ length: 10 }, () => work(limiter, 10)))
		await sleep(LEASE)
		await limiter.resize(3)
		await limiter.run(() => {}, { weight: 3 })
		expect(seen).toMatchObject({ most: 2, served: 10 })
		expect(warned).not.toHaveBeenCalled()
	})

	test.each(COMMANDS)('a user without the right to %s', async (command) => {
		names++
		const user = `without-${command}`
		await admin.call('ACL', 'SETUSER', user, ...all, `-${command}`)
		const options = { whenUnavailable: 'reject', maxWait: 2_500, redisTimeout: 250 } as const
		const limiter = await make({ ...options, user })
		await admin.config('RESETSTAT')
		const { seen, work } = gauge()
		await Promise.all(Array.from({ length: 20 }, () => work(limiter, 10)))
		await sleep(1_000)
		const stats = await admin.info('commandstats')
		const calls = [...stats.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+).*rejected_calls=(\d+)/g)]
		const sent = calls.reduce((sum, [, done, not]) => sum + Number(done) + Number(not), 0)
		// Served, or unavailable with a warning that says why; and Redis isn't asked without a pause.
		expect(seen.most).toBeLessThanOrEqual(2)
		expect(sent).toBeLessThan(100)
		if (seen.served !== 20) {
			expect(seen).toMatchObject({ served: 0, rejected: { unavailable: 20 } })
			expect(warned.mock.calls.flat().join()).toMatch(/NOPERM|permission/)
		}
		// Nothing was left half done.
		const other = await make({ maxWait: 3 * LEASE })
		await whole(other)
		await admin.call('ACL', 'SETUSER', user, `+${command}`)
		await vi.waitFor(() => limiter.run(() => {}), { timeout: 5_000, interval: 100 })
		await whole(other)
	})

	test.each(COMMANDS)('a right to %s that is taken away for a moment', async (command) => {
		names++
		const user = `loses-${command}`
		await admin.call('ACL', 'SETUSER', user, ...all)
		const options = { whenUnavailable: 'reject', redisTimeout: 250, maxWait: 4_000 } as const
		const [limiter, other] = [await make({ ...options, user }), await make(options)]
		await whole(limiter)
		await whole(other)
		const { seen, work } = gauge()
		let over = false
		const load = [limiter, limiter, limiter, other, other].map(async (one) => {
			while (!over) {
				await work(one, 5)
				await sleep(2)
			}
		})
		for (let i = 0; i < 2; i++) {
			await sleep(100)
			await admin.call('ACL', 'SETUSER', user, `-${command}`)
			await sleep(150)
			await admin.call('ACL', 'SETUSER', user, `+${command}`)
		}
		await sleep(300)
		over = true
		await Promise.all(load)
		expect(seen.most).toBe(2)
		await whole(limiter)
		await whole(other)
	})

	test('junk on its channels is left aside, and so are forged grants and capacities', async () => {
		names++
		const limiter = await make({ maxWait: 10_000 })
		const resized = vi.fn()
		limiter.observe({ resized })
		const { seen, work } = gauge()
		const all = [work(limiter, 2_000), work(limiter, 2_000)]
		await vi.waitFor(() => expect(seen.working).toBe(2), 5_000)
		for (let i = 0; i < 3; i++) all.push(work(limiter, 20))
		await sleep(100)
		const channels = (await admin.pubsub('CHANNELS', 'inflight:*')) as string[]
		const numbers = ['', 'NaN', '0', '-1', '1.5', '1e9', '__proto__', '5', '99']
		const messages = [...numbers, ':', '::', ':::', '{}', 'x'.repeat(100_000), 'look', 'grant', 'rejoin']
		for (const number of numbers) messages.push(`capacity:${number}`, `look:${number}`, `grant:${number}`)
		for (let session = 0; session <= 3; session++) {
			for (const id of numbers) {
				messages.push(`${session}:${id}:77`, `grant:${session}:${id}:77`, `${session}:${id}:1:77`)
			}
		}
		await admin.config('RESETSTAT')
		for (const channel of channels) {
			for (const message of messages) await admin.publish(channel, message)
		}
		expect(channels.length).toBeGreaterThan(0)
		await sleep(200)
		expect(limiter).toMatchObject({ capacity: 2, active: 2, queued: 3 })
		expect(resized).not.toHaveBeenCalled()
		expect(
			Number(/cmdstat_evalsha:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1] ?? 0),
		).toBeLessThan(20)
		await Promise.all(all)
		expect(seen).toMatchObject({ most: 2, served: 5 })
	})

	const states: Record<string, [enter: () => Promise<unknown>, leave: () => Promise<unknown>]> = {
		'without memory': [
			() => admin.config('SET', 'maxmemory', '1'),
			() => admin.config('SET', 'maxmemory', '0'),
		],
		'a replica': [() => admin.replicaof('127.0.0.1', '1'), () => admin.replicaof('NO', 'ONE')],
		'short of replicas': [
			() => admin.config('SET', 'min-replicas-to-write', '1'),
			() => admin.config('SET', 'min-replicas-to-write', '0'),
		],
		'at pause': [() => admin.client('PAUSE', 1_000), () => sleep(1_000)],
		asleep: [() => Promise.race([admin.call('DEBUG', 'SLEEP', '1'), sleep(1_000)]), async () => {}],
		'busy with a script': [
			async () => {
				const other = new Redis(server.port, '127.0.0.1')
				await admin.config('SET', 'busy-reply-threshold', '50')
				other.eval('while true do end', 0).catch(() => {})
				await sleep(1_000)
				other.disconnect()
			},
			() => admin.script('KILL'),
		],
	}
	test.each(Object.keys(states))('a Redis that is %s for a second', async (state) => {
		names++
		const options = { whenUnavailable: 'reject', redisTimeout: 250, maxWait: 4_000 } as const
		const [a, b] = [await make(options), await make(options)]
		await a.run(() => {})
		await b.run(() => {})
		const { seen, work } = gauge()
		let over = false
		const load = [a, a, b, b].map(async (one) => {
			while (!over) {
				await work(one, 30)
				await sleep(2)
			}
		})
		await sleep(200)
		const [enter, leave] = states[state] as (typeof states)[string]
		await enter()
		await sleep(1_000)
		await leave()
		await vi.waitFor(() => expect(a.available && b.available).toBe(true), 5_000)
		await sleep(300)
		over = true
		await Promise.all(load)
		expect(seen.most).toBe(2)
		await whole(a)
	})

	test('connections killed again and again', async () => {
		names++
		const options = { redisTimeout: 250, whenUnavailable: 'reject', maxWait: 4_000 } as const
		const [a, b] = [await make(options), await make(options)]
		await a.run(() => {})
		await b.run(() => {})
		const { seen, work } = gauge()
		let over = false
		const load = [a, a, b, b].map(async (one) => {
			while (!over) {
				await work(one, 10)
				await sleep(2)
			}
		})
		for (let i = 0; i < 40; i++) {
			await sleep(25)
			await admin.call('CLIENT', 'KILL', 'TYPE', i % 2 ? 'normal' : 'pubsub', 'SKIPME', 'yes')
		}
		await sleep(1_000)
		over = true
		await Promise.all(load)
		expect(seen.most).toBe(2)
		await whole(a)
	})

	test('a maxmemory-policy that may evict the keys is warned of, once', async () => {
		names++
		await admin.config('SET', 'maxmemory-policy', 'volatile-lru')
		const limiter = await make()
		await limiter.run(() => {})
		await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
		await sleep(200)
		await limiter.run(() => {})
		const texts = warned.mock.calls.map(([text]) => String(text))
		expect(texts.filter((text) => /maxmemory-policy/.test(text))).toEqual([
			expect.stringMatching(/volatile-lru.*noeviction/),
		])
		await admin.config('SET', 'maxmemory-policy', 'noeviction')
		warned.mockClear()
		names++
		await (await make()).run(() => {})
		expect(warned).not.toHaveBeenCalled()
	})

	test('a client of node-redis without a listener for its errors is warned of; one that gets it in time is not', async () => {
		const socket = { host: '127.0.0.1', port: server.port }
		const [none, late] = [createClient({ socket }), createClient({ socket })]
		for (const client of [none, late]) redisLimiter({ client, name: 'deaf', capacity: 1 })
		late.on('error', () => {})
		await sleep(5)
		expect(warned.mock.calls).toEqual([
			[
				expect.stringMatching(/no listener for 'error'/),
				expect.objectContaining({ code: 'INFLIGHT_REDIS_CLIENT' }),
			],
		])
	})
})
