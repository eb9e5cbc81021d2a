import fc from 'fast-check'
import { expect, test } from 'vitest'
import { adaptive, aimd, type Sample } from '../../src/adaptive/index.js'
import { Prober } from '../../src/adaptive/prober.js'

/** A prober, and the requests that end under it: at the full limit, unless something else is said. */
function probed(min: number, max: number, initial: number) {
	const prober = new Prober(min, max, initial)
	let capacity = initial
	let now = 0
	/** One that ends so many ms after the one before. @returns the capacity from then on. */
	const end = (after: number, sample: Partial<Sample> = {}): number => {
		now += after
		const { active = capacity, queued = 5 } = sample
		capacity = prober.sample({ held: 10, outcome: 'ok', ...sample, active, queued, now })
		return capacity
	}
	return { end, seconds: () => now / 1000 }
}

/** So many samples alike, one after the other: what is at work is said in parts of the capacity there is. */
const stretch = fc.record({
	count: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 400 })),
	pause: fc.oneof(fc.constantFrom(0, 0.01, 1, 30, 1001, 1e9), fc.double({ min: 0, max: 2000, noNaN: true })),
	held: fc.oneof(fc.constantFrom(0, 0.01, 10, 700, 1e12), fc.double({ min: 0, max: 60_000, noNaN: true })),
	part: fc.oneof(fc.constantFrom(0, 0.5, 1, 1.5), fc.double({ min: 0, max: 3, noNaN: true })),
	queued: fc.constantFrom(0, 0, 1, 1000),
	outcome: fc.constantFrom('ok' as const, 'ok' as const, 'client-error', 'server-error', 'abandoned'),
})

const bounds = fc
	.record({
		min: fc.constantFrom(1, 1, 2, 7, 1000),
		room: fc.oneof(fc.constantFrom(0, 1, 2, Number.POSITIVE_INFINITY), fc.nat(2000)),
		part: fc.double({ min: 0, max: 1, noNaN: true }),
	})
	.map(({ min, room, part }) => ({
		min,
		max: min + room,
		initial: min + Math.floor(part * Math.min(room, 1e6)),
	}))

test('whatever it is told, its capacity is an integer in bounds, and grows only when the limit was reached', () => {
	fc.assert(
		fc.property(
			bounds,
			fc.array(stretch, { minLength: 1, maxLength: 60, size: 'max' }),
			({ min, max, initial }, stretches) => {
				const prober = new Prober(min, max, initial)
				let capacity = initial
				let now = 0
				for (const { count, pause, held, part, queued, outcome } of stretches) {
					for (let i = 0; i < count; i++) {
						now += pause
						const active = Math.max(1, Math.round(part * capacity))
						const next = prober.sample({ held, active, queued, outcome, now })
						if (!(Number.isInteger(next) && next >= min && next <= max))
							expect.fail(`the capacity is ${next}`)
						if (queued === 0 && active < capacity && next > capacity) {
							expect.fail(`grown from ${capacity} to ${next} with ${active} at work`)
						}
						capacity = next
					}
				}
			},
		),
		{ numRuns: 400 },
	)
})

test('requests that take no time that can be measured leave it a number', () => {
	const { end } = probed(1, Number.POSITIVE_INFINITY, 1)
	for (let i = 0; i < 200; i++) expect(end(30, { held: Number.MIN_VALUE })).toBeGreaterThanOrEqual(1)
	expect(end(0, { held: 0, queued: 0 })).toBeGreaterThanOrEqual(1)
})

test('where min is max, or the limit is at one of them, it goes on', () => {
	const fixed = probed(7, 7, 7)
	for (let i = 0; i < 5_000; i++) expect(fixed.end(1)).toBe(7)
	// One answer a ms whatever the limit: nothing is gained by more.
	const low = probed(1, 2, 2)
	let least = 2
	for (let i = 0; i < 20_000; i++) least = Math.min(least, low.end(1))
	expect(least).toBe(1)
	// Each more at work is answered as well.
	const high = probed(1, 50, 40)
	let capacity = 40
	const seen = new Set<number>()
	for (let i = 0; i < 20_000; i++) {
		capacity = high.end(10 / capacity)
		if (i > 15_000) seen.add(capacity)
	}
	expect(Math.max(...seen)).toBe(50)
	expect(Math.min(...seen)).toBeGreaterThanOrEqual(45)
})

test('a trial of more that nobody uses is no reason to believe in it', () => {
	const { end, seconds } = probed(1, 1000, 64)
	let before = 64
	let capacity = 64
	// A downstream that answers one a ms, whatever the limit.
	while (capacity < 90 && seconds() < 60) {
		before = capacity
		capacity = end(1, { held: capacity })
	}
	expect(capacity).toBe(Math.round(1.5 * before))
	for (let i = 0; i < 25; i++) capacity = end(100, { active: 3, queued: 0 })
	expect(capacity).toBeLessThanOrEqual(before)
})

test('after answers have become fewer it looks down, up and down again, though the first look did not pay', () => {
	const { end, seconds } = probed(1, 1000, 64)
	let limit = 64
	/** Most are answered with 64 at work, one in so many ms; so no look pays. */
	const answer = (least: number) => {
		limit = end(least * Math.max(64 / limit, limit / 64), { held: 64 * least })
	}
	while (seconds() < 60) answer(1)
	const seen = [limit]
	while (seconds() < 64) {
		answer(4)
		if (limit !== seen.at(-1)) seen.push(limit)
	}
	const far = seen.map((each) => (each < 48 ? 'down' : each > 80 ? 'up' : '-')).filter((each) => each !== '-')
	expect(far.slice(0, 3)).toEqual(['down', 'up', 'down'])
})

test('it learns from requests of which fewer than one ends in a second', () => {
	const { end, seconds } = probed(1, 1000, 40)
	// Too much for a downstream that answers one in 1.5 s: the fewer are at work, the more it answers.
	let capacity = 40
	while (capacity > 30 && seconds() < 3600) {
		const between = 1500 * (capacity / 40)
		capacity = end(between, { held: capacity * between })
	}
	expect(capacity).toBeLessThanOrEqual(30)
	expect(seconds()).toBeLessThan(600)
})

test.each([
	['adaptive', adaptive],
	['aimd', aimd],
])('%s refuses to begin without a bound, or to have none below', (_name, make) => {
	const max = Number.POSITIVE_INFINITY
	expect(() => make({ max, initial: Number.POSITIVE_INFINITY })).toThrow(
		'initial must be an integer from 1; got Infinity',
	)
	expect(() => make({ max, min: Number.POSITIVE_INFINITY })).toThrow(
		'min must be an integer from 1; got Infinity',
	)
})
