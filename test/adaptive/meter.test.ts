import { expect, test } from 'vitest'
import { randomFrom } from '../../bench/overload/random.js'
import type { Sample } from '../../src/adaptive/index.js'
import { type Measurement, Meter } from '../../src/adaptive/meter.js'

/**
 * What a meter says of requests that end one after the other, each so many ms after the one before.
 */
function measured(
	meter: Meter,
	from: number,
	ends: (i: number) => { after: number } & Partial<Sample>,
) {
	let now = from
	for (let i = 0; i < 10_000; i++) {
		const { after, ...sample } = ends(i)
		now += after
		const seen = meter.add({
			held: 10,
			active: meter.limit,
			queued: 1,
			abandoned: 0,
			outcome: 'ok',
			...sample,
			now,
		})
		if (seen !== undefined) return { seen, now, count: i + 1 }
	}
	return undefined
}

function complete(result: ReturnType<typeof measured>): {
	seen: Measurement
	now: number
	count: number
} {
	if (result === undefined) throw new Error('nothing was measured')
	return result
}

test('hold times that vary little tell the rate by Little’s law, after few requests', () => {
	const meter = new Meter(10)
	meter.begin(10, 300, 0, false)
	const first = complete(measured(meter, 0, () => ({ after: 2, held: 20 })))
	expect(first.seen.rate).toBeCloseTo(0.5, 5)
	expect(first.seen).toMatchObject({ active: 10, held: 20, late: 0, full: true })
	meter.begin(20, 0, 0, false)
	// Those that began before, twenty of them, do not count.
	const { seen, count } = complete(measured(meter, first.now, () => ({ after: 2, held: 40 })))
	expect(count).toBeGreaterThan(20)
	expect(seen.rate).toBeCloseTo(0.5, 1)
	expect(count).toBeLessThan(60)
	expect(seen.variance).toBeLessThan(0.05)
})

test('requests that began together and end together are at work for all the time before', () => {
	const meter = new Meter(10)
	// Ten at once, each 20 ms: as each of them ends, there is one less.
	const { seen } = complete(
		measured(meter, 0, (i) => ({
			after: i % 10 === 0 ? 20 : 0,
			held: 20,
			active: 10 - (i % 10),
			queued: i % 10 === 0 ? 1 : 0,
		})),
	)
	expect(seen.active).toBe(10)
	expect(seen.rate).toBeCloseTo(0.5, 5)
})

test('time without requests does not count', () => {
	const meter = new Meter(10)
	meter.begin(10, 20, 0, false)
	const { seen } = complete(
		measured(meter, 1e6, (i) => (i % 10 === 0 ? { after: 1e6, active: 1 } : { after: 2 })),
	)
	expect(seen.active).toBeGreaterThan(5)
})

test('where fast and slow ones are mixed, answers are counted', () => {
	const meter = new Meter(10)
	meter.begin(10, 0, 0, false)
	// One in ten takes ten times as long: the hold times say nothing of the rate, one in 3 ms.
	const { seen, count } = complete(
		measured(meter, 0, (i) => ({ after: 3, held: i % 10 === 0 ? 100 : 10 })),
	)
	expect(seen.rate).toBeCloseTo(1 / 3, 5)
	expect(count).toBeGreaterThan(20)
})

test('only good answers count for the rate; those that are late are told as a part', () => {
	const outcomes = ['ok', 'client-error', 'server-error', 'abandoned'] as const
	const { seen } = complete(
		measured(new Meter(10), 0, (i) => ({
			after: 2,
			held: 20,
			outcome: outcomes[i % 4] as Sample['outcome'],
		})),
	)
	expect(seen.rate).toBeGreaterThan(0.2)
	expect(seen.rate).toBeLessThan(0.3)
	expect(seen.late).toBeCloseTo(0.25, 1)
	const none = complete(measured(new Meter(10), 0, () => ({ after: 2, outcome: 'server-error' })))
	expect(none.seen.rate).toBe(0)
})

test('when most come too late, half as many as the limit tell it', () => {
	const { seen, count } = complete(
		measured(new Meter(100), 1000, (i) => ({
			after: 10,
			held: i % 10 === 0 ? 100 : 10,
			outcome: 'abandoned',
		})),
	)
	expect(seen.late).toBe(1)
	expect(count).toBe(50)
})

test('a limit that is hardly ever reached is told', () => {
	const { seen } = complete(measured(new Meter(10), 0, () => ({ after: 2, active: 4, queued: 0 })))
	expect([seen.full, seen.active]).toEqual([false, 4])
})

test('it gives up when it takes much longer than at the rate before', () => {
	const meter = new Meter(10)
	const { now } = complete(measured(meter, 0, () => ({ after: 2, held: 20 })))
	meter.begin(40, 0, 0.5, false)
	// One in 20 ms, and none of them began at this limit.
	const { seen, count } = complete(measured(meter, now, () => ({ after: 20, held: 1e9 })))
	expect(count).toBeLessThan(40)
	expect(seen.rate).toBeCloseTo(1 / 20, 2)
})

test.each([
	['higher', 40],
	['lower', 10],
])('the short ones, which end first, do not make a %s limit look better', (_name, other) => {
	const random = randomFrom(1)
	const meter = new Meter(20)
	let now = 0
	const atWork: { since: number; end: number }[] = []
	/** The next measurement, where each takes from 5 to 35 ms, whatever the limit. */
	const next = (limit: number): Measurement => {
		meter.begin(limit, 0, 0, false)
		for (;;) {
			while (atWork.length < limit) {
				atWork.push({ since: now, end: now + 5 + 30 * random.next() ** 2 })
			}
			atWork.sort((a, b) => a.end - b.end)
			const { since, end } = atWork.shift() as (typeof atWork)[number]
			now = end
			const active = atWork.length + 1
			const seen = meter.add({
				held: now - since,
				active,
				queued: 1,
				abandoned: 0,
				outcome: 'ok',
				now,
			})
			if (seen !== undefined) return seen
		}
	}
	let sum = 0
	for (let i = 0; i < 100; i++) {
		for (let j = 0; j < 3; j++) next(20)
		sum += next(other).rate
	}
	// The mean is 15 ms.
	const ratio = sum / 100 / (other / 15)
	expect(ratio).toBeGreaterThan(0.93)
	expect(ratio).toBeLessThan(1.07)
})

test('in the start, as many as the limit are enough, however mixed they are', () => {
	const meter = new Meter(8)
	const { count } = complete(measured(meter, 0, (i) => ({ after: 30, held: i % 10 ? 10 : 100 })))
	expect(count).toBeLessThan(12)
})

test('after a fall, those that had waited in a long line do not make the new limit look late', () => {
	const meter = new Meter(16)
	meter.begin(4, 0, 0, false)
	// First those that are still at work, then those that had waited.
	const { seen } = complete(
		measured(meter, 1000, (i) => ({
			after: 10,
			held: i < 12 ? 500 : 9,
			active: Math.max(4, 16 - i),
			outcome: i < 16 ? 'abandoned' : 'ok',
		})),
	)
	expect(seen.late).toBe(0)
})
