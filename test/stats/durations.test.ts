import { expect, test } from 'vitest'
import { Durations } from '../../src/stats/durations.js'

test('nothing recorded is all zeros', () => {
	expect(new Durations().stats()).toEqual({ count: 0, mean: 0, p50: 0, p90: 0, p99: 0, max: 0 })
})

test('percentiles are right to within 1 %, count, mean and max exactly', () => {
	const durations = new Durations()
	for (let ms = 1; ms <= 1000; ms++) durations.record(ms)
	const { count, mean, p50, p90, p99, max } = durations.stats()
	expect({ count, mean, max }).toEqual({ count: 1000, mean: 500.5, max: 1000 })
	for (const [found, exact] of [
		[p50, 500],
		[p90, 900],
		[p99, 990],
	] as const) {
		expect(Math.abs(found / exact - 1)).toBeLessThan(0.01)
	}
})

test('zeros count like any other time', () => {
	const durations = new Durations()
	for (let i = 0; i < 95; i++) durations.record(0)
	for (let i = 0; i < 5; i++) durations.record(100)
	const { count, mean, p50, p90, p99 } = durations.stats()
	expect({ count, mean, p50, p90 }).toEqual({ count: 100, mean: 5, p50: 0, p90: 0 })
	expect(Math.abs(p99 / 100 - 1)).toBeLessThan(0.01)
})

test('times below the resolution are zeros, and never below them', () => {
	const durations = new Durations()
	durations.record(0.0001)
	durations.record(-1)
	expect(durations.stats()).toEqual({ count: 2, mean: 0, p50: 0, p90: 0, p99: 0, max: 0 })
})

test('a time longer than any timer does no harm', () => {
	const durations = new Durations()
	durations.record(2 ** 40)
	const { max, p50 } = durations.stats()
	expect(max).toBe(2 ** 40)
	expect(p50).toBeGreaterThan(2_000_000_000)
})
