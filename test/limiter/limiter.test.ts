import { afterEach, describe, expect, test, vi } from 'vitest'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import type { AbortSignalLike } from '../../src/semaphore/signals.js'
import { settle } from '../support/gate.js'
import { oddSignals } from '../support/signals.js'

afterEach(() => {
	vi.useRealTimers()
})

interface Request {
	user?: string | undefined
	weight?: number
}

const present = new AbortController().signal

/** Enters; what becomes of it is known after `await`. */
async function come(
	limiter: Limiter,
	request: Request = {},
	signal = present,
): Promise<Stay | undefined> {
	return settle(limiter[enter](request, signal))
}

/** Enters at once. */
function enterNow(limiter: Limiter, request: Request = {}): Stay {
	const stay = limiter[enter](request, present)
	if (stay.tag !== 'admitted') throw new Error('not admitted at once')
	return stay
}

function keyed(options?: Partial<LimiterOptions<Request>>): Limiter {
	return new Limiter({
		capacity: 1,
		key: (request) => (request as Request).user,
		...options,
	} as LimiterOptions)
}

describe('a capacity for each key', () => {
	test('each key has its own, which no other key can use', () => {
		const limiter = keyed({ capacity: (key) => ({ ada: 3, bob: 1 })[key] ?? 2, maxQueue: 0 })
		const admitted = (user: string): number => {
			let count = 0
			while (limiter[enter]({ user }, present).tag === 'admitted') count++
			return count
		}
		expect([admitted('ada'), admitted('bob'), admitted('eve')]).toEqual([3, 1, 2])
		expect(limiter.stats()).toMatchObject({ capacity: null, active: 6, keys: 3 })
		expect(limiter.capacity).toBe(Number.POSITIVE_INFINITY)
	})

	test('what it returns takes effect with the next request of the key', async () => {
		let plan = 1
		const limiter = keyed({ capacity: () => plan })
		const resized = vi.fn()
		limiter.observe({ resized })
		const first = enterNow(limiter, { user: 'ada' })
		const second = come(limiter, { user: 'ada' })
		expect(limiter.queued).toBe(1)
		plan = 3
		// It goes behind the one that waits, and both are admitted.
		const third = await come(limiter, { user: 'ada' })
		expect(resized.mock.calls).toEqual([[{ limiter: 'default', key: 'ada', capacity: 3 }]])
		expect([limiter.active, limiter.queued]).toEqual([3, 0])
		plan = 1
		const fourth = come(limiter, { user: 'ada' })
		first.leave('ok')
		third?.leave('ok')
		expect([limiter.active, limiter.queued]).toEqual([1, 1])
		;(await second)?.leave('ok')
		;(await fourth)?.leave('ok')
		expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0 })
	})

	test('a rejection and an admission tell of the capacity of the key', () => {
		const limiter = keyed({ capacity: () => 1, maxQueue: 0 })
		expect(enterNow(limiter, { user: 'ada' }).capacity).toBe(1)
		expect(limiter[enter]({ user: 'ada' }, present)).toMatchObject({
			error: { capacity: 1, active: 1 },
		})
	})

	test('a function that fails costs no permit, and says what is wrong', () => {
		let plan: unknown = 0
		const limiter = keyed({ capacity: () => plan as number })
		const wrong = 'what capacity returns must be an integer from 1, or Infinity; got 0'
		expect(() => enterNow(limiter, { user: 'ada' })).toThrow(wrong)
		plan = 1
		const stay = enterNow(limiter, { user: 'ada' })
		plan = undefined
		expect(() => enterNow(limiter, { user: 'ada' })).toThrow('what capacity returns')
		stay.leave('ok')
		expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0 })
	})

	test('needs a key, and can’t be resized for all keys', () => {
		expect(() => new Limiter({ capacity: () => 3 })).toThrow(
			'a function of the key needs the option key',
		)
		expect(() => keyed({ capacity: () => 3 }).resize(2)).toThrow(
			'the capacity is a function of the key',
		)
	})

	test('resize(key, n) changes the capacity of one key at once, until its next request', async () => {
		let plan = 1
		const limiter = keyed({ capacity: () => plan })
		const resized = vi.fn()
		limiter.observe({ resized })
		const stays = ['ada', '7'].map((user) => enterNow(limiter, { user }))
		const waiting = ['ada', '7', '7'].map((user) => come(limiter, { user }))
		limiter.resize('ada', 2)
		stays.push((await waiting[0]) as Stay)
		expect([limiter.active, limiter.queued]).toEqual([3, 2])
		limiter.resize(7, 3)
		limiter.resize(7n, 3)
		for (const each of waiting.slice(1)) stays.push((await each) as Stay)
		limiter.resize('nobody', 9)
		expect(resized.mock.calls.map(([{ key, capacity }]) => [key, capacity])).toEqual([
			['ada', 2],
			['7', 3],
		])
		// What the function returns is valid again, and holds the next one back.
		const last = come(limiter, { user: 'ada' })
		expect([limiter.active, limiter.queued]).toEqual([5, 1])
		expect(resized).toHaveBeenLastCalledWith({ limiter: 'default', key: 'ada', capacity: 1 })
		plan = 2
		for (const stay of stays) stay.leave('ok')
		;(await last)?.leave('ok')
		expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0 })
	})

	test.each([
		['ada', 0, new RangeError('capacity must be an integer from 1, or Infinity; got 0')],
		['ada', null, new TypeError('capacity must be an integer from 1, or Infinity; got null')],
		[undefined, 3, new TypeError('key must be a string, a number or a bigint; got undefined')],
	])('resize(%o, %o) is an error', (key, capacity, { name, message }) => {
		const limiter = keyed({ capacity: () => 3 })
		expect(() => limiter.resize(key as string, capacity as number)).toThrow(
			expect.objectContaining({ name, message }),
		)
	})

	test('resize(key, n) needs a capacity for each key', () => {
		expect(() => keyed({ capacity: 3 }).resize('ada', 2)).toThrow(
			expect.objectContaining({
				code: 'ERR_INFLIGHT_CAPACITY_FOUND',
				message: 'resize must not be called: the capacity is no function of the key',
			}),
		)
	})
})

describe('unless it is told otherwise', () => {
	test('a thousand wait, for 10 s at most', async () => {
		vi.useFakeTimers()
		const limiter = new Limiter(1)
		enterNow(limiter)
		for (let i = 0; i < 1001; i++) come(limiter).catch(() => {})
		await vi.advanceTimersByTimeAsync(9_999)
		expect([limiter.queued, limiter.stats().rejected]).toMatchObject([
			1000,
			{ 'queue-full': 1, timeout: 0 },
		])
		await vi.advanceTimersByTimeAsync(1)
		expect([limiter.queued, limiter.stats().rejected]).toMatchObject([0, { timeout: 1000 }])
	})
})

describe('stats', () => {
	test('are plain JSON from the start', () => {
		const none = { count: 0, mean: 0, p50: 0, p90: 0, p99: 0, max: 0 }
		const stats = new Limiter({ capacity: 3, name: 'reports' }).stats()
		expect(stats).toEqual({
			name: 'reports',
			capacity: 3,
			active: 0,
			queued: 0,
			keys: 0,
			admitted: 0,
			completed: 0,
			abandoned: 0,
			rejected: {
				'queue-full': 0,
				timeout: 0,
				evicted: 0,
				closed: 0,
				overloaded: 0,
				aborted: 0,
				unavailable: 0,
			},
			waits: none,
			holds: none,
		})
		const unbounded = new Limiter(Number.POSITIVE_INFINITY).stats()
		expect(unbounded.capacity).toBe(null)
		expect(JSON.parse(JSON.stringify(unbounded))).toEqual(unbounded)
	})

	test('count the admitted, the completed, the abandoned, and the rejected by reason', async () => {
		vi.useFakeTimers()
		const limiter = new Limiter({ capacity: 1, maxQueue: 2, maxWait: 100 })
		const first = enterNow(limiter)
		const timedOut = come(limiter)
		const leaver = new AbortController()
		const left = come(limiter, {}, leaver.signal)
		await expect(come(limiter)).rejects.toMatchObject({ reason: 'queue-full' })
		leaver.abort('left')
		await expect(left).rejects.toMatchObject({ reason: 'aborted' })
		await vi.advanceTimersByTimeAsync(50)
		const waiting = come(limiter)
		const checked = expect(timedOut).rejects.toMatchObject({ reason: 'timeout' })
		await vi.advanceTimersByTimeAsync(50)
		await checked
		first.leave('abandoned')
		first.leave('ok')
		const second = await waiting
		expect(second).toMatchObject({ waited: 50, queued: 1 })
		await vi.advanceTimersByTimeAsync(20)
		second?.leave('ok')
		limiter.close()
		await expect(come(limiter)).rejects.toMatchObject({ reason: 'closed' })
		expect(limiter.stats()).toMatchObject({
			active: 0,
			queued: 0,
			admitted: 2,
			completed: 1,
			abandoned: 1,
			rejected: {
				'queue-full': 1,
				timeout: 1,
				evicted: 0,
				closed: 1,
				overloaded: 0,
				aborted: 1,
				unavailable: 0,
			},
			waits: { count: 2, mean: 25, max: 50 },
			holds: { count: 2, mean: 60, max: 100 },
		})
	})

	test('count a client that left before its request had to wait', async () => {
		const limiter = new Limiter(1)
		await expect(come(limiter, {}, AbortSignal.abort('gone'))).rejects.toMatchObject({
			reason: 'aborted',
		})
		expect(limiter.stats()).toMatchObject({ admitted: 0, rejected: { aborted: 1 } })
	})
})

test('a request whose client leaves just when the permit is handed over does not take it', async () => {
	const limiter = keyed()
	const first = enterNow(limiter, { user: 'a' })
	const leaver = new AbortController()
	const second = come(limiter, { user: 'a' }, leaver.signal)
	const third = come(limiter, { user: 'a' })
	first.leave('ok')
	leaver.abort('left')
	await expect(second).rejects.toMatchObject({ reason: 'aborted' })
	;(await third)?.leave('ok')
	expect(limiter.stats()).toMatchObject({
		active: 0,
		keys: 0,
		admitted: 2,
		rejected: { aborted: 1 },
	})

	const last = enterNow(limiter, { user: 'a' })
	const alone = new AbortController()
	const nobody = come(limiter, { user: 'a' }, alone.signal)
	last.leave('ok')
	alone.abort('left')
	await expect(nobody).rejects.toMatchObject({ reason: 'aborted' })
	expect(limiter.stats()).toMatchObject({ active: 0, keys: 0 })
})

describe('the functions', () => {
	test('skip lets a request through, uncounted', async () => {
		const limiter = new Limiter({
			capacity: 1,
			skip: (request) => (request as Request).user === 'probe',
		})
		expect(limiter[enter]({ user: 'probe' }, present)).toEqual({ tag: 'skipped' })
		expect(limiter.stats()).toMatchObject({ active: 0, admitted: 0 })
		enterNow(limiter)
	})

	test('skip: a promise fails the request, as it would pass for true', async () => {
		const limiter = new Limiter({ capacity: 1, skip: (async () => false) as never })
		expect(() => limiter[enter]({}, present)).toThrow(
			'what skip returns must be true or false; got a promise: find it in a middleware before this one',
		)
		expect(new Limiter({ capacity: 1, skip: () => 'yes' as never })[enter]({}, present)).toEqual({
			tag: 'skipped',
		})
	})

	test('weight is how many permits a request takes', async () => {
		const limiter = new Limiter({
			capacity: 3,
			weight: (request) => (request as Request).weight ?? 1,
		})
		const heavy = enterNow(limiter, { weight: 2 })
		expect(limiter.active).toBe(2)
		const waiting = come(limiter, { weight: 2 })
		expect(limiter.queued).toBe(1)
		heavy.leave('ok')
		;(await waiting)?.leave('ok')
		expect(limiter.active).toBe(0)
		await expect(come(limiter, { weight: 4 })).rejects.toThrow(RangeError)
		await expect(come(limiter, { weight: 0 })).rejects.toThrow(RangeError)
		expect(limiter.active).toBe(0)
	})

	test('key: what can be no key fails the request', async () => {
		const limiter = keyed()
		for (const user of [true, {}, Number.NaN] as never[]) {
			await expect(come(limiter, { user })).rejects.toThrow(
				/^what key returns must be a string, a number, a bigint, undefined or null; got /,
			)
		}
		expect(limiter.stats()).toMatchObject({ keys: 0, active: 0 })
	})

	test('one that throws takes no permit', async () => {
		const fail = (): never => {
			throw new Error('mine')
		}
		for (const options of [{ key: fail }, { weight: fail }, { skip: fail }]) {
			const limiter = new Limiter({ capacity: 1, ...options })
			await expect(come(limiter)).rejects.toThrow('mine')
			expect(limiter.stats()).toMatchObject({ active: 0, keys: 0 })
		}
	})
})

test('weigh changes what a request or a task holds, of its own key', async () => {
	const limiter = keyed({ capacity: 3 })
	const released = vi.fn()
	limiter.observe({ released })
	const stay = enterNow(limiter, { user: 'a' })
	stay.weigh?.(3)
	const waiting = come(limiter, { user: 'a' })
	enterNow(limiter, { user: 'b' }).leave('ok')
	expect([limiter.active, limiter.queued]).toEqual([3, 1])
	stay.weigh?.(2)
	await limiter.run(
		async (permit) => {
			permit.weigh(9)
			expect(limiter.active).toBe(12)
		},
		{ user: 'c' },
	)
	stay.leave('ok')
	stay.weigh?.(8)
	;(await waiting)?.leave('ok')
	expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0, completed: 4 })
	expect(released).toHaveBeenLastCalledWith(expect.objectContaining({ active: 0 }))
	expect(() => stay.weigh?.(0)).toThrow('weight must be an integer from 1; got 0')
	const skipped = await limiter.acquire({})
	skipped.weigh(2)
	expect(limiter.active).toBe(0)
})

describe('key', () => {
	test('each key has a limit and a queue of its own', async () => {
		const limiter = keyed({ maxQueue: 1 })
		const a = enterNow(limiter, { user: 'a' })
		const b = enterNow(limiter, { user: 'b' })
		const waiting = come(limiter, { user: 'a' })
		await expect(come(limiter, { user: 'a' })).rejects.toMatchObject({ reason: 'queue-full' })
		expect(limiter.stats()).toMatchObject({ active: 2, queued: 1, keys: 2 })
		a.leave('ok')
		;(await waiting)?.leave('ok')
		b.leave('ok')
		expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0 })
	})

	test('undefined is not limited', () => {
		const limiter = keyed()
		expect(limiter[enter]({}, present)).toEqual({ tag: 'skipped' })
		expect(limiter[enter]({}, present)).toEqual({ tag: 'skipped' })
		expect(limiter.stats()).toMatchObject({ admitted: 0, keys: 0 })
	})

	test('names of the language are keys like any other', async () => {
		const limiter = keyed({ maxQueue: 0 })
		for (const user of ['__proto__', 'constructor', 'toString', '']) {
			const stay = enterNow(limiter, { user })
			await expect(come(limiter, { user })).rejects.toMatchObject({ reason: 'queue-full' })
			stay.leave('ok')
			enterNow(limiter, { user }).leave('ok')
		}
		expect(limiter.stats().keys).toBe(0)
	})

	test('a million different keys leave nothing behind', () => {
		const limiter = keyed()
		for (let i = 0; i < 1_000_000; i++) enterNow(limiter, { user: `user ${i}` }).leave('ok')
		expect(limiter.stats()).toMatchObject({
			active: 0,
			keys: 0,
			admitted: 1_000_000,
			completed: 1_000_000,
		})
	})

	test('the status of a rejection is 429, else 503, unless it is given', () => {
		expect(new Limiter(1).statusCode).toBe(503)
		expect(keyed().statusCode).toBe(429)
		expect(keyed({ statusCode: 503 }).statusCode).toBe(503)
	})

	test('a new key begins with the pace of those before it', async () => {
		vi.useFakeTimers()
		const limiter = keyed({ maxQueue: 0 })
		const first = enterNow(limiter, { user: 'a' })
		await expect(come(limiter, { user: 'a' })).rejects.toMatchObject({ retryAfter: 1 })
		vi.advanceTimersByTime(5000)
		first.leave('ok')
		enterNow(limiter, { user: 'b' })
		await expect(come(limiter, { user: 'b' })).rejects.toMatchObject({ retryAfter: 5 })
	})

	test('resize, close and onIdle are for all keys, those to come included', async () => {
		const limiter = keyed()
		const a = enterNow(limiter, { user: 'a' })
		limiter.resize(2)
		expect(limiter.capacity).toBe(2)
		const more = [
			enterNow(limiter, { user: 'a' }),
			enterNow(limiter, { user: 'b' }),
			enterNow(limiter, { user: 'b' }),
		]
		const waiting = come(limiter, { user: 'b' })
		limiter.close()
		await expect(waiting).rejects.toMatchObject({ reason: 'closed' })
		await expect(come(limiter, { user: 'c' })).rejects.toMatchObject({ reason: 'closed' })
		let idle = false
		limiter.onIdle().then(() => {
			idle = true
		})
		for (const stay of more) stay.leave('ok')
		await new Promise(setImmediate)
		expect(idle).toBe(false)
		a.leave('ok')
		await new Promise(setImmediate)
		expect(idle).toBe(true)
		expect(limiter.stats()).toMatchObject({ active: 0, keys: 0 })
	})
})

test('a limiter is no options for another one: its key would be lost', () => {
	expect(() => new Limiter(keyed() as unknown as LimiterOptions)).toThrow(
		'options must be a capacity or an object of options; got an object: share it by limit(limiter)',
	)
})

test('resize, close and onIdle without keys', async () => {
	const limiter = new Limiter(1)
	await limiter.onIdle()
	const first = enterNow(limiter)
	const second = come(limiter)
	limiter.resize(2)
	await second
	const third = come(limiter)
	limiter.close()
	await expect(third).rejects.toMatchObject({ reason: 'closed' })
	const idle = limiter.onIdle()
	first.leave('ok')
	;(await second)?.leave('ok')
	await idle
})

describe('a key whose last request is over', () => {
	const atU = (limiter: Limiter, signal?: AbortSignal) =>
		limiter.acquire({ user: 'u' }, signal === undefined ? {} : { signal })

	test('its next one is counted, though a waiter of the one before has yet to learn that it left', async () => {
		const limiter = keyed({ capacity: 1 })
		const first = await atU(limiter)
		const leaver = new AbortController()
		const left = atU(limiter, leaver.signal)
		leaver.abort()
		first.release()
		const second = atU(limiter)
		await expect(left).rejects.toThrow()
		const permit = await second
		await new Promise(setImmediate)
		let admitted = false
		const third = atU(limiter).then((given) => {
			admitted = true
			return given
		})
		await new Promise(setImmediate)
		expect(admitted).toBe(false)
		expect(limiter.stats()).toMatchObject({ active: 1, queued: 1, keys: 1 })
		permit.release()
		const last = await third
		last.release()
		expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0 })
	})

	test('a function of the options can close the limiter at the first request of a key', async () => {
		const limiter = keyed({
			capacity: 1,
			weight: () => {
				limiter.close()
				return 1
			},
		})
		await expect(atU(limiter)).rejects.toMatchObject({ reason: 'closed' })
		expect(limiter.stats()).toMatchObject({ active: 0, keys: 0 })
	})

	test('an observer can close the limiter at the first request of a key', async () => {
		const limiter = keyed({ capacity: 1 })
		limiter.observe({ admitted: () => limiter.close() })
		const permit = await atU(limiter)
		await expect(atU(limiter)).rejects.toMatchObject({ reason: 'closed' })
		permit.release()
		expect(limiter.stats()).toMatchObject({ active: 0, keys: 0 })
	})
})

test.each(['key', 'skip'])('a request that %s itself has answered is not let through', (option) => {
	const limiter = new Limiter({
		capacity: 1,
		[option]: (request: { over: boolean }) => {
			request.over = true
			return option === 'skip' ? true : undefined
		},
	} as LimiterOptions<never>)
	const request = { over: false }
	const signal = {
		get aborted() {
			return request.over
		},
		addEventListener() {},
		removeEventListener() {},
	}
	expect(limiter[enter](request, signal)).toMatchObject({
		tag: 'rejected',
		error: { reason: 'aborted' },
	})
})

test.each(Object.keys(oddSignals))('no permit is lost to a signal that %s', async (how) => {
	const limiter = new Limiter({ capacity: 1, key: () => 'a' })
	const held = await limiter.acquire()
	const waiting = limiter.acquire({}, { signal: oddSignals[how]?.() as AbortSignalLike })
	held.release()
	const permit = await waiting.catch(() => undefined)
	permit?.release()
	expect(limiter.stats()).toMatchObject({ active: 0, queued: 0, keys: 0 })
})

test.each([{ signal: AbortSignal.abort() }, { maxWait: 10 }, { signal: undefined, maxWait: 10 }])(
	'options in place of the context: %o',
	async (options) => {
		const limiter = new Limiter(1)
		const message = 'options come after it, as in limiter.run(task, {}, { signal })'
		await expect(limiter.acquire(options)).rejects.toThrow(message)
		await expect(limiter.run(() => {}, options)).rejects.toThrow(message)
	},
)

test('a context may have a signal beside other things', async () => {
	const limiter = new Limiter({
		capacity: 1,
		weight: (context: object) => ('user' in context ? 1 : 0),
	})
	await limiter.run(() => {}, { user: 'u', signal: AbortSignal.abort() })
})
