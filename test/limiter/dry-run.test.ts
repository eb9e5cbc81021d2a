import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Clock } from '../../bench/overload/clock.js'
import { eventLoop } from '../../src/adaptive/event-loop.js'
import { aimd } from '../../src/adaptive/index.js'
import type { RejectionReason } from '../../src/errors.js'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter, type LimiterStats } from '../../src/limiter/limiter.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import { settle } from '../support/gate.js'

interface Request {
	at: number
	hold: number
	/** What it weighs after half of that time; `undefined`: as before. */
	later?: number | undefined
	weight: number
	priority: number
	user: string
	deadline: number
}

/** Random numbers from 0 to 1, the same each time. */
function seeded(seed: number): () => number {
	let state = seed
	return () => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
		return state / 2 ** 32
	}
}

/** Requests that come at random for 20 s, in bursts: with 5 permits, at times too many. */
function traffic(seed: number, weighing = false): Request[] {
	const random = seeded(seed)
	const exponential = (mean: number): number => -Math.log(1 - random()) * mean
	const requests: Request[] = []
	for (let at = 0; at < 20_000; ) {
		at += exponential(at % 5_000 < 2_500 ? 6 : 18)
		requests.push({
			at,
			hold: exponential(50),
			weight: random() < 0.2 ? 3 : 1,
			later: weighing && random() < 0.3 ? 1 + Math.floor(random() * 3) : undefined,
			priority: random() < 0.3 ? 1 : 0,
			user: 'aaaabbc'[Math.floor(random() * 7)] as string,
			deadline: 100 + exponential(300),
		})
	}
	return requests
}

const present = { aborted: false, addEventListener() {}, removeEventListener() {} }

/**
 * Lets the traffic come in simulated time, and returns the figures.
 *
 * @param late - by how much the timers of the limiter are late, in ms.
 */
async function figures(
	options: Partial<LimiterOptions<Request>>,
	requests: Request[],
	late = 0,
): Promise<LimiterStats> {
	const clock = new Clock()
	const limiter = new Limiter({
		capacity: 5,
		maxQueue: 40,
		maxWait: 300,
		...options,
	} as LimiterOptions)
	const come = async (request: Request): Promise<void> => {
		const deadline = Date.now() + request.deadline
		const stay = await settle(limiter[enter]({ ...request, deadline }, present))
		const { hold, later } = request
		if (later !== undefined) clock.at(clock.now + hold / 2, () => stay?.weigh?.(later))
		clock.at(clock.now + hold, () => stay?.leave('ok'))
	}
	for (const request of requests) clock.at(request.at, () => void come(request).catch(() => {}))
	clock.at(0, () => {
		const timer = setTimeout
		const tardy = (run: (arg: unknown) => void, ms: number, arg: unknown): unknown =>
			timer(() => run(arg), ms + late)
		Object.assign(globalThis, { setTimeout: tardy })
	})
	await clock.run(60_000, () => true)
	const stats = limiter.stats()
	expect(stats).toMatchObject({ active: 0, queued: 0, keys: 0 })
	return stats
}

const cases: [string, Partial<LimiterOptions<Request>>][] = [
	['first come, first served', {}],
	['nothing waits', { maxQueue: 0 }],
	['no wait is allowed', { maxWait: 0 }],
	['a long queue', { maxQueue: 1_000, maxWait: 5_000 }],
	['weights', { weight: ({ weight }) => weight }],
	['priorities', { priority: ({ priority }) => priority, lowerShare: 0.1 }],
	['fair shares', { fairBy: ({ user }) => user }],
	['shares by weight', { fairBy: ({ user }) => user, share: (flow) => (flow === 'b' ? 3 : 1) }],
	['newest first', { order: 'lifo' }],
	['adaptive order', { order: 'adaptive' }],
	['deadlines', { deadline: ({ deadline }) => deadline, maxWait: Number.POSITIVE_INFINITY }],
	['a limit for each key', { capacity: 2, key: ({ user }) => user }],
	[
		'a capacity for each key',
		{ capacity: (key) => (key === 'a' ? 4 : 1), key: ({ user }) => user },
	],
	['no limit', { capacity: Number.POSITIVE_INFINITY }],
]
describe('predicts what the limiter does when it enforces', () => {
	test.each(cases)('to the request: %s', async (_, options) => {
		const requests = traffic(1)
		const enforced = await figures(options, requests)
		const dry = await figures({ ...options, dryRun: true }, requests)
		expect(dry.rejected).toEqual(enforced.rejected)
		expect(dry.waits.mean).toBeCloseTo(enforced.waits.mean, 6)
		expect(dry.waits.p99).toBeCloseTo(enforced.waits.p99, 6)
		expect(dry.holds.mean).toBeCloseTo(enforced.holds.mean, 6)
		expect(dry).toMatchObject({ admitted: enforced.admitted, completed: enforced.admitted })
	})

	test('to the request: weights that change', async () => {
		const requests = traffic(3, true)
		for (const options of [{}, { fairBy: ({ user }: Request) => user }]) {
			const enforced = await figures(options, requests)
			const dry = await figures({ ...options, dryRun: true }, requests)
			expect(dry.rejected).toEqual(enforced.rejected)
			expect(dry.waits.mean).toBeCloseTo(enforced.waits.mean, 6)
			expect(dry.rejected.timeout).toBeGreaterThan(100)
		}
	})

	/** Up to 5 %, or 1 % of all requests. */
	function near(actual: number, expected: number, all: number): void {
		expect(Math.abs(actual - expected)).toBeLessThanOrEqual(Math.max(0.05 * expected, 0.01 * all))
	}

	test.each(cases)('within 5 %% if timers are late: %s', async (_, options) => {
		const requests = traffic(2)
		const late = 2
		const enforced = await figures(options, requests, late)
		const dry = await figures({ ...options, dryRun: true }, requests, late)
		near(dry.admitted, enforced.admitted, 0)
		for (const [reason, count] of Object.entries(enforced.rejected)) {
			near(dry.rejected[reason as RejectionReason], count, requests.length)
		}
		near(dry.waits.mean, enforced.waits.mean, 0)
		near(dry.holds.mean, enforced.holds.mean, 0)
	})
})

describe('a dry run', () => {
	interface Task {
		user?: string
		weight?: number
	}

	function enterNow(limiter: Limiter, request: Task = {}): Stay {
		const stay = limiter[enter](request, present)
		if (stay.tag !== 'admitted') throw new Error('not admitted at once')
		return stay
	}

	beforeEach(() => {
		vi.useFakeTimers()
	})

	afterEach(() => {
		vi.useRealTimers()
	})

	test('admits every request at once, and counts those that would wait or be rejected, marked as such', async () => {
		const limiter = new Limiter({ capacity: 1, maxQueue: 1, dryRun: true, name: 'reports' })
		const observer = { admitted: vi.fn(), rejected: vi.fn(), released: vi.fn() }
		limiter.observe(observer)
		const stays = [enterNow(limiter), enterNow(limiter), enterNow(limiter)]
		expect(stays).toMatchObject([{ waited: 0, queued: 0 }, { waited: 0 }, { waited: 0 }])
		expect(limiter.stats()).toMatchObject({
			name: 'reports (dry run)',
			dryRun: true,
			capacity: 1,
			active: 1,
			queued: 1,
			rejected: { 'queue-full': 1 },
		})
		await vi.advanceTimersByTimeAsync(100)
		for (const stay of stays) {
			stay.leave('ok')
			stay.leave('ok')
		}
		// The second one has waited for 100 ms, and is at work for 100 ms more.
		await vi.advanceTimersByTimeAsync(99)
		expect(limiter.active).toBe(1)
		await vi.advanceTimersByTimeAsync(1)
		expect(limiter.stats()).toMatchObject({
			active: 0,
			queued: 0,
			admitted: 2,
			completed: 2,
			waits: { count: 2, mean: 50, max: 100 },
			holds: { count: 2, mean: 100 },
		})
		const facts = { limiter: 'reports (dry run)', waited: 100 }
		expect(observer.admitted).toHaveBeenLastCalledWith({
			...facts,
			key: undefined,
			active: 1,
			queued: 0,
		})
		expect(observer.released).toHaveBeenLastCalledWith(
			expect.objectContaining({ ...facts, held: 100 }),
		)
		expect(observer.rejected).toHaveBeenCalledTimes(1)
	})

	test('counts one whose client left as such: while it would wait, and while it would be at work', async () => {
		const limiter = new Limiter({ capacity: 1, dryRun: true })
		const [first, second, third] = [enterNow(limiter), enterNow(limiter), enterNow(limiter)]
		second?.leave('abandoned')
		first?.leave('abandoned')
		await vi.advanceTimersByTimeAsync(10)
		third?.leave('ok')
		await vi.advanceTimersByTimeAsync(10)
		expect(limiter.stats()).toMatchObject({
			active: 0,
			queued: 0,
			abandoned: 1,
			completed: 1,
			rejected: { aborted: 1 },
		})
	})

	test('rejects a request whose client has left, as there is no work to do', () => {
		const limiter = new Limiter({ capacity: 1, dryRun: true })
		expect(limiter[enter]({}, { ...present, aborted: true })).toMatchObject({
			error: { reason: 'aborted' },
		})
	})

	test('rejects nothing after close(), and is idle when no request is at work', async () => {
		const limiter = new Limiter({ capacity: 1, dryRun: true, maxQueue: 1 })
		await limiter.onIdle()
		const stays = [enterNow(limiter), enterNow(limiter), enterNow(limiter)]
		limiter.close()
		stays.push(enterNow(limiter))
		let idle = false
		limiter.onIdle().then(() => {
			idle = true
		})
		await vi.advanceTimersByTimeAsync(10)
		expect(limiter.stats().rejected).toMatchObject({ closed: 2, 'queue-full': 1 })
		for (const stay of stays) {
			expect(idle).toBe(false)
			stay.leave('ok')
			stay.leave('ok')
			await vi.advanceTimersByTimeAsync(0)
		}
		expect(idle).toBe(true)
	})

	test('checks a weight, and forgets it if the virtual request is rejected', () => {
		const limiter = new Limiter({ capacity: 1, maxQueue: 0, dryRun: true })
		const stays = [enterNow(limiter), enterNow(limiter)]
		for (const stay of stays) expect(() => stay.weigh?.(0)).toThrow(RangeError)
		for (const stay of stays) stay.weigh?.(2)
		expect(limiter.active).toBe(2)
		for (const stay of stays) stay.leave('ok')
		for (const stay of stays) stay.weigh?.(3)
		expect(limiter.active).toBe(0)
	})

	test('resize admits virtual requests', async () => {
		const limiter = new Limiter({ capacity: 1, dryRun: true })
		enterNow(limiter)
		enterNow(limiter)
		limiter.resize(2)
		expect(limiter.stats()).toMatchObject({ capacity: 2, active: 2, queued: 0 })
	})

	test('counts what comes while the event loop is late, and admits it', () => {
		vi.spyOn(eventLoop, 'isLate').mockReturnValue(true)
		const limiter = new Limiter({ capacity: 1, dryRun: true, eventLoop: true })
		enterNow(limiter).leave('ok')
		expect(limiter.stats()).toMatchObject({ admitted: 0, rejected: { overloaded: 1 } })
		vi.restoreAllMocks()
	})

	test('keeps no process alive, neither by the end nor by the wait of a virtual request', async () => {
		vi.useRealTimers()
		const timers = (): number =>
			process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
		const before = timers()
		const limiter = new Limiter({ capacity: 1, dryRun: true })
		const [first, second] = [enterNow(limiter), enterNow(limiter), enterNow(limiter)]
		const begin = performance.now()
		while (performance.now() - begin < 5);
		second?.leave('ok')
		first?.leave('ok')
		await null
		await new Promise(setImmediate)
		expect(limiter.active).toBe(1)
		expect(timers()).toBe(before)
	})

	test('shows clients nothing, and cuts none off', () => {
		const limiter = new Limiter({
			capacity: 1,
			dryRun: true,
			serverTiming: true,
			rateLimitFields: true,
		})
		expect(limiter).toMatchObject({
			serverTiming: false,
			rateLimitFields: false,
			stallTimeout: Infinity,
		})
	})

	test('takes part in run() and acquire()', async () => {
		const limiter = new Limiter({ capacity: 1, maxQueue: 0, dryRun: true })
		const permit = await limiter.acquire()
		await limiter.run(({ waited }) => expect(waited).toBe(0))
		permit.release()
		expect(limiter.stats()).toMatchObject({ active: 0, admitted: 1, rejected: { 'queue-full': 1 } })
	})

	test('keeps no key whose virtual requests are over', async () => {
		const limiter = new Limiter({
			capacity: 1,
			maxQueue: 1,
			dryRun: true,
			key: (request) => (request as Task).user,
		})
		for (let i = 0; i < 100; i++) {
			for (let n = 0; n < 3; n++) enterNow(limiter, { user: `${i % 7}` }).leave('ok')
		}
		await vi.advanceTimersByTimeAsync(10)
		expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0 })
	})

	test('can’t know what a controller would find', () => {
		expect(() => new Limiter({ capacity: aimd(), dryRun: true })).toThrow(
			'capacity with dryRun must be an integer from 1, Infinity, or a function of the key; got an object: what a controller finds depends on what it lets through',
		)
	})
})
