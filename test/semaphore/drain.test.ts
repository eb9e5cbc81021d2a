import { describe, expect, test } from 'vitest'
import { Semaphore } from '../../src/semaphore/semaphore.js'

/** Keeps the event loop busy, as a synchronous handler does. */
function work(ms: number): void {
	const end = performance.now() + ms
	while (performance.now() < end);
}

/** Counts turns of the event loop, and looks at something in each. */
function eachTurn(look: () => void): { turns: number; longest: number; stop(): void } {
	let last = performance.now()
	const seen = { turns: 0, longest: 0, stop: () => clearImmediate(next) }
	let next = setImmediate(function turn() {
		seen.turns++
		seen.longest = Math.max(seen.longest, performance.now() - last)
		last = performance.now()
		look()
		next = setImmediate(turn)
	})
	return seen
}

async function turn(): Promise<void> {
	await new Promise((resolve) => setImmediate(resolve))
}

/**
 * A semaphore in the middle of a drain: `left` waiters, and permits that wait for the next turn of
 * the event loop.
 */
async function midDrain(
	capacity: number,
	left: number,
): Promise<{ semaphore: Semaphore; started: number[] }> {
	const semaphore = new Semaphore(capacity)
	const held = Array.from({ length: capacity }, () => semaphore.tryAcquire())
	const started: number[] = []
	// This keeps the loop busy for longer than a drain may.
	semaphore.run(() => work(15))
	for (let i = 0; i < left; i++) {
		semaphore.run(async () => {
			started.push(i)
			await turn()
		})
	}
	held[0]?.release()
	for (let i = 0; i < 50; i++) await null
	expect(started).toEqual([])
	return { semaphore, started }
}

describe('a queue that synchronous handlers drain', () => {
	test.each([1, 3, 100])(
		'yields to the event loop, in order, with all permits, at capacity %i',
		async (capacity) => {
			const semaphore = new Semaphore(capacity)
			const held = Array.from({ length: capacity }, () => semaphore.tryAcquire())
			const order: number[] = []
			const all = Array.from({ length: 300 }, (_, i) =>
				semaphore.run(() => {
					order.push(i)
					work(1)
				}),
			)
			await turn()
			const newcomers: Promise<unknown>[] = []
			const loop = eachTurn(() => {
				if (semaphore.queued === 0) return
				expect(semaphore.active).toBe(capacity)
				expect(semaphore.tryAcquire()).toBeUndefined()
				const id = 1_000 + newcomers.length
				newcomers.push(semaphore.run(() => order.push(id)))
			})
			for (const permit of held) permit?.release()
			await Promise.all(all)
			loop.stop()
			await Promise.all(newcomers)
			expect(order).toEqual(order.toSorted((a, b) => a - b))
			expect(order).toHaveLength(300 + newcomers.length)
			expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
			await semaphore.onIdle()
			// 300 ms of work.
			expect(loop.turns).toBeGreaterThan(9)
		},
	)

	test('a handler that takes longer than a drain may is followed by a turn of the loop', async () => {
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		const all = Array.from({ length: 10 }, () => semaphore.run(() => work(15)))
		await turn()
		const loop = eachTurn(() => {})
		held?.release()
		await Promise.all(all)
		loop.stop()
		expect(loop.turns).toBeGreaterThan(7)
	})

	test('heavy and light waiters', async () => {
		const semaphore = new Semaphore(4)
		const held = semaphore.tryAcquire({ weight: 4 })
		const order: number[] = []
		let atWork = 0
		const all = Array.from({ length: 60 }, (_, i) => {
			const weight = 1 + (i % 4)
			return semaphore.run(
				async () => {
					order.push(i)
					atWork += weight
					expect(atWork).toBeLessThanOrEqual(4)
					work(3)
					if (i % 3 === 0) await turn()
					atWork -= weight
				},
				{ weight },
			)
		})
		held?.release()
		await Promise.all(all)
		expect(order).toEqual(Array.from({ length: 60 }, (_, i) => i))
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
	})
})

describe('while a permit waits for the next turn of the event loop', () => {
	test('it counts as active, and neither a newcomer nor onIdle gets in between', async () => {
		const { semaphore, started } = await midDrain(1, 1)
		expect([semaphore.active, semaphore.queued, semaphore.available]).toEqual([1, 1, 0])
		expect(semaphore.tryAcquire()).toBeUndefined()
		let idle = false
		semaphore.onIdle().then(() => {
			idle = true
		})
		await null
		expect(idle).toBe(false)
		await turn()
		await null
		expect(started).toEqual([0])
		await semaphore.onIdle()
	})

	test('the waiters can leave, and the permit goes to the next', async () => {
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		semaphore.run(() => work(15))
		const aborter = new AbortController()
		const leaving = semaphore.acquire({ signal: aborter.signal }).catch((error) => error)
		const next = semaphore.acquire()
		held?.release()
		for (let i = 0; i < 50; i++) await null
		expect(semaphore.queued).toBe(2)
		aborter.abort('left')
		expect(await leaving).toBe('left')
		;(await next).release()
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
	})

	test('when all waiters leave, the permit is free at once', async () => {
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		semaphore.run(() => work(15))
		const aborter = new AbortController()
		const leaving = semaphore.acquire({ signal: aborter.signal }).catch((error) => error)
		held?.release()
		for (let i = 0; i < 50; i++) await null
		const idle = semaphore.onIdle()
		expect([semaphore.active, semaphore.queued]).toEqual([1, 1])
		aborter.abort('left')
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
		await idle
		expect(await leaving).toBe('left')
		expect(semaphore.tryAcquire()).toBeDefined()
		await turn()
		expect(semaphore.active).toBe(1)
	})

	test('a longest wait ends', async () => {
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		semaphore.run(() => work(15))
		const late = semaphore.acquire({ maxWait: 10 }).catch((error) => error.reason)
		held?.release()
		expect(await late).toBe('timeout')
		await semaphore.onIdle()
	})

	test('close rejects the waiters', async () => {
		const semaphore = new Semaphore(1)
		const held = semaphore.tryAcquire()
		semaphore.run(() => work(15))
		const waiting = semaphore.acquire().catch((error) => error.reason)
		held?.release()
		for (let i = 0; i < 50; i++) await null
		expect([semaphore.active, semaphore.queued]).toEqual([1, 1])
		semaphore.close()
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
		expect(await waiting).toBe('closed')
		await semaphore.onIdle()
	})

	test('resize upwards admits at once, and downwards takes the permit away', async () => {
		const up = await midDrain(1, 3)
		up.semaphore.resize(2)
		expect([up.semaphore.active, up.semaphore.queued]).toEqual([2, 2])
		await up.semaphore.onIdle()
		expect(up.started).toEqual([0, 1, 2])

		const down = await midDrain(1, 2)
		down.semaphore.resize(0)
		await turn()
		expect([down.semaphore.active, down.semaphore.queued]).toEqual([0, 2])
		down.semaphore.resize(1)
		await down.semaphore.onIdle()
		expect(down.started).toEqual([0, 1])
	})
})
