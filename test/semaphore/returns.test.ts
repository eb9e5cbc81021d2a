import { afterEach, expect, test, vi } from 'vitest'
import { meet } from '../../bench/overload/crowd.js'
import { Limiter } from '../../src/limiter/limiter.js'
import { Returns } from '../../src/semaphore/returns.js'
import { Semaphore } from '../../src/semaphore/semaphore.js'

afterEach(() => {
	vi.useRealTimers()
})

/**
 * What so many are told that are rejected at times from 0 to `time` ms, while a permit comes back
 * each `each` ms.
 */
function crowd(
	count: number,
	time: number,
	each: number,
	wanted = 0,
	returns = new Returns(0),
): number[] {
	return Array.from({ length: count }, (_, i) =>
		returns.promise(1, wanted, 0, each, (i * time) / count),
	)
}

/** How many come back in each second, from the first on. */
function perSecond(told: number[], time: number): number[] {
	const seconds: number[] = []
	for (const [i, after] of told.entries()) {
		const second = Math.floor((i * time) / told.length / 1000 + after)
		seconds[second] = (seconds[second] ?? 0) + 1
	}
	return Array.from(seconds, (count) => count ?? 0)
}

test('of a crowd, no more are told to come back in a second than can be done in it', () => {
	for (const [each, wanted] of [
		[5, 20],
		[5, 0],
		[5, 1000],
		[50, 10],
		[2000, 3],
	] as const) {
		const told = crowd(Math.floor(30_000 / each), 1000, each, wanted)
		// One more for each part of a second, as they are whole.
		for (const count of perSecond(told, 1000)) expect(count).toBeLessThanOrEqual(1000 / each + 16)
		expect(Math.min(...told)).toBe(Math.max(1, Math.ceil(((wanted + 1) * each) / 1000)))
	}
})

test('nor more at once than half of the queue takes, or a few', () => {
	// 200 permits a second come back, and 20 can wait: so up to 13 at a time, in each sixteenth of a
	// second.
	const told = crowd(600, 1000, 5, 20)
	const [first = 0] = perSecond(told.slice(0, 37), 1000).slice(1)
	expect(first).toBeGreaterThanOrEqual(12)
	expect(first).toBeLessThanOrEqual(14)
})

test('beyond a minute, they are spread over its second half', () => {
	const told = crowd(10_000, 200, 100)
	expect(Math.max(...told)).toBe(60)
	const last = told.slice(-2000)
	expect(Math.min(...last)).toBeGreaterThanOrEqual(30)
	const counts = Array.from(
		{ length: 30 },
		(_, i) => last.filter((after) => after === 31 + i).length,
	)
	for (const count of counts) expect(count).toBeGreaterThan(50)
	for (const count of counts) expect(count).toBeLessThan(150)
})

test('a promise is over when its time has come', () => {
	const returns = new Returns(0)
	expect(Math.max(...crowd(100, 100, 100, 0, returns))).toBeGreaterThan(10)
	expect(returns.promise(1, 0, 0, 100, 60_000)).toBe(1)
})

test('what newcomers took before is left to them', () => {
	// Three quarters of ten permits a second: so those told to come back get a quarter.
	const told = Array.from({ length: 20 }, () => 0)
	const returns = new Returns(0)
	for (const i of told.keys()) told[i] = returns.promise(1, 0, 75, 100, 10_000 + i)
	expect(told.at(-1)).toBeGreaterThanOrEqual(Math.floor(19 / 2.5))
	expect(told.at(-1)).toBeLessThanOrEqual(Math.ceil(20 / 2.5))
	// All that came, more than what can be done: a tenth.
	expect(new Returns(0).promise(1, 0, 1e6, 100, 10_000)).toBe(1)
})

test('whatever it is told, it says a whole number from 1 to 60', () => {
	const returns = new Returns(0)
	for (const each of [1e-9, 1e-3, 1, 1e5, 1e300]) {
		for (const [weight, wanted] of [
			[1, 0],
			[1e9, 1e9],
			[1, 1e300],
		] as const) {
			for (let i = 0; i < 100; i++) {
				const seconds = returns.promise(weight, wanted, 0, each, i * 97)
				expect(Number.isInteger(seconds) && seconds >= 1 && seconds <= 60).toBe(true)
			}
		}
	}
})

test('a caller that has left is not expected back, nor one that a closed semaphore rejected', async () => {
	vi.useFakeTimers()
	const limiter = new Limiter({ capacity: 1, maxQueue: 0 })
	const semaphore = new Semaphore(1, { maxQueue: 0 })
	for (const gate of [limiter, semaphore]) {
		const held = await gate.acquire()
		await expect(gate.acquire()).rejects.toMatchObject({ retryAfter: 1 })
		await vi.advanceTimersByTimeAsync(1000)
		held.release()
		await gate.acquire()
	}
	const told = async (gate: Limiter | Semaphore): Promise<number> =>
		(await gate.acquire().catch((error) => error)).retryAfter
	const first = [await told(semaphore), await told(semaphore), await told(semaphore)]
	expect(first).toEqual([1, 2, 3])
	semaphore.close()
	// All that comes is told of the pace alone.
	expect([await told(semaphore), await told(semaphore)]).toEqual([1, 1])
	expect(await told(limiter)).toBe(1)
	expect(await told(limiter)).toBe(2)
})

test('each key has its own crowd', async () => {
	vi.useFakeTimers()
	const limiter = new Limiter({
		capacity: 1,
		maxQueue: 0,
		key: (request) => (request as { user: string }).user,
	})
	const first = await limiter.acquire({ user: 'a' })
	await limiter.acquire({ user: 'b' })
	const told = async (user: string): Promise<number> =>
		(await limiter.acquire({ user }).catch((error) => error)).retryAfter
	await told('a')
	await vi.advanceTimersByTimeAsync(1000)
	first.release()
	const again = await limiter.acquire({ user: 'a' })
	expect([await told('a'), await told('a'), await told('a')]).toEqual([1, 2, 3])
	expect(await told('b')).toBe(1)
	again.release()
})

test.each([0.01, 0.5])(
	'in a crowd of six times the load, after %d times, most get in at their first return',
	async (base) => {
		const crowd = { base, burst: 6, seconds: 1 }
		const own = await meet(crowd)
		const before = await meet({ ...crowd, told: () => 1 })
		expect(before.rejections).toBeGreaterThan(2.9)
		expect(own.rejections).toBeLessThan(1.3)
		// Where a second begins depends on when the process did: so the figures differ a little.
		expect(own.firstReturn).toBeGreaterThan(0.85)
		expect(own.busy).toBeGreaterThan(before.busy - 0.12)
	},
)
