import fc from 'fast-check'
import { expect, test } from 'vitest'
import { randomFrom } from '../../bench/overload/random.js'
import { adaptive, aimd, type Sample } from '../../src/adaptive/index.js'
import { Search } from '../../src/adaptive/search.js'

/**
 * A search, and the requests that end under it: at the full limit, unless something else is said.
 */
function probed(min: number, max: number, initial: number) {
	const search = new Search(min, max, initial)
	let capacity = initial
	let now = 0
	/** One that ends so many ms after the one before. @returns the capacity from then on. */
	const end = (after: number, sample: Partial<Sample> = {}): number => {
		now += after
		const { active = capacity, queued = 5 } = sample
		capacity = search.sample({
			held: 10,
			outcome: 'ok',
			abandoned: 0,
			...sample,
			active,
			queued,
			now,
		})
		return capacity
	}
	return {
		end,
		seconds: () => now / 1000,
		capacity: () => capacity,
		decision: () => search.decision,
	}
}

/**
 * So many samples alike, one after the other: what is at work is said in parts of the capacity
 * there is.
 */
const stretch = fc.record({
	count: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 400 })),
	pause: fc.oneof(
		fc.constantFrom(0, 0.01, 1, 30, 1001, 1e9),
		fc.double({ min: 0, max: 2000, noNaN: true }),
	),
	held: fc.oneof(
		fc.constantFrom(0, 0.01, 10, 700, 1e12),
		fc.double({ min: 0, max: 60_000, noNaN: true }),
	),
	part: fc.oneof(fc.constantFrom(0, 0.5, 1, 1.5), fc.double({ min: 0, max: 3, noNaN: true })),
	queued: fc.constantFrom(0, 0, 1, 1000),
	deserted: fc.constantFrom(0, 0, 0.5, 1),
	outcome: fc.constantFrom(
		'ok' as const,
		'ok' as const,
		'client-error',
		'server-error',
		'abandoned',
	),
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

const end = {
	count: 1,
	pause: 0,
	held: 0,
	part: 0,
	queued: 0 as 0 | 1 | 1000,
	deserted: 0 as 0 | 0.5 | 1,
	outcome: 'ok' as const,
}
const INSTANT = [
	{ ...end, count: 2, pause: Number.MIN_VALUE, queued: 1 as const },
	{ ...end, pause: 1001 },
	{ ...end, held: 0.01 },
	{ ...end, count: 37, part: 0.75 },
	{ ...end, pause: 25 },
	{ ...end, count: 117, queued: 1000 as const },
	end,
]

test('whatever it is told, its capacity is an integer in bounds, and grows only when the limit was reached', () => {
	fc.assert(
		fc.property(
			bounds,
			fc.array(stretch, { minLength: 1, maxLength: 60, size: 'max' }),
			({ min, max, initial }, stretches) => {
				const search = new Search(min, max, initial)
				let capacity = initial
				let now = 0
				for (const { count, pause, held, part, queued, deserted, outcome } of stretches) {
					for (let i = 0; i < count; i++) {
						now += pause
						const active = Math.max(1, Math.round(part * capacity))
						const abandoned = Math.round(deserted * active)
						const next = search.sample({ held, active, queued, abandoned, outcome, now })
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
		{
			numRuns: 400,
			// Once, the time between two answers was so short that their rate was Infinity.
			examples: [[{ min: 2, max: 2, initial: 2 }, INSTANT]],
		},
	)
})

test('requests that take no time that can be measured leave it a number', () => {
	const { end } = probed(1, Number.POSITIVE_INFINITY, 1)
	for (let i = 0; i < 200; i++)
		expect(end(30, { held: Number.MIN_VALUE })).toBeGreaterThanOrEqual(1)
	expect(end(0, { held: 0, queued: 0 })).toBeGreaterThanOrEqual(1)
})

/**
 * What ends at a downstream that answers one in so many ms, when as many are at work as the limit
 * allows.
 */
function answers({ end, seconds }: ReturnType<typeof probed>, between: (limit: number) => number) {
	return {
		/** Lets it go on for so many seconds. @returns the limits there were */
		for(time: number, limit: number): number[] {
			const limits = [limit]
			const stop = seconds() + time
			while (seconds() < stop) {
				const limit = limits.at(-1) as number
				limits.push(end(between(limit), { held: limit * between(limit) }))
			}
			return limits
		},
	}
}

test('where min is max, or the limit is at one of them, it goes on', () => {
	const fixed = probed(7, 7, 7)
	expect(new Set(answers(fixed, () => 1).for(5, 7))).toEqual(new Set([7]))
	// One answer a ms whatever the limit: nothing is gained by more.
	expect(Math.min(...answers(probed(1, 2, 2), () => 1).for(20, 2))).toBe(1)
	// Each more at work is answered as well.
	const limits = answers(probed(1, 50, 40), (limit) => 10 / limit)
		.for(4, 40)
		.slice(-5_000)
	expect(Math.max(...limits)).toBe(50)
	expect(limits.reduce((sum, limit) => sum + limit, 0) / limits.length).toBeGreaterThan(45)
})

test('it begins with few, and doubles them while the rate keeps up', () => {
	// Free up to 100 at work, then one a ms.
	const limits = answers(probed(1, 1000, 4), (limit) => Math.max(1, 100 / limit)).for(10, 4)
	const steps = limits.filter((limit, i) => limit !== limits[i - 1])
	expect(steps.slice(0, 5)).toEqual([4, 8, 16, 32, 64])
	expect(Math.max(...limits)).toBeLessThanOrEqual(256)
})

test('chance alone hardly ever ends the doubling', () => {
	let early = 0
	for (let seed = 1; seed <= 100; seed++) {
		const random = randomFrom(seed)
		const search = probed(1, 1000, 4)
		// No knee, and hold times that vary as much as exponential ones do.
		while (search.capacity() < 64 && search.decision().reason !== 'more at work bring too little') {
			search.end(random.exponential(100 / search.capacity()), { held: random.exponential(100) })
		}
		if (search.capacity() < 64) early++
	}
	expect(early).toBeLessThanOrEqual(5)
})

test.each([5, 20, 100])('it settles at a knee of %d, and says why', (knee) => {
	const search = probed(1, 1000, 4)
	// Free up to the knee, then worse with the square.
	const { for: run } = answers(search, (limit) => (20 / limit) * Math.max(1, (limit / knee) ** 2))
	run(20, 4)
	const limits = run(10, search.capacity())
	const mean = limits.reduce((sum, limit) => sum + limit, 0) / limits.length
	expect(mean / knee).toBeGreaterThan(0.85)
	expect(mean / knee).toBeLessThan(1.15)
	expect(search.decision().reason).toMatch(
		/^(more is better|less is as good|stays|looks above|looks below)$/,
	)
})

test('of limits whose rates are the same it takes a low one', () => {
	// Free up to 20 at work; from there on one answer a ms, whatever the limit.
	const search = probed(1, 1000, 4)
	const { for: run } = answers(search, (limit) => Math.max(1, 20 / limit))
	run(20, 4)
	const limits = run(10, search.capacity())
	expect(limits.reduce((sum, limit) => sum + limit, 0) / limits.length).toBeLessThan(26)
})

test('a trial of more that nobody uses is no reason to believe in it', () => {
	const search = probed(1, 1000, 4)
	answers(search, (limit) => Math.max(1, 64 / limit)).for(20, 4)
	const found = search.capacity()
	let capacity = found
	for (let i = 0; i < 100; i++) capacity = search.end(100, { active: 3, queued: 0 })
	expect(capacity).toBeLessThan(0.5 * found)
})

test('when most answers come too late it comes down, by half or more at once', () => {
	const search = probed(1, 1000, 64)
	let capacity = 64
	while (capacity === 64) capacity = search.end(100, { held: 6_400, outcome: 'abandoned' })
	expect(capacity).toBeLessThanOrEqual(32)
	expect(search.decision()).toEqual({ limit: capacity, reason: 'most answers come too late' })
})

test('when hardly any of those at work has a client, it comes down before they end', () => {
	const search = probed(1, 1000, 64)
	for (let i = 0; i < 10; i++) search.end(10, { held: 10, abandoned: 50 })
	expect(search.capacity()).toBe(64)
	search.end(10, { held: 10, abandoned: 60 })
	expect(search.decision()).toEqual({ limit: 16, reason: 'most answers come too late' })
	// Those at work go on, and were there before: it does not fall further.
	for (let active = 63; active > 16; active--)
		expect(search.end(10, { active, abandoned: active, outcome: 'abandoned' })).toBe(16)
	for (let abandoned = 16; abandoned > 1; abandoned--)
		expect(search.end(10, { abandoned, outcome: 'abandoned' })).toBe(16)
})

test('when the answers of a look come too late, it falls to a part of the look', () => {
	const search = probed(1, 1000, 4)
	const { for: run } = answers(search, (limit) => (20 / limit) * Math.max(1, (limit / 40) ** 2))
	const decided = (reason: string): void => {
		while (search.decision().reason !== reason) run(1e-9, search.capacity())
	}
	decided('looks below')
	decided('looks above')
	const above = search.capacity()
	while (search.capacity() === above) {
		search.end(1, { held: 1, outcome: 'abandoned' })
	}
	expect(search.decision().reason).toBe('most answers come too late')
	expect(search.capacity()).toBeGreaterThanOrEqual(Math.floor(above / 2))
	expect(search.capacity()).toBeLessThanOrEqual(40)
})

test('when more is answered than before, it does not double its limit', () => {
	const search = probed(1, 1000, 4)
	let service = 20
	const { for: run } = answers(
		search,
		(limit) => (service / limit) * Math.max(1, (limit / 30) ** 2),
	)
	run(20, 4)
	service = 10
	expect(Math.max(...run(20, search.capacity()))).toBeLessThan(50)
})

test('where nothing is answered well it stays', () => {
	const search = probed(1, 1000, 64)
	for (let i = 0; i < 5_000; i++)
		expect(search.end(1, { held: 64, outcome: 'server-error' })).toBe(64)
})

test('after answers have become fewer, and more again, it finds the knee again', () => {
	const search = probed(1, 1000, 4)
	let knee = 60
	const { for: run } = answers(search, (limit) => (20 / limit) * Math.max(1, (limit / knee) ** 2))
	for (knee of [60, 15, 60]) {
		run(10, search.capacity())
		const limits = run(5, search.capacity())
		const mean = limits.reduce((sum, limit) => sum + limit, 0) / limits.length
		expect(mean / knee).toBeGreaterThan(0.75)
		expect(mean / knee).toBeLessThan(1.25)
	}
})

test('it learns from requests of which fewer than one ends in a second', () => {
	const { end, seconds } = probed(1, 1000, 40)
	// Too much for a downstream that answers one in 1.5 s: the fewer are at work, the more it
	// answers.
	let capacity = 40
	while (capacity > 30 && seconds() < 3600) {
		const between = 1500 * (capacity / 40)
		capacity = end(between, { held: capacity * between })
	}
	expect(capacity).toBeLessThanOrEqual(30)
	// Each measurement takes at least as many requests as the limit: a minute.
	expect(seconds()).toBeLessThan(1200)
})

test.each([
	['adaptive', adaptive],
	['aimd', aimd],
])('%s does not begin without a bound, nor without one below', (_name, make) => {
	const max = Number.POSITIVE_INFINITY
	expect(() => make({ max, initial: Number.POSITIVE_INFINITY })).toThrow(
		'initial must be an integer from 1; got Infinity',
	)
	expect(() => make({ max, min: Number.POSITIVE_INFINITY })).toThrow(
		'min must be an integer from 1; got Infinity',
	)
})
