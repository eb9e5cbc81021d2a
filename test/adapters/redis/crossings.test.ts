import { EventEmitter } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { admission, limit } from '../../../adapters/express.js'
import { driverOf } from '../../../adapters/redis/drivers.js'
import {
	type RedisClient,
	type RedisLimiterOptions,
	redisLimiter,
} from '../../../adapters/redis/index.js'
import type { RejectedError } from '../../../src/errors.js'
import { inspect as inspectGate } from '../../../src/limiter/inspection.js'
import { expectAbandonedIsCounted } from '../../support/gate.js'
import { oddSignals } from '../../support/signals.js'

/*
 * What crosses on its way, or does not come at all: a scripted client, as no real Redis can be made
 * to do it at will.
 */

const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

type Answers = Record<string, (args: string[]) => unknown>

const never = new Promise<never>(() => {})

function scripted(fleet: { capacity?: number; processes?: number } = {}) {
	const { capacity = 2, processes = 1 } = fleet
	let token = 0
	let listener: (text: string) => void = () => {}
	const state = [capacity, 0, 0, processes, 0, -1, 0, 1]
	const answers: Answers = {
		subscribe: () => {},
		probe: () => 1,
		join: () => ['joined', '1', 'secret', 0, '', ...state],
		renew: () => ['renewed', ...state],
		acquire: () => ['granted', ++token, 1],
		release: () => ['ok', 0],
		resize: () => ['ok'],
		leave: () => ['ok'],
	}
	const calls: string[][] = []
	const ask = (args: string[]): unknown => {
		calls.push(args)
		return answers[args[0] as string]?.(args)
	}
	const client = Object.assign(new EventEmitter(), {
		evalSha: (_sha: string, { arguments: args }: { arguments: string[] }) => wrap(() => ask(args)),
		eval: async (_script: string, { arguments: args }: { arguments: string[] }) =>
			ask(args.length === 0 ? ['probe'] : args),
		subscribe: async (channel: string, listen: (text: string, channel: string) => void) => {
			await answers.subscribe?.([])
			listener = (text) => listen(text, channel)
		},
		unsubscribe: async () => {},
	})
	client.on('error', () => {})
	let wrap = async (call: () => unknown): Promise<unknown> => call()
	return {
		client,
		answers,
		calls,
		say: (text: string) => listener(text),
		count: (operation: string) => calls.filter(([name]) => name === operation).length,
		/** From the next command on, one that fails does so before it is sent. */
		failAtOnce() {
			wrap = ((call: () => unknown) => call()) as never
		},
		make: (options: Partial<RedisLimiterOptions> = {}) =>
			redisLimiter({
				client: client as unknown as RedisClient,
				name: 'a',
				capacity: 2,
				...options,
			}),
	}
}

/** What a message on a permit begins with. */
function named(args: string[]): string {
	return `grant:${(args[3] as string).split(':').slice(1).join(':')}`
}

function block(ms: number): void {
	const until = performance.now() + ms
	while (performance.now() < until);
}

test('a command that fails ends the session; it is asked again in the next, and a cancelled one is not', async () => {
	const redis = scripted()
	const limiter = redis.make({ redisTimeout: 2_000 })
	const { acquire } = redis.answers
	redis.answers.acquire = () => {
		redis.answers.acquire = acquire as () => unknown
		throw new Error('OOM')
	}
	expect((await limiter.acquire()).token).toBe(1)
	expect(redis.count('join')).toBe(2)
	let fail: (error: Error) => void = () => {}
	redis.answers.acquire = () =>
		new Promise((_, reject) => {
			fail = reject
		})
	const cancel = new AbortController()
	const left = limiter.acquire({ signal: cancel.signal })
	cancel.abort('left')
	await expect(left).rejects.toBe('left')
	fail(new Error('lost'))
	await vi.waitFor(() => expect(redis.count('join')).toBe(3))
	expect(redis.count('acquire')).toBe(3)
	expect(limiter.available).toBe(true)
	// Two fail at once: that is one session, not two.
	redis.answers.acquire = () => {
		redis.answers.acquire = () => {
			redis.answers.acquire = acquire as () => unknown
			throw new Error('lost')
		}
		throw new Error('lost')
	}
	await Promise.all([limiter.acquire(), limiter.acquire()])
	expect(redis.count('join')).toBe(4)
	redis.answers.acquire = () => sleep(5, ['full', 2, 0])
	const gone = new AbortController()
	const full = limiter.acquire({ signal: gone.signal })
	gone.abort('gone')
	await expect(full).rejects.toBe('gone')
	await sleep(10)
})

test('more callers than may ask at once: none waits for its turn for longer than its bound', async () => {
	const redis = scripted({ capacity: 1_000 })
	const limiter = redis.make({ capacity: 1_000, redisTimeout: 200 })
	await limiter.run(() => {})
	// With a fast Redis, those that must not wait at all get their answers.
	const burst = Array.from({ length: 1_000 }, () => limiter.acquire({ maxWait: 0 }))
	for (const permit of await Promise.all(burst)) permit.release()
	await limiter.onIdle()
	vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
	try {
		let token = 10_000
		redis.answers.acquire = () =>
			new Promise((resolve) => setTimeout(resolve, 150, ['granted', ++token, 1]))
		const all = Promise.allSettled(
			Array.from({ length: 1_000 }, () => limiter.acquire({ maxWait: 50 })),
		)
		await vi.advanceTimersByTimeAsync(350)
		expect(limiter.queued).toBe(0)
		const settled = (await all).map((one) =>
			one.status === 'fulfilled' ? 'admitted' : (one.reason as RejectedError).reason,
		)
		expect(settled.filter((how) => how === 'admitted')).toHaveLength(200)
		expect(settled.filter((how) => how === 'timeout')).toHaveLength(800)
	} finally {
		vi.useRealTimers()
	}
})

test('a command that fails before it is sent is asked again, by the loop that joins already', async () => {
	const redis = scripted()
	redis.failAtOnce()
	let failures = 0
	redis.answers.acquire = () => {
		if (++failures < 3) throw new Error('offline')
		return Promise.resolve(['granted', 7, 1])
	}
	expect((await redis.make().acquire()).token).toBe(7)
})

test('a Redis that never answered: no share is known, so nothing is admitted until it does', async () => {
	const redis = scripted()
	const { join } = redis.answers
	let attempts = 0
	redis.answers.join = () => {
		if (++attempts === 1) throw new Error('LOADING')
		return never
	}
	const limiter = redis.make({ redisTimeout: 50 })
	const own = redis.make({ redisTimeout: 50, localCapacity: 1 })
	warned.mockClear()
	const since = performance.now()
	const alone = await Promise.allSettled([limiter.acquire(), limiter.acquire(), own.acquire()])
	// They have not waited for as long as they may.
	expect(performance.now() - since).toBeLessThan(5_000)
	expect(alone).toMatchObject([
		{ reason: { reason: 'unavailable' } },
		{ reason: { reason: 'unavailable' } },
		{ value: { token: 0 } },
	])
	await expect(limiter.acquire()).rejects.toMatchObject({ reason: 'unavailable' })
	expect(limiter).toMatchObject({ available: false, active: 0, queued: 0 })
	expect(warned.mock.calls.map(([text]) => text)).toEqual([
		expect.stringMatching(
			/: requests are rejected, as no share is known before it has answered once$/,
		),
		expect.stringMatching(/: a local share of it is used$/),
	])
	redis.answers.join = join as () => unknown
	await vi.waitFor(() => expect(limiter.available && own.available).toBe(true), 5_000)
	expect((await limiter.acquire()).token).toBeGreaterThan(0)
	// From now on it has a share.
	for (const name of ['join', 'probe', 'acquire']) redis.answers[name] = () => never
	expect((await limiter.acquire()).token).toBe(0)
})

test('messages: of an older session, before the answer, with an older token, after the end', async () => {
	const redis = scripted()
	const limiter = redis.make()
	redis.answers.acquire = (args) => {
		redis.say(`grant:0:${named(args).split(':')[2]}:3`)
		expect(limiter.active).toBe(0)
		redis.say(`${named(args)}:9`)
		redis.say(`${named(args)}:9`)
		return ['queued', 2, 1, 5]
	}
	const permit = await limiter.acquire()
	expect(permit.token).toBe(9)
	redis.answers.acquire = () => ['granted', 4, 2]
	expect((await limiter.acquire()).token).toBe(4)
	redis.answers.acquire = () => ['queued', 2, 0, 9]
	const third = limiter.acquire()
	limiter.close()
	await expect(third).rejects.toMatchObject({ reason: 'closed' })
	expect(limiter.active).toBe(2)
})

test('a permit that its message brought, aborted before it could be handed over, goes back', async () => {
	const redis = scripted()
	const limiter = redis.make()
	const cancel = new AbortController()
	redis.answers.acquire = (args) => {
		redis.say(`${named(args)}:9`)
		cancel.abort('left')
		return ['granted', 9, 1]
	}
	await expect(limiter.acquire({ signal: cancel.signal })).rejects.toBe('left')
	expect(limiter.active).toBe(0)
	await vi.waitFor(() => expect(redis.count('release')).toBeGreaterThan(0))
	const other = new AbortController()
	limiter.observe({ admitted: () => other.abort('seen') })
	redis.answers.acquire = () => ['granted', 10, 1]
	const task = vi.fn()
	await expect(limiter.run(task, { signal: other.signal })).rejects.toBe('seen')
	expect(task).not.toHaveBeenCalled()
	expect(limiter.active).toBe(0)
})

test('a release that crosses with a join is told once Redis has answered; a waiter comes back with its ticket', async () => {
	const redis = scripted()
	const limiter = redis.make()
	const held = [await limiter.acquire(), await limiter.acquire()]
	redis.answers.acquire = () => ['queued', 2, 3, 77]
	const waiting = limiter.acquire()
	await sleep(10)
	let answer: () => void = () => {}
	const { join } = redis.answers
	redis.answers.join = (args) =>
		new Promise((resolve) => {
			answer = () => resolve(join?.(args))
		})
	redis.client.emit('reconnecting')
	await sleep(10)
	held[0]?.release()
	expect(redis.count('release')).toBe(0)
	redis.answers.acquire = (args) => (args[8] === '77' ? ['queued', 2, 0, 77] : [])
	answer()
	await vi.waitFor(() => expect(redis.count('release')).toBe(1))
	const asked = redis.calls.filter(([name]) => name === 'acquire').at(-1) as string[]
	redis.say(`${named(asked)}:50`)
	const permit = await waiting
	expect(permit.token).toBe(50)
	const idle = [limiter.onIdle(), limiter.onIdle()]
	held[1]?.release()
	{
		using _ = permit
	}
	permit.release()
	await Promise.all(idle)
	expect(redis.count('release')).toBe(3)
})

test('closed while it joins: Redis is told to forget it', async () => {
	const redis = scripted()
	const limiter = redis.make()
	let answer: () => void = () => {}
	const { join } = redis.answers
	redis.answers.join = (args) =>
		new Promise((resolve) => {
			answer = () => resolve(join?.(args))
		})
	const waiting = limiter.acquire()
	await sleep(10)
	limiter.close()
	await expect(waiting).rejects.toMatchObject({ reason: 'closed' })
	answer()
	await vi.waitFor(() => expect(redis.count('leave')).toBe(1))
	redis.say('grant:1:1:1')
	expect(limiter.active).toBe(0)
})

test('closed before it could subscribe: Redis is asked for nothing', async () => {
	const redis = scripted()
	const limiter = redis.make()
	redis.answers.subscribe = () => sleep(20)
	const waiting = limiter.acquire()
	limiter.close()
	await expect(waiting).rejects.toMatchObject({ reason: 'closed' })
	await sleep(40)
	expect(redis.calls).toEqual([])
})

test('the live page is told how it is set, and when it is closed', async () => {
	const redis = scripted({ capacity: 1 })
	const key = (request: object): string => (request as { key: string }).key
	const limiter = redis.make({ capacity: 1, key, maxQueue: Number.POSITIVE_INFINITY, maxWait: 500 })
	const permit = await limiter.acquire({ key: 'ada' })
	const told = limiter[inspectGate]()
	expect(told).toMatchObject({
		capacity: 'shared',
		keyed: true,
		maxQueue: Number.POSITIVE_INFINITY,
		maxWait: 500,
		closed: false,
	})
	expect([...told.keys()]).toEqual([{ key: 'ada', capacity: 1, active: 1, queued: 0 }])
	permit.release()
	limiter.close()
	expect(limiter[inspectGate]().closed).toBe(true)
})

test('the live page is told what is at work without a client', async () => {
	const redis = scripted()
	const limiter = redis.make()
	await expectAbandonedIsCounted(limiter)
	limiter.close()
})

test('capacities that cross: the last one counts', async () => {
	const redis = scripted()
	const limiter = redis.make()
	const { join } = redis.answers
	redis.answers.join = (args) => sleep(20, join?.(args))
	limiter.resize(3)
	await sleep(10)
	await Promise.all([limiter.resize(4), limiter.acquire()])
	await vi.waitFor(() => expect(redis.calls.find(([name]) => name === 'resize')?.[3]).toBe('4'))
	await Promise.all([limiter.resize(5), limiter.resize(6)])
	expect(limiter.capacity).toBe(6)
	redis.answers.resize = () => ['rejoin']
	await limiter.resize(7)
	await vi.waitFor(() =>
		expect(redis.calls.filter(([name]) => name === 'join').at(-1)?.[9]).toBe('7'),
	)
})

test('as many whose messages were lost as one renewal asks after: it goes on with the rest', async () => {
	const redis = scripted({ capacity: 150 })
	const limiter = redis.make({ lease: 500, capacity: 150 })
	redis.answers.acquire = () => ['queued', 0, 0, 1]
	let token = 0
	redis.answers.renew = (args) => {
		const asked = args.slice(5).filter((_, i) => i % 2 === 0)
		return ['renewed', 150, 0, 0, 1, 0, -1, 0, 1, ...asked.flatMap((field) => [field, ++token])]
	}
	const permits = await Promise.all(Array.from({ length: 120 }, () => limiter.acquire()))
	expect(permits.at(-1)?.token).toBe(120)
	for (const permit of permits) permit.release()
	expect(limiter.active).toBe(0)
})

test('a process that was blocked itself gives Redis its time again', async () => {
	const redis = scripted()
	const limiter = redis.make()
	const { join } = redis.answers
	redis.answers.join = () => {
		redis.answers.join = join as () => unknown
		return never
	}
	const first = limiter.acquire()
	await sleep(5)
	block(300)
	expect((await first).token).toBe(1)
	redis.answers.acquire = () => sleep(350, ['granted', 2, 2])
	const second = limiter.acquire()
	await sleep(5)
	block(300)
	expect((await second).token).toBe(2)
	expect(limiter.available).toBe(true)
	redis.answers.acquire = () => never
	limiter.acquire().catch(() => {})
	await vi.waitFor(() => expect(redis.count('acquire')).toBeGreaterThan(3), 1_000)
})

describe('an answer that is read when patience has ended, before it is decided', () => {
	// Immediates are real: as when a socket is read, a test comes before them.
	beforeEach(() => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
	})
	afterEach(() => {
		vi.useRealTimers()
	})

	/**
	 * Two at Redis, asked for 50 ms apart, whose answers the test gives; patience with the first has
	 * just ended.
	 */
	async function impatient() {
		const redis = scripted()
		const limiter = redis.make({ redisTimeout: 200 })
		await limiter.run(() => {})
		await limiter.onIdle()
		const answer: ((answer: unknown[]) => void)[] = []
		redis.answers.acquire = () => new Promise((resolve) => answer.push(resolve))
		redis.answers.probe = () => never
		const first = limiter.acquire()
		vi.advanceTimersByTime(50)
		const second = limiter.acquire()
		vi.advanceTimersByTime(150)
		return {
			redis,
			limiter,
			first,
			second,
			answer: answer as [(typeof answer)[0], (typeof answer)[0]],
		}
	}

	// Limiters of earlier tests can set a timer meanwhile, which counts.
	test('is in time, and so is another that is', { retry: 2 }, async () => {
		const { redis, limiter, first, second, answer } = await impatient()
		for (const i of [0, 1] as const) answer[i](['granted', 5 + i, 1 + i])
		await new Promise(setImmediate)
		expect([(await first).token, (await second).token]).toEqual([5, 6])
		expect(vi.getTimerCount()).toBe(2) // The renewal and the end of the lease.
		expect(redis.count('join')).toBe(1)
		expect(limiter.available).toBe(true)
	})

	test('is in time, and the next has its own time', async () => {
		const { redis, limiter, first, second, answer } = await impatient()
		answer[0](['granted', 5, 1])
		await new Promise(setImmediate)
		expect((await first).token).toBe(5)
		vi.advanceTimersByTime(49)
		await new Promise(setImmediate)
		expect(limiter.available).toBe(true)
		vi.advanceTimersByTime(1)
		await new Promise(setImmediate)
		expect(limiter.available).toBe(false)
		expect(redis.count('join')).toBe(1)
		expect((await second).token).toBe(0)
	})

	test('is in time, and so is what is asked because of it', async () => {
		const { redis, limiter, first, second, answer } = await impatient()
		for (const i of [0, 1] as const) answer[i](['granted', 5 + i, 1 + i])
		redis.answers.release = () => never
		;(await first).release()
		;(await second).release()
		await new Promise(setImmediate)
		vi.advanceTimersByTime(199)
		await new Promise(setImmediate)
		expect(limiter.available).toBe(true)
		vi.advanceTimersByTime(1)
		await new Promise(setImmediate)
		expect(limiter.available).toBe(false)
	})

	test('is too late when it is not read by then', async () => {
		const { limiter, first, second, answer } = await impatient()
		await new Promise(setImmediate)
		for (const i of [0, 1] as const) answer[i](['granted', 5 + i, 1 + i])
		expect(limiter.available).toBe(false)
		expect([(await first).token, (await second).token]).toEqual([0, 0])
	})
})

test('a command of an ended session that fails in the next ends nothing', async () => {
	const redis = scripted()
	const limiter = redis.make()
	await limiter.run(() => {})
	let fail: (error: Error) => void = () => {}
	const { acquire } = redis.answers
	redis.answers.acquire = () =>
		new Promise((_, reject) => {
			fail = reject
		})
	const asked = limiter.acquire()
	redis.answers.acquire = acquire as () => unknown
	redis.client.emit('reconnecting')
	await asked
	fail(new Error('closed'))
	await new Promise(setImmediate)
	expect(redis.count('join')).toBe(2)
	expect(limiter.available).toBe(true)
})

test('resized when it is closed, with Redis still away: nobody is told so again', async () => {
	const redis = scripted()
	for (const name of ['join', 'probe']) redis.answers[name] = () => never
	const limiter = redis.make({ redisTimeout: 20 })
	await expect(limiter.acquire()).rejects.toMatchObject({ reason: 'unavailable' })
	limiter.close()
	warned.mockClear()
	limiter.resize(3)
	await sleep(40)
	expect(warned).not.toHaveBeenCalled()
	expect(limiter.capacity).toBe(3)
})

test('while it joins, no more wait than can; when its lease has ended, it keeps to its share', async () => {
	const redis = scripted({ capacity: 3, processes: 2 })
	const limiter = redis.make({ lease: 500, redisTimeout: 50, capacity: 3, maxQueue: 0 })
	const early = await Promise.all(Array.from({ length: 3 }, () => limiter.acquire()))
	await expect(
		(() => {
			redis.client.emit('end')
			return Promise.all(Array.from({ length: 5 }, () => limiter.acquire()))
		})(),
	).rejects.toMatchObject({ reason: 'queue-full' })
	for (const permit of early) permit.release()
})

test('without Redis until its lease has ended: what it held is lost, and in the end it has its share', async () => {
	const redis = scripted({ capacity: 3, processes: 2 })
	const limiter = redis.make({ lease: 500, redisTimeout: 50, capacity: 3 })
	const leased = await limiter.acquire()
	const seen = await limiter.acquire()
	expect(seen.signal).toBe(seen.signal)
	for (const name of ['join', 'probe', 'renew', 'acquire', 'release'])
		redis.answers[name] = () => never
	const since = performance.now()
	const alone = await limiter.acquire()
	expect(alone.token).toBe(0)
	await vi.waitFor(() => expect(seen.signal.aborted).toBe(true), 1_000)
	expect(leased.signal.reason).toMatchObject({ code: 'ERR_INFLIGHT_LEASE_LOST' })
	expect(alone.signal.aborted).toBe(false)
	for (const permit of [leased, seen, alone]) permit.release()
	// Too heavy for its share of two: alone.
	const heavy = await limiter.acquire({ weight: 3 })
	heavy.release()
	await sleep(Math.max(0, 900 - (performance.now() - since)))
	const share = [await limiter.acquire(), await limiter.acquire()]
	await expect(limiter.acquire({ maxWait: 20 })).rejects.toMatchObject({ reason: 'timeout' })
	for (const permit of share) permit.release()
})

/** With two processes: how many permits were held at the last news before a loss, and in it. */
test.each([
	{ what: 'in a quiet fleet, it has its share', before: 0, after: 0, share: 1 },
	{ what: 'others held all, and are not back: none is free', before: 2, after: 0, share: 0 },
	{ what: 'others have come back with all: none is free', before: 0, after: 2, share: 0 },
	{ what: 'it has no news from before: none is free', before: undefined, after: 0, share: 0 },
])('Redis goes away again after a loss of memory: $what', async ({ before, after, share }) => {
	const redis = scripted()
	const limiter = redis.make({ redisTimeout: 50 })
	redis.answers.acquire = () => ['granted', 1, 2]
	redis.answers.release = () => ['ok', 2]
	if (before !== undefined) {
		redis.answers.join = () => ['joined', '1', 'secret', 0, '', 2, before, 0, 2, 0, -1, 0, 1]
		redis.answers.release = () => ['ok', before]
		await limiter.run(() => {})
	}
	redis.answers.join = () => ['joined', '2', 'secret', 1, '', 2, after, 0, 1, 0, 9_000, 1, 1]
	redis.client.emit('end')
	const first = limiter.run(() => {})
	await first
	for (const name of ['join', 'probe', 'renew', 'acquire', 'release'])
		redis.answers[name] = () => never
	const all = Array.from({ length: 3 }, () =>
		limiter.acquire({ maxWait: 200 }).catch(() => undefined),
	)
	const admitted = (await Promise.all(all)).filter((permit) => permit !== undefined)
	expect(admitted).toHaveLength(share)
	for (const permit of admitted) permit.release()
})

test.each([
	// As in docs/redis.md: what Redis has granted, and the parts of those that don't know of it.
	{ capacity: 6, processes: 3, most: 6 + 2 + 2 },
	{ capacity: 5, processes: 3, most: 5 + 2 + 2 },
	{ capacity: 2, processes: 3, most: 2 + 1 + 1 },
])(
	'Redis goes away when one of $processes processes has just taken all $capacity permits: at most twice the capacity is at work',
	async ({ capacity, processes, most }) => {
		const fleet = Array.from({ length: processes }, (_, rank) => {
			const redis = scripted({ capacity })
			let active = 0
			redis.answers.join = () => [
				'joined',
				'1',
				'secret',
				0,
				'',
				capacity,
				0,
				0,
				processes,
				rank,
				-1,
				0,
				1,
			]
			redis.answers.acquire = () => ['granted', ++active, active]
			redis.answers.release = () => ['ok', --active]
			return { redis, limiter: redis.make({ capacity, redisTimeout: 50 }) }
		})
		for (const { limiter } of fleet) await limiter.run(() => {})
		const last = fleet.at(-1) as (typeof fleet)[0]
		const all = Array.from({ length: capacity }, () => last.limiter.acquire())
		const permits = await Promise.all(all)
		for (const { redis } of fleet) {
			for (const name of Object.keys(redis.answers)) redis.answers[name] = () => never
			redis.client.emit('end')
		}
		const more = fleet.flatMap(({ limiter }) =>
			Array.from({ length: 2 * capacity }, () => limiter.acquire().catch(() => undefined)),
		)
		for (const { limiter } of fleet) {
			await vi.waitFor(() => expect(limiter.available).toBe(false), 5_000)
			// Those that were not admitted at once are not admitted later.
			limiter.close()
		}
		const added = (await Promise.all(more)).filter((permit) => permit !== undefined)
		expect(permits.length + added.length).toBe(most)
		expect(most).toBeLessThanOrEqual(2 * capacity)
		for (const permit of [...permits, ...added]) permit.release()
	},
)

describe('a permit is on its way back when Redis goes away', () => {
	/** One permit in a fleet of one, and Redis has been seen to answer. */
	async function alone() {
		const redis = scripted({ capacity: 1, processes: 2 })
		const limiter = redis.make({ capacity: 1, redisTimeout: 50 })
		await limiter.run(() => {})
		await limiter.onIdle()
		redis.answers.release = () => never
		return { redis, limiter }
	}

	type Bench = Awaited<ReturnType<typeof alone>>

	/** Redis says with a renewal how many are held, and how many wait. */
	async function renewal({ redis }: Bench, active: number, queued: number): Promise<void> {
		const before = redis.count('renew')
		redis.answers.renew = () => ['renewed', 1, active, queued, 2, 0, -1, 0, 1]
		redis.say('look')
		await vi.waitFor(() => expect(redis.count('renew')).toBe(before + 1))
	}

	/** Whether the limiter admits one more, alone. */
	function admits({ redis, limiter }: Bench, maxWait = 5_000): Promise<boolean> {
		for (const name of Object.keys(redis.answers)) redis.answers[name] = () => never
		redis.client.emit('end')
		return limiter.acquire({ maxWait }).then(
			(permit) => {
				permit.release()
				return true
			},
			() => false,
		)
	}

	test('it was given to a waiter of this process before: it is free', async () => {
		const bench = await alone()
		const { redis, limiter } = bench
		const permit = await limiter.acquire()
		redis.answers.acquire = () => ['queued', 1, 0, 5]
		const waiting = limiter.acquire()
		await renewal(bench, 1, 1)
		permit.release()
		redis.say(`${named(redis.calls.filter(([name]) => name === 'acquire').at(-1) ?? [])}:50`)
		;(await waiting).release()
		expect(await admits(bench)).toBe(true)
	})

	test('others wait, and then some of this process, too: it is not', async () => {
		const bench = await alone()
		const { redis, limiter } = bench
		const permit = await limiter.acquire()
		await renewal(bench, 1, 1)
		redis.answers.acquire = () => ['queued', 1, 1, 5]
		const waiting = [limiter.acquire({ maxWait: 250 }), limiter.acquire({ maxWait: 250 })]
		const left = Promise.allSettled(waiting)
		await vi.waitFor(() => expect(redis.count('acquire')).toBe(4))
		// Their answers are read before the next timer.
		await sleep(1)
		permit.release()
		expect(await admits(bench, 300)).toBe(false)
		expect((await left).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
	})

	test('its caller was aborted before the answer: it is free', async () => {
		const bench = await alone()
		const { redis, limiter } = bench
		const cancel = new AbortController()
		redis.answers.acquire = () => sleep(5, ['granted', 9, 1])
		const left = limiter.acquire({ signal: cancel.signal })
		cancel.abort('left')
		await expect(left).rejects.toBe('left')
		await vi.waitFor(() => expect(redis.count('release')).toBe(2))
		expect(await admits(bench)).toBe(true)
	})

	test('it was released while Redis was told of it: it is free', async () => {
		const bench = await alone()
		const { redis, limiter } = bench
		const permit = await limiter.acquire()
		let answer: () => void = () => {}
		redis.answers.join = () =>
			new Promise((resolve) => {
				answer = () => resolve(['joined', '1', 'secret', 0, '', 1, 1, 0, 2, 0, -1, 0, 1])
			})
		redis.client.emit('reconnecting')
		await vi.waitFor(() => expect(redis.count('join')).toBe(2))
		permit.release()
		redis.answers.renew = () => never
		answer()
		await vi.waitFor(() => expect(redis.count('release')).toBe(2))
		expect(await admits(bench)).toBe(true)
	})

	test('Redis gave more than it has said: no more than the capacity is free', async () => {
		const redis = scripted({ capacity: 5 })
		const limiter = redis.make({ capacity: 5, redisTimeout: 50 })
		redis.answers.acquire = () => ['queued', 1, 0, 5]
		const waiting = limiter.acquire({ weight: 5 })
		await vi.waitFor(() => expect(redis.count('acquire')).toBe(1))
		redis.say(`${named(redis.calls.find(([name]) => name === 'acquire') ?? [])}:50`)
		redis.answers.release = () => never
		;(await waiting).release()
		for (const name of Object.keys(redis.answers)) redis.answers[name] = () => never
		redis.client.emit('end')
		const more = Promise.allSettled(Array.from({ length: 10 }, () => limiter.acquire()))
		await vi.waitFor(() => expect(limiter.available).toBe(false), 5_000)
		expect(limiter.active).toBe(5)
		expect(limiter.stats().fleet.active).toBe(0)
		limiter.close()
		await more
	})
})

test('a release that notices the end of the lease admits the next caller, and only once', async () => {
	const redis = scripted({ capacity: 4, processes: 2 })
	const limiter = redis.make({ capacity: 4, lease: 500, redisTimeout: 50 })
	redis.answers.acquire = () => ['granted', 1, 4]
	const held = await limiter.acquire()
	for (const name of Object.keys(redis.answers)) redis.answers[name] = () => never
	redis.client.emit('end')
	const waiting = limiter.acquire()
	await vi.waitFor(() => expect(limiter.available).toBe(false), 5_000)
	expect([limiter.active, limiter.queued]).toEqual([1, 1])
	block(500)
	held.release()
	expect([limiter.active, limiter.queued]).toEqual([1, 0])
	;(await waiting).release()
	expect(limiter.active).toBe(0)
})

test('the signal of a request is aborted with the client and with the permit, even when either is over already', async () => {
	const redis = scripted()
	const limiter = redis.make({
		lease: 500,
		redisTimeout: 50,
		skip: (req) => 'url' in req && req.url === '/free',
	})
	const guard = limit(limiter)
	const signals: AbortSignal[] = []
	const server = http.createServer((req, res) => {
		guard(req, res, () => {
			if (req.url === '/free') return res.end('free')
			if (req.url === '/late') block(600)
			signals.push(admission(req)?.signal as AbortSignal)
			if (req.url === '/late') res.end(String((signals.at(-1) as AbortSignal).aborted))
		})
	})
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
	expect(await (await fetch(`${url}/free`)).text()).toBe('free')
	expect(redis.calls).toEqual([])
	const cancel = new AbortController()
	const left = fetch(url, { signal: cancel.signal }).catch(() => 'left')
	await vi.waitFor(() => expect(signals.length).toBe(1))
	cancel.abort()
	expect(await left).toBe('left')
	await vi.waitFor(() => expect(signals[0]?.aborted).toBe(true))
	expect(await (await fetch(`${url}/late`)).text()).toBe('true')
	server.close()
	server.closeAllConnections()
})

test('a connection for messages that can not be made is tried again; it ends with its client', async () => {
	const redis = scripted()
	let attempts = 0
	const destroy = vi.fn()
	const duplicate = Object.assign(new EventEmitter(), {
		connect: async () => {
			if (++attempts === 1) throw new Error('refused')
		},
		destroy,
		subscribe: redis.client.subscribe,
		unsubscribe: redis.client.unsubscribe,
	})
	Object.assign(redis.client, { unref() {}, duplicate: () => duplicate })
	await redis.make().run(() => {})
	expect(attempts).toBe(2)
	redis.client.emit('end')
	expect(destroy).toHaveBeenCalled()
})

test.each([
	{ when: 'the connection for messages opens', slow: 'connect' },
	{ when: 'it subscribes to its channel', slow: 'p' },
	{ when: 'it subscribes to the channel of the books', slow: 'books' },
])('closed while $when: it listens to nothing', async ({ slow }) => {
	const redis = scripted()
	const channels = new Set<string>()
	let goOn: (() => void) | undefined
	const step = async (what: string): Promise<void> => {
		if (what === slow) await new Promise<void>((resolve) => (goOn = resolve))
	}
	const duplicate = Object.assign(new EventEmitter(), {
		connect: () => step('connect'),
		subscribe: async (channel: string) => {
			await step(channel.endsWith('books') ? 'books' : 'p')
			channels.add(channel)
		},
		unsubscribe: async (channel: string) => {
			channels.delete(channel)
		},
	})
	Object.assign(redis.client, { unref() {}, duplicate: () => duplicate })
	const limiter = redis.make()
	const waiting = limiter.acquire()
	await vi.waitFor(() => expect(goOn).toBeDefined())
	limiter.close()
	await expect(waiting).rejects.toMatchObject({ reason: 'closed' })
	await limiter.onIdle()
	goOn?.()
	await sleep(100)
	expect([...channels]).toEqual([])
	expect(redis.calls).toEqual([])
})

test('closed between two attempts to join: it listens to nothing', async () => {
	const redis = scripted()
	const limiter = redis.make({ maxWait: 1_000 })
	let subscribed = 0
	const twice = new Promise<void>((resolve) => {
		redis.answers.subscribe = () => {
			if (++subscribed === 2) resolve()
			throw new Error('refused')
		}
	})
	const waiting = limiter.acquire()
	await twice
	// It pauses now, for longer.
	await sleep(1)
	limiter.close()
	await expect(waiting).rejects.toMatchObject({ reason: 'closed' })
	await sleep(300)
	expect(subscribed).toBe(2)
})

test('resized after it was closed: it does not join again', async () => {
	const redis = scripted()
	const limiter = redis.make()
	await limiter.run(() => {})
	limiter.close()
	await limiter.onIdle()
	const asked = redis.calls.length
	await limiter.resize(3)
	await sleep(20)
	expect(redis.calls).toHaveLength(asked)
	expect(limiter.capacity).toBe(3)
})

test('with many permits, Redis has the time to be told of all', async () => {
	const redis = scripted({ capacity: 5_000 })
	const limiter = redis.make({ capacity: 5_000, lease: 10_000, redisTimeout: 50 })
	const permits = await Promise.all(Array.from({ length: 5_000 }, () => limiter.acquire()))
	const { join } = redis.answers
	const before = [redis.count('join'), redis.count('renew')] as const
	redis.answers.join = async (args) => {
		await sleep(150)
		return join?.(args)
	}
	redis.client.emit('end')
	// The first command after it has joined is a renewal.
	await vi.waitFor(() => expect(redis.count('renew')).toBeGreaterThan(before[1]), 5_000)
	expect(redis.count('join')).toBe(before[0] + 1)
	expect(permits.every(({ signal }) => !signal.aborted)).toBe(true)
	for (const permit of permits) permit.release()
})

test('node-redis subscribes twice to a channel that two limiters share: a message comes once', async () => {
	const listeners = new Set<(text: string, channel: string) => void>()
	const client = {
		evalSha: never,
		slots: [],
		sSubscribe: async (_: string, listener: () => void) => listeners.add(listener),
	}
	const heard: string[] = []
	const driver = driverOf(client as unknown as RedisClient, (...message) => heard.push(...message))
	await Promise.all([driver.listen('books'), driver.listen('books')])
	for (const listener of listeners) listener('opened', 'books')
	expect(heard).toEqual(['books', 'opened'])
})

test('ioredis is told of more permits than fit on the stack', async () => {
	const client = { evalsha: never, eval: async (...args: unknown[]) => args.flat().length }
	const { eval: tell } = driverOf(client as unknown as RedisClient, () => {})
	expect(await tell('script', ['key'], new Array(300_000).fill('a'))).toBe(300_003)
})

/** The same client as one of a cluster, with channels of shards. */
function inCluster(redis: ReturnType<typeof scripted>) {
	const sSubscribe = vi.fn(redis.client.subscribe)
	const sUnsubscribe = vi.fn(redis.client.unsubscribe)
	Object.assign(redis.client, { slots: [], sSubscribe, sUnsubscribe })
	return { sSubscribe, sUnsubscribe }
}

test('in a cluster: no process joins that the shard does not see listen; in the end the client is told to subscribe again', async () => {
	const redis = scripted()
	const { sSubscribe, sUnsubscribe } = inCluster(redis)
	const { join } = redis.answers
	redis.answers.join = (args) => (sSubscribe.mock.calls.length < 2 ? ['unheard'] : join?.(args))
	sUnsubscribe.mockRejectedValueOnce(new Error('no such shard'))
	const limiter = redis.make({ redisTimeout: 2_000 })
	expect((await limiter.acquire()).token).toBe(1)
	expect(redis.count('join')).toBe(7)
	expect([sSubscribe.mock.calls.length, sUnsubscribe.mock.calls.length]).toEqual([2, 2])
	expect(redis.calls[0]?.[1]).toMatch(/^s/)
})

test('in a cluster: closed while the client subscribes again', async () => {
	const redis = scripted()
	const { sSubscribe, sUnsubscribe } = inCluster(redis)
	redis.answers.join = () => ['unheard']
	let subscribed: () => void = () => {}
	const limiter = redis.make({ redisTimeout: 2_000 })
	const waiting = limiter.acquire()
	await vi.waitFor(() => expect(sSubscribe).toHaveBeenCalledOnce())
	sSubscribe.mockImplementation(
		() =>
			new Promise((resolve) => {
				subscribed = resolve
			}),
	)
	await vi.waitFor(() => expect(sSubscribe).toHaveBeenCalledTimes(2), 2_000)
	const asked = redis.count('join')
	await vi.waitFor(() => expect(redis.count('join')).toBeGreaterThan(asked + 5), 2_000)
	expect(sSubscribe).toHaveBeenCalledTimes(2)
	limiter.close()
	await expect(waiting).rejects.toMatchObject({ reason: 'closed' })
	await vi.waitFor(() => expect(sUnsubscribe).toHaveBeenCalledTimes(2))
	subscribed()
	await vi.waitFor(() => expect(sUnsubscribe).toHaveBeenCalledTimes(3))
})

test('a channel that could not be left is left later, up to ten times', async () => {
	vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
	try {
		const redis = scripted()
		const unsubscribe = vi.spyOn(redis.client, 'unsubscribe')
		unsubscribe.mockRejectedValueOnce(new Error('lost')).mockRejectedValueOnce(new Error('lost'))
		for (const times of [3, 13]) {
			const limiter = redis.make()
			await limiter.run(() => {})
			limiter.close()
			await limiter.onIdle()
			// What is decided in an immediate is so between two seconds of the clock, however busy the
			// machine.
			for (let second = 0; second < 60; second++) {
				await vi.advanceTimersByTimeAsync(1_000)
				await new Promise(setImmediate)
			}
			expect(unsubscribe).toHaveBeenCalledTimes(times)
			unsubscribe.mockRejectedValue(new Error('closed'))
		}
	} finally {
		vi.useRealTimers()
	}
})

test('a signal that still calls a removed listener takes no permit away', async () => {
	const redis = scripted()
	const limiter = redis.make()
	let listener: { handleEvent(): void } | undefined
	const signal = {
		aborted: false,
		reason: undefined,
		addEventListener: (_: string, given: { handleEvent(): void }) => {
			listener = given
		},
		removeEventListener() {},
	}
	const permit = await limiter.acquire({ signal: signal as never })
	listener?.handleEvent()
	expect(limiter).toMatchObject({ active: 1, queued: 0 })
	permit.release()
	expect(limiter.active).toBe(0)
})

test.each(Object.keys(oddSignals))('no permit is lost to a signal that %s', async (how) => {
	const redis = scripted()
	const limiter = redis.make({ key: () => 'a' })
	await limiter.run(() => {}, { key: 'a' })
	const admission = limiter.acquire({ key: 'a', signal: oddSignals[how]?.() as never })
	const permit = await admission.catch(() => undefined)
	permit?.release()
	await limiter.onIdle()
	expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0, available: true })
	expect(redis.count('release')).toBe(redis.count('acquire'))
})

const ODD: unknown[] = [
	...[
		null,
		undefined,
		0,
		1,
		-1,
		5,
		Number.NaN,
		'',
		'OK',
		'QUEUED',
		'granted',
		'rejoin',
		true,
		false,
		{},
		new Error('x'),
	],
	...[
		[],
		[null],
		['OK'],
		['QUEUED'],
		['granted'],
		['granted', 1],
		['granted', 1, 1, 1],
		['rejoin', 1],
		[['granted', 1, 1]],
	],
	...[
		null,
		undefined,
		'',
		'x',
		Number.NaN,
		0,
		-1,
		1.5,
		2 ** 53,
		'1e3',
		'0x1',
		' 1',
		[],
		[1],
		{},
		true,
	].map((odd) => ['granted', odd, 1]),
	...[null, '', -1, 0.5, Number.POSITIVE_INFINITY, [], {}].map((odd) => ['granted', 1, odd]),
	...[null, -1, [], 'x'].flatMap((odd) => [
		['queued', odd, 0, 1],
		['queued', 0, odd, 1],
		['queued', 0, 0, odd],
		['full', odd, 0],
		['full', 0, odd],
	]),
	['full'],
	['queued', 1],
	['joined'],
	['renewed'],
	['ok'],
	Object.assign(Object.create(null), { length: 3, 0: 'granted', 1: 1, 2: 1 }),
]

test.each(['acquire', 'renew', 'join'])(
	'an answer to %s that is none is an error of Redis, and never a permit',
	async (operation) => {
		async function meet(odd: unknown): Promise<void> {
			const redis = scripted()
			const limiter = redis.make({ redisTimeout: 500, whenUnavailable: 'reject' })
			if (operation !== 'join') await limiter.run(() => {})
			const right = redis.answers[operation]
			redis.answers[operation] = () => odd
			// Before the first command of a session without waiters, a renewal.
			if (operation === 'renew') redis.client.emit('reconnecting')
			const outcome = await limiter.acquire({ maxWait: 5_000 }).then(
				({ token }) => token,
				({ reason }) => reason,
			)
			if (operation === 'renew') {
				// It was admitted by the acquire that was the first command.
				expect(outcome).toBe(2)
			} else {
				expect(`${outcome},${limiter.active}`, inspect(odd)).toBe('unavailable,0')
			}
			redis.answers[operation] = right as () => unknown
			limiter.close()
		}
		await Promise.all(ODD.map(meet))
	},
)

test('odd answers to releases, resizes and leaves: the session ends, and what is held counts', async () => {
	for (const odd of [null, 'OK', 'QUEUED', ['ok', -1], ['ok', 'x'], [], 7]) {
		const redis = scripted()
		const limiter = redis.make({ redisTimeout: 1_000 })
		const [one, other] = [await limiter.acquire(), await limiter.acquire()]
		const { release } = redis.answers
		redis.answers.release = () => odd
		one.release()
		await vi.waitFor(() => expect(redis.count('join')).toBe(2))
		redis.answers.release = release as () => unknown
		// Only what is still held.
		expect(redis.calls.filter(([name]) => name === 'join').at(-1)?.length).toBe(14 + 2)
		for (const name of ['resize', 'leave']) redis.answers[name] = () => odd
		await limiter.resize(3)
		other.release()
		limiter.close()
		await limiter.onIdle()
	}
})

test('numbers as strings, as a client can be told to give them, are numbers', async () => {
	const redis = scripted()
	redis.answers.acquire = () => ['granted', '12', '1']
	expect((await redis.make().acquire()).token).toBe(12)
})

test('text as bytes, as a client can be told to give it, is text', async () => {
	const redis = scripted()
	for (const [operation, answer] of Object.entries(redis.answers)) {
		redis.answers[operation] = (args) => {
			const values = answer(args)
			if (!Array.isArray(values)) return values
			return values.map((value) => (typeof value === 'string' ? Buffer.from(value) : value))
		}
	}
	const limiter = redis.make()
	const permit = await limiter.acquire()
	expect([permit.token, limiter.available]).toEqual([1, true])
	permit.release()
	redis.answers.acquire = () => [Buffer.from('rejoin')]
	const again = limiter.acquire()
	await vi.waitFor(() => expect(redis.count('join')).toBe(2))
	redis.answers.acquire = () => [Buffer.from('granted'), Buffer.from('7'), 1]
	expect((await again).token).toBe(7)
})
