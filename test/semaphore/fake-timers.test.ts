import { afterEach, describe, expect, test, vi } from 'vitest'
import { enter } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import { Semaphore } from '../../src/semaphore/semaphore.js'
import { settle } from '../support/gate.js'

const HOUR = 3_600_000

afterEach(() => {
	vi.useRealTimers()
	vi.restoreAllMocks()
})

/** Says why a wait was rejected, or `admitted`. */
function outcome(wait: Promise<unknown>): Promise<string> {
	return wait.then(
		() => 'admitted',
		(error) => error.reason,
	)
}

describe('under fake timers', () => {
	test.each([
		['all', undefined],
		['only those of Jest’s legacy timers', ['setTimeout', 'clearTimeout'] as const],
		['all but the clock', ['setTimeout', 'clearTimeout', 'setImmediate', 'Date'] as const],
	])('a wait ends when its time has passed, not before (%s)', async (_, toFake) => {
		vi.useFakeTimers(toFake && { toFake: [...toFake] })
		const semaphore = new Semaphore(1)
		await semaphore.acquire()
		let said = ''
		outcome(semaphore.acquire({ maxWait: HOUR })).then((reason) => {
			said = reason
		})
		await vi.advanceTimersByTimeAsync(HOUR - 1)
		expect(said).toBe('')
		await vi.advanceTimersByTimeAsync(1)
		expect(said).toBe('timeout')
	})

	test('a waiter is admitted at the last moment', async () => {
		vi.useFakeTimers()
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		const waiting = semaphore.acquire({ maxWait: HOUR })
		vi.advanceTimersByTime(HOUR - 1)
		held?.release()
		expect((await waiting).waited).toBe(HOUR - 1)
	})

	test('setSystemTime moves the date, and ends no wait', async () => {
		vi.useFakeTimers()
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		const waiting = semaphore.acquire({ maxWait: 100 })
		vi.setSystemTime(Date.now() + HOUR)
		held?.release()
		expect((await waiting).waited).toBe(0)
	})
})

describe('fake timers that are switched during a wait', () => {
	test('on: the wait goes on, and ends in real time', async () => {
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		const first = semaphore.acquire({ maxWait: 1_000 })
		const second = outcome(semaphore.acquire({ maxWait: 30 }))
		vi.useFakeTimers()
		expect(await second).toBe('timeout')
		held?.release()
		expect((await first).waited).toBeLessThan(1_000)
	})

	test.each([-1, 1])(
		'off, with the clock an hour ahead or behind (%i): the wait goes on',
		async (sign) => {
			vi.useFakeTimers({ now: 0 })
			const semaphore = new Semaphore(1)
			// The fake clock goes from 0, the real one from the start of the process.
			vi.advanceTimersByTime(sign > 0 ? HOUR : 0)
			const held = semaphore.tryAcquire()
			const waiting = semaphore.acquire({ maxWait: 1_000 })
			vi.useRealTimers()
			held?.release()
			const permit = await waiting
			expect(permit.waited).toBeGreaterThanOrEqual(0)
			expect(permit.waited).toBeLessThan(1_000)
		},
	)

	test('off: a wait whose fake timer can’t fire any more still gets its permit', async () => {
		vi.useFakeTimers()
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		const waiting = semaphore.acquire({ maxWait: 20 })
		vi.useRealTimers()
		await new Promise((resolve) => setTimeout(resolve, 40))
		held?.release()
		;(await waiting).release()
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
	})

	test('a timer that outlives its wait does nothing to the permit', async () => {
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		const waiting = semaphore.acquire({ maxWait: 20 })
		// The fake `clearTimeout` does not stop the real timer, and warns.
		vi.spyOn(console, 'warn').mockReturnValue()
		vi.useFakeTimers()
		held?.release()
		const permit = await waiting
		vi.useRealTimers()
		await new Promise((resolve) => setTimeout(resolve, 40))
		expect([semaphore.active, semaphore.queued]).toEqual([1, 0])
		permit.release()
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
	})

	test('many times, and under other fakes than before: the pace stays a number', async () => {
		const semaphore = new Semaphore(1, { maxQueue: 1 })
		for (let i = 0; i < 6; i++) {
			if (i % 3 === 2) vi.useRealTimers()
			else vi.useFakeTimers()
			if (vi.isFakeTimers()) vi.advanceTimersByTime(i % 2 === 0 ? 1_000 * HOUR : 1)
			const held = semaphore.tryAcquire()
			const waiting = semaphore.acquire({ maxWait: 5_000 })
			if (vi.isFakeTimers()) vi.advanceTimersByTime(1_500)
			await expect(semaphore.acquire()).rejects.toMatchObject({ reason: 'queue-full' })
			const { retryAfter } = await semaphore.acquire().catch((error) => error)
			expect(Number.isInteger(retryAfter) && retryAfter >= 1 && retryAfter <= 60).toBe(true)
			held?.release()
			;(await waiting).release()
		}
	})

	test('a limiter in adaptive order rejects nobody for it', async () => {
		// The fake clock begins at 0, far behind the real one.
		vi.useFakeTimers()
		const limiter = new Limiter({ capacity: 1, order: 'adaptive', maxWait: 10_000 })
		const { signal } = new AbortController()
		const enterNext = (): Promise<unknown> => settle(limiter[enter]({}, signal))
		enterNext()
		const waiting = [enterNext(), enterNext()]
		let rejected = 0
		vi.useRealTimers()
		waiting.push(enterNext())
		vi.useFakeTimers()
		waiting.push(enterNext())
		for (const each of waiting) each.catch(() => rejected++)
		for (let i = 0; i < 10; i++) await null
		expect([limiter.queued, rejected]).toEqual([4, 0])
	})
})

test('a clock that a spy makes jump times nobody out', async () => {
	const semaphore = new Semaphore(1)
	const held = semaphore.tryAcquire()
	const waiting = semaphore.acquire({ maxWait: 100 })
	vi.spyOn(performance, 'now').mockReturnValue(performance.now() + HOUR)
	held?.release()
	expect((await waiting).waited).toBeLessThan(100)
})
