import { expect, test } from 'vitest'
import { drawFrom } from '../../bench/overload/family.js'
import { seedsOf } from '../../bench/overload/family-report.js'
import { modelOf } from '../../bench/overload/model.js'
import { limiterOf } from '../../bench/overload/policies.js'
import { simulate } from '../../bench/overload/simulation.js'
import { adaptive } from '../../src/adaptive/index.js'
import { Limiter } from '../../src/limiter/limiter.js'

test('a seed draws the same downstream each time, and another than its neighbour', () => {
	expect(drawFrom(7).title).toBe(drawFrom(7).title)
	expect(drawFrom(7).title).not.toBe(drawFrom(8).title)
	for (let seed = 1; seed <= 200; seed++) {
		const { knee, deadline } = drawFrom(seed)
		expect(knee.knee).toBeGreaterThanOrEqual(3)
		expect(knee.knee).toBeLessThanOrEqual(300)
		expect(deadline).toBe(Math.max(1000, 5 * knee.service))
	}
})

test('a range of seeds is read, and anything else is an error', () => {
	expect(seedsOf('1001..1003')).toEqual([1001, 1002, 1003])
	expect(seedsOf('5')).toEqual([5])
	for (const wrong of ['5..4', 'all', '1..x']) expect(() => seedsOf(wrong)).toThrow(wrong)
})

test.each([
	['a fixed capacity', () => 12],
	['a capacity that finds itself', () => adaptive()],
])('the model of the limiter does what the limiter does, with %s', async (_what, capacity) => {
	const downstream = {
		name: '',
		service: 30,
		knee: 12,
		slowdown: (ratio: number) => 1 + ratio ** 2,
	}
	const scenario = { downstream, load: 2, seconds: 3, warmup: 0 }
	const options = { capacity: capacity(), maxQueue: 4 }
	const model = await simulate(modelOf(options), scenario)
	const limiter = await simulate(limiterOf(options, Limiter), scenario)
	expect(model.attempts).toBeGreaterThan(500)
	expect(model).toEqual(limiter)
})

// One of each kind that the search before this one never served: small, slow, hard. The others are
// a command.
test.each([2, 5, 10])(
	'on downstream %d of the family it serves nearly as much as is possible',
	async (seed) => {
		const { knee, peak, deadline, work } = drawFrom(seed)
		for (const load of [1.5, 5]) {
			const scenario = { downstream: knee, load, deadline, work, seed, warmup: 10, seconds: 20 }
			const { goodput } = await simulate(modelOf({ capacity: adaptive() }), scenario)
			expect(goodput / peak).toBeGreaterThan(0.8)
		}
	},
)
