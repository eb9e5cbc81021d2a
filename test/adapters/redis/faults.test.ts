import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { redisLimiter } from '../../../adapters/redis/index.js'
import {
	ALWAYS,
	describeRedis,
	endAll,
	later,
	onPool,
	type Pool,
	type Server,
	servers,
	startPool,
	startWorker,
	WHEN_BUSY,
} from '../../support/redis.js'
import { Bench } from '../../support/redis-bench.js'

/*
 * What Redis, its users, and other programs on it can do to a limiter. In each case there are never
 * more at work than the capacity, and in the end the whole capacity is back.
 */

const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

/** With a quarter of it Redis can be waited for through the pauses of a busy machine. */
const LEASE = 3_000

/**
 * Tests at a time: they wait more than they compute. As many as vitest runs, see vitest.config.ts.
 */
const AT_ONCE = 16

class FaultBench extends Bench {
	constructor(server: Server) {
		super(server, { lease: LEASE })
	}

	/** One that Redis has answered. A busy machine may take longer than a limiter waits for that. */
	readonly joined = async (options: Parameters<Bench['make']>[0] = {}) => {
		const limiter = await this.make(options)
		await vi.waitFor(() => limiter.run(() => {}), { timeout: 10_000, interval: 50 })
		return limiter
	}

	/** What was warned of, about the limiters of this test. */
	get warnings(): string[] {
		return warned.mock.calls
			.map(([text]) => String(text))
			.filter((text) => text.includes(this.name))
	}
}

/** Counts the tasks at work. */
function gauge() {
	const seen = { working: 0, most: 0, served: 0, rejected: {} as Record<string, number> }
	/** As a client that comes back when it was rejected: on a busy machine, Redis may be late. */
	const insist = (limiter: ReturnType<typeof redisLimiter>, ms: number): Promise<void> =>
		later(keepAsking(limiter, ms))
	const keepAsking = async (
		limiter: ReturnType<typeof redisLimiter>,
		ms: number,
	): Promise<void> => {
		const until = performance.now() + 25_000
		for (;;) {
			try {
				return await limiter.run(() => enter(ms))
			} catch (error) {
				if ((error as { reason?: string }).reason !== 'unavailable' || performance.now() > until)
					throw error
				await sleep(50)
			}
		}
	}
	const enter = async (ms: number): Promise<void> => {
		seen.most = Math.max(seen.most, ++seen.working)
		await sleep(ms)
		seen.working--
		seen.served++
	}
	const work = async (limiter: ReturnType<typeof redisLimiter>, ms: number): Promise<void> => {
		try {
			await limiter.run(() => enter(ms))
		} catch (error) {
			const { reason = String(error) } = error as { reason?: string }
			seen.rejected[reason] = (seen.rejected[reason] ?? 0) + 1
		}
	}
	/** Each of some limiters has work, again and again, until `body` is over. */
	const during = async (
		limiters: ReturnType<typeof redisLimiter>[],
		ms: number,
		body: () => Promise<unknown>,
	): Promise<void> => {
		let over = false
		const load = limiters.map(async (one) => {
			while (!over) {
				await work(one, ms)
				await sleep(5)
			}
		})
		await body()
		over = true
		await Promise.all(load)
	}
	return { seen, work, insist, during }
}

/**
 * Waits until one can have the whole capacity: longer than a pause between two attempts to join.
 */
async function whole(limiter: ReturnType<typeof redisLimiter>): Promise<void> {
	const take = () => limiter.run(() => {}, { weight: 2, maxWait: 3 * LEASE })
	await vi.waitFor(take, { timeout: 12_000, interval: 50 })
}

/** What can become of one key; `undefined`: it is not there. */
const disturbances: Record<string, (admin: Redis, key: string) => Promise<unknown>> = {
	'is deleted': (admin, key) => admin.del(key),
	expires: (admin, key) => admin.pexpire(key, 1),
	'is renamed': (admin, key) => admin.rename(key, `${key}:elsewhere`).catch(() => {}),
	'is a string': (admin, key) => admin.set(key, 'junk'),
	'is a list': async (admin, key) => {
		await admin.del(key)
		await admin.rpush(key, 'junk')
	},
	'is empty but for a stranger’s field': async (admin, key) => {
		const type = await admin.type(key)
		await admin.del(key)
		if (type === 'zset') await admin.zadd(key, 1, 'stranger')
		else await admin.hset(key, 'stranger', 'x')
	},
}

const everything: Record<string, (bench: FaultBench) => Promise<unknown>> = {
	FLUSHALL: ({ admin }) => admin.flushall(),
	'FLUSHALL and SCRIPT FLUSH': async ({ admin }) => {
		await admin.flushall()
		await admin.script('FLUSH')
	},
	'SCRIPT FLUSH': ({ admin }) => admin.script('FLUSH'),
	'FLUSHALL and CLIENT KILL': async ({ admin }) => {
		await admin.flushall()
		await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
	},
}
everything['the hash is junk in each field'] = async ({ admin, key }) => {
	for (const field of await admin.hkeys(key())) await admin.hset(key(), field, 'junk')
}
for (const [what, disturb] of Object.entries(disturbances)) {
	for (const suffix of ['', ':queue', ':leases']) {
		everything[`${suffix || 'the hash'} ${what}`] = (bench) =>
			disturb(bench.admin, bench.key(suffix))
	}
}

describeRedis.each(servers)('%s', { concurrent: true, retry: WHEN_BUSY }, (binary) => {
	let pool: Pool

	beforeAll(async () => {
		pool = await startPool(AT_ONCE, ['--enable-debug-command', 'yes'], binary)
	})
	afterAll(endAll)

	const onBench = (body: (bench: FaultBench) => Promise<void>): Promise<void> =>
		onPool(pool, (server) => new FaultBench(server), body)

	describe.each(Object.keys(everything))('%s', (what) => {
		test('while one process holds all permits, and another comes', { timeout: 60_000 }, () =>
			onBench(async (bench) => {
				const options = { maxWait: 20_000, whenUnavailable: 'reject' as const }
				const [a, b] = [await bench.joined(options), await bench.make(options)]
				const { seen, insist } = gauge()
				const all = [insist(a, 1.2 * LEASE), insist(a, 1.2 * LEASE)]
				await vi.waitFor(() => expect(seen.working).toBe(2), 5_000)
				await everything[what]?.(bench)
				for (let i = 0; i < 4; i++) all.push(insist(b, 50))
				await Promise.all(all)
				expect(seen.most, ALWAYS).toBe(2)
				expect(seen.served).toBe(6)
				await whole(a)
			}),
		)
	})

	test.each(['', ':queue', ':leases'])(
		'the key %j is evicted, and a process that holds all permits dies: they are back',
		(suffix) =>
			onBench(async ({ name, server: { port }, admin, key, joined }) => {
				const limiter = await joined({ maxWait: 10_000 })
				const options = { name, capacity: 2, lease: LEASE }
				const worker = await startWorker({ port, probePort: port, concurrency: 0, options })
				for (const place of [0, 1]) await worker.take(place)
				for (const place of [0, 1]) await worker.admitted(place)
				await admin.del(key(suffix))
				await worker.kill()
				const since = performance.now()
				await whole(limiter)
				expect(performance.now() - since).toBeLessThan(2 * LEASE)
			}),
	)

	test('an old copy of the books beside a queue of today: those that wait are served', () =>
		onBench(async ({ admin, key, joined }) => {
			const limiter = await joined({ capacity: 1, maxWait: 10_000 })
			const old = await admin.dumpBuffer(key())
			const { seen, work } = gauge()
			const held = work(limiter, 500)
			await vi.waitFor(() => expect(seen.working).toBe(1), 5_000)
			const waiting = [work(limiter, 10), work(limiter, 10)]
			await vi.waitFor(async () => expect(await admin.zcard(key(':queue'))).toBe(2), 5_000)
			await admin.restore(key(), 0, old, 'REPLACE')
			await Promise.all([held, ...waiting])
			expect(seen).toMatchObject({ served: 3, rejected: {} })
		}))

	test.each(['local', 'reject'] as const)(
		'stopped for one and a half leases while one process holds all permits, with %j',
		(whenUnavailable) =>
			onBench(async ({ server, joined }) => {
				const options = { capacity: 4, whenUnavailable, maxWait: 20_000 }
				const fleet = await Promise.all([1, 2, 3, 4].map(() => joined(options)))
				const { seen, work } = gauge()
				const held = [0, 1, 2, 3].map(() => work(fleet[0] as (typeof fleet)[0], 4 * LEASE))
				await vi.waitFor(() => expect(seen.working).toBe(4), 5_000)
				const others = fleet.slice(1).map(async (limiter) => {
					while (seen.served < 4) {
						await work(limiter, 20)
						await sleep(20)
					}
				})
				// A process that has nothing to do leaves the fleet, and then its news can be old. These
				// wait, and each has heard how many are held.
				for (const limiter of fleet.slice(1)) {
					const told = () =>
						expect(limiter.stats()).toMatchObject({ queued: 1, fleet: { active: 4 } })
					await vi.waitFor(told, 5_000)
				}
				server.pause()
				await sleep(1.5 * LEASE)
				server.resume()
				await Promise.all([...held, ...others])
				expect(seen.most, ALWAYS).toBe(4)
			}),
	)

	test.each([0, 2])(
		'stopped right after FLUSHALL, while the one holds %i: by their shares, no more than the capacity',
		(holding) =>
			onBench(async ({ server, admin, key, joined }) => {
				const fleet = [await joined(), await joined()]
				const [one] = fleet as [(typeof fleet)[0]]
				const { seen, work } = gauge()
				const all = Array.from({ length: holding }, () => work(one, LEASE))
				const told = () => {
					for (const limiter of fleet) {
						expect(limiter.stats().fleet).toMatchObject({ processes: 2, active: holding })
					}
				}
				await vi.waitFor(told, 5_000)
				await admin.flushall()
				await vi.waitFor(async () => expect(await admin.hget(key(), 'members')).toBe('2'), 2_000)
				server.pause()
				for (const limiter of fleet) for (let i = 0; i < 2; i++) all.push(work(limiter, LEASE / 2))
				await vi.waitFor(() => expect(seen.working).toBe(2), 0.8 * LEASE)
				await vi.waitFor(() => expect(fleet.some(({ available }) => available)).toBe(false), 2_000)
				await sleep(100)
				server.resume()
				await Promise.all(all)
				expect(seen.most, ALWAYS).toBe(2)
			}),
	)

	/** All that the scripts and the clients may ask of Redis. */
	const COMMANDS = [
		...[
			'eval',
			'evalsha',
			'subscribe',
			'publish',
			'pubsub',
			'info',
			'time',
			'type',
			'del',
			'pexpire',
		],
		...['hget', 'hmget', 'hset', 'hdel', 'hscan'],
		...['zadd', 'zrem', 'zrange', 'zcard', 'zmscore', 'zscan'],
	]
	/** So that what is denied is heard of in time. */
	const slow = { lease: 2 * LEASE, redisTimeout: LEASE / 2 }
	const all = ['reset', 'on', '>p', '~*', '&*', '+@all']

	test('the rights that docs/redis.md lists are enough', () =>
		onBench(async (bench) => {
			const { admin, joined } = bench
			const page = readFileSync(join(import.meta.dirname, '../../../docs/redis.md'), 'utf8')
			const [, words = ''] = /ACL SETUSER limiter on >password ([^`]*)/.exec(page) ?? []
			await admin.call(
				'ACL',
				'SETUSER',
				'documented',
				'reset',
				'on',
				'>p',
				...words.trim().split(/\s+/),
			)
			const limiter = await joined({ user: 'documented' })
			const { seen, work } = gauge()
			await Promise.all(Array.from({ length: 10 }, () => work(limiter, 10)))
			// It has renewed its lease meanwhile.
			await limiter.run(() => sleep(LEASE / 2))
			await limiter.resize(3)
			await limiter.run(() => {}, { weight: 3 })
			expect(seen.most, ALWAYS).toBe(2)
			expect(seen.served).toBe(10)
			expect(bench.warnings.join()).not.toMatch(/NOPERM|permission/)
		}))

	test.each(COMMANDS)('a user without the right to %s', (command) =>
		onBench(async (bench) => {
			const { admin, make } = bench
			const user = `without-${command}`
			await admin.call('ACL', 'SETUSER', user, ...all, `-${command}`)
			const options = { ...slow, whenUnavailable: 'reject', maxWait: 2.5 * LEASE } as const
			const limiter = await make({ ...options, user })
			await admin.config('RESETSTAT')
			const { seen, work } = gauge()
			await Promise.all(Array.from({ length: 20 }, () => work(limiter, 10)))
			await sleep(500)
			const stats = await admin.info('commandstats')
			const calls = [...stats.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+).*rejected_calls=(\d+)/g)]
			const sent = calls.reduce((sum, [, done, not]) => sum + Number(done) + Number(not), 0)
			// Served, or unavailable with a warning that says why; and Redis isn't asked without a pause.
			expect(seen.most, ALWAYS).toBeLessThanOrEqual(2)
			expect(sent).toBeLessThan(100)
			if (seen.served !== 20) {
				expect(seen).toMatchObject({ served: 0, rejected: { unavailable: 20 } })
				expect(bench.warnings.join()).toMatch(/NOPERM|permission/)
			}
			// Nothing was left half done.
			const other = await make({ ...slow, maxWait: 3 * LEASE })
			await whole(other)
			await admin.call('ACL', 'SETUSER', user, `+${command}`)
			await vi.waitFor(() => limiter.run(() => {}), { timeout: 10_000, interval: 100 })
			await whole(other)
		}),
	)

	test.each(COMMANDS)('a right to %s that is taken away for a moment', (command) =>
		onBench(async ({ admin, joined }) => {
			const user = `loses-${command}`
			await admin.call('ACL', 'SETUSER', user, ...all)
			const options = { whenUnavailable: 'reject', maxWait: 4_000 } as const
			const [limiter, other] = [await joined({ ...options, user }), await joined(options)]
			const { seen, during } = gauge()
			await during([limiter, limiter, limiter, other, other], 10, async () => {
				for (let i = 0; i < 2; i++) {
					await sleep(100)
					await admin.call('ACL', 'SETUSER', user, `-${command}`)
					await sleep(150)
					await admin.call('ACL', 'SETUSER', user, `+${command}`)
				}
				await sleep(300)
			})
			expect(seen.most, ALWAYS).toBe(2)
			await whole(limiter)
			await whole(other)
		}),
	)

	test('after a long outage and a loss of memory, the whole capacity is back within a lease', () =>
		onBench(async (bench) => {
			const { admin, joined } = bench
			await admin.call('ACL', 'SETUSER', 'late', ...all)
			const options = {
				whenUnavailable: 'reject',
				maxWait: 10_000,
				lease: 2_000,
				user: 'late',
			} as const
			const limiter = await joined(options)
			const attempts = async () =>
				Number(
					/cmdstat_eval:.*rejected_calls=(\d+)/.exec(await admin.info('commandstats'))?.[1] ?? 0,
				)
			const held = await limiter.acquire()
			await admin.call('ACL', 'SETUSER', 'late', '-eval', '-evalsha')
			await vi.waitFor(() => expect(limiter.available).toBe(false), 5_000)
			// Until the pauses between its attempts are at their longest.
			await sleep(3_000)
			await admin.config('RESETSTAT')
			await vi.waitFor(async () => expect(await attempts()).toBe(1), {
				timeout: 5_000,
				interval: 5,
			})
			await admin.flushall()
			await admin.call('ACL', 'SETUSER', 'late', '+eval', '+evalsha')
			const since = performance.now()
			await vi.waitFor(() => limiter.run(() => {}), { timeout: 5_000, interval: 5 })
			expect(performance.now() - since).toBeLessThan(2_000 + 150)
			held.release()
		}))

	test.each(['', ':leases'])(
		'in a quiet fleet that loses %j, the whole capacity is back within 1.15 leases',
		(suffix) =>
			onBench(async ({ admin, key, joined }) => {
				const options = { maxWait: 10_000, lease: 2_000 }
				const limiter = await joined(options)
				const other = await joined(options)
				const held = await limiter.acquire()
				// Both have renewed what they hold, and ask nothing of Redis until the next time.
				await sleep(1_200)
				const since = performance.now()
				await admin.del(key(suffix))
				await sleep(700)
				const permit = await other.acquire()
				expect(performance.now() - since).toBeLessThan(1.15 * 2_000 + 150)
				permit.release()
				held.release()
			}),
	)

	test('junk on its channels is left aside, and so are forged grants and capacities', () =>
		onBench(async ({ admin, key, joined }) => {
			const limiter = await joined({ maxWait: 10_000 })
			const resized = vi.fn()
			limiter.observe({ resized })
			const { seen, insist } = gauge()
			const all = [insist(limiter, 4_000), insist(limiter, 4_000)]
			await vi.waitFor(() => expect(seen.working).toBe(2), 5_000)
			for (let i = 0; i < 3; i++) all.push(insist(limiter, 20))
			const queued = async () => expect(await admin.zcard(key(':queue'))).toBe(3)
			await vi.waitFor(queued, 5_000)
			const channels = (await admin.pubsub('CHANNELS', 'inflight:*')) as string[]
			const numbers = ['', 'NaN', '0', '-1', '1.5', '1e9', '__proto__', '5', '99']
			const messages = [
				...numbers,
				':',
				'::',
				':::',
				'{}',
				'x'.repeat(100_000),
				'look',
				'grant',
				'rejoin',
			]
			for (const number of numbers)
				messages.push(`capacity:${number}`, `look:${number}`, `grant:${number}`)
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
			expect(limiter.stats()).toMatchObject({ capacity: 2, active: 2, queued: 3 })
			expect(resized).not.toHaveBeenCalled()
			const stats = await admin.info('commandstats')
			expect(Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)).toBeLessThan(20)
			await Promise.all(all)
			expect(seen.most, ALWAYS).toBe(2)
			expect(seen.served).toBe(5)
		}))

	type Step = (bench: FaultBench) => Promise<unknown>
	const states: Record<string, [enter: Step, leave: Step]> = {
		'without memory': [
			({ admin }) => admin.config('SET', 'maxmemory', '1'),
			({ admin }) => admin.config('SET', 'maxmemory', '0'),
		],
		'a replica': [
			({ admin }) => admin.replicaof('127.0.0.1', '1'),
			({ admin }) => admin.replicaof('NO', 'ONE'),
		],
		'short of replicas': [
			({ admin }) => admin.config('SET', 'min-replicas-to-write', '1'),
			({ admin }) => admin.config('SET', 'min-replicas-to-write', '0'),
		],
		'at pause': [({ admin }) => admin.client('PAUSE', 1_000), () => sleep(1_000)],
		asleep: [
			({ admin }) => Promise.race([admin.call('DEBUG', 'SLEEP', '1'), sleep(1_000)]),
			async () => {},
		],
		'busy with a script': [
			async ({ admin, server }) => {
				const other = new Redis(server.port, '127.0.0.1')
				await admin.config('SET', 'busy-reply-threshold', '50')
				other.eval('while true do end', 0).catch(() => {})
				await sleep(1_000)
				other.disconnect()
			},
			({ admin }) => admin.script('KILL'),
		],
	}
	test.each(Object.keys(states))('a Redis that is %s for a second', (state) =>
		onBench(async (bench) => {
			const options = { whenUnavailable: 'reject', maxWait: 4_000 } as const
			const [a, b] = [await bench.joined(options), await bench.joined(options)]
			const { seen, during } = gauge()
			await during([a, a, b, b], 30, async () => {
				await sleep(200)
				const [begin, leave] = states[state] as (typeof states)[string]
				await begin(bench)
				await sleep(1_000)
				await leave(bench)
				await vi.waitFor(() => expect(a.available && b.available).toBe(true), 5_000)
				await sleep(300)
			})
			expect(seen.most, ALWAYS).toBe(2)
			await whole(a)
		}),
	)

	test('connections killed again and again', () =>
		onBench(async ({ admin, joined }) => {
			const options = { whenUnavailable: 'reject', maxWait: 4_000 } as const
			const [a, b] = [await joined(options), await joined(options)]
			const { seen, during } = gauge()
			await during([a, a, b, b], 10, async () => {
				for (let i = 0; i < 40; i++) {
					await sleep(25)
					await admin.call('CLIENT', 'KILL', 'TYPE', i % 2 ? 'normal' : 'pubsub', 'SKIPME', 'yes')
				}
				await sleep(1_000)
			})
			expect(seen.most, ALWAYS).toBe(2)
			await whole(a)
		}))

	test('a maxmemory-policy that may evict the keys is warned of, once', () =>
		onBench(async (bench) => {
			const { admin, joined } = bench
			const evictions = () => bench.warnings.filter((text) => /maxmemory-policy/.test(text))
			await admin.config('SET', 'maxmemory-policy', 'volatile-lru')
			const limiter = await joined()
			await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
			await sleep(200)
			await vi.waitFor(() => limiter.run(() => {}), 5_000)
			expect(evictions()).toEqual([expect.stringMatching(/volatile-lru.*noeviction/)])
			await admin.config('SET', 'maxmemory-policy', 'noeviction')
			await joined()
			expect(evictions()).toHaveLength(1)
		}))
})

describeRedis('a client of node-redis without a listener for its errors', () => {
	test('is warned of; one that gets it in time is not', async () => {
		const [none, late] = [createClient(), createClient()]
		for (const client of [none, late]) redisLimiter({ client, name: 'deaf', capacity: 1 })
		late.on('error', () => {})
		await new Promise(setImmediate)
		expect(warned.mock.calls.filter(([text]) => String(text).includes('deaf'))).toEqual([
			[
				expect.stringMatching(/no listener for 'error'/),
				expect.objectContaining({ code: 'INFLIGHT_REDIS_CLIENT' }),
			],
		])
	})
})
