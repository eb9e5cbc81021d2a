import { expect, test } from 'vitest'
import { Curve } from '../../src/adaptive/curve.js'
import type { Measurement } from '../../src/adaptive/meter.js'

const at = (active: number, rate: number, variance = 0.001): Measurement => ({
	active,
	rate,
	variance,
	held: active / rate,
	late: 0,
	ended: 100,
	full: true,
})

test('the top of the parabola is where the rate is highest', () => {
	const curve = new Curve(0)
	// A parabola in the logarithms, with its top at 50.
	for (const active of [30, 40, 50, 60, 70])
		curve.add(at(active, Math.exp(-(Math.log(active / 50) ** 2))))
	const { top, slope, difference } = curve.fit(40, 1)
	expect(40 * Math.exp(top)).toBeCloseTo(50, -0.5)
	expect(slope).toBeGreaterThan(0)
	expect(difference(Math.log(50 / 40))).toBeGreaterThan(0)
	expect(difference(Math.log(30 / 40))).toBeLessThan(0)
})

test('with a price, of rates that are the same the lower limit is better', () => {
	const curve = new Curve(0.1)
	for (const active of [30, 40, 50]) curve.add(at(active, 1))
	expect(curve.fit(40, 1).top).toBeLessThan(0)
})

test('what is far from what was seen at the same limit is a surprise, unless it is as uncertain', () => {
	const curve = new Curve(0)
	expect(curve.surprise(at(40, 1))).toBeUndefined()
	for (let i = 0; i < 5; i++) curve.add(at(40, 1))
	expect([1.1, 0.9, 0.5, 2].map((rate) => curve.surprise(at(40, rate)))).toEqual([
		undefined,
		undefined,
		'fewer',
		'more',
	])
	expect(curve.surprise(at(40, 0.5, 0.2))).toBeUndefined()
	expect(curve.surprise(at(80, 0.5))).toBeUndefined()
})

test('what was seen before counts less and less, and next to nothing once forgotten', () => {
	const curve = new Curve(0)
	curve.add(at(40, 1))
	const known = curve.known(40, 1)
	curve.forget()
	expect(curve.known(40, 1)).toBeLessThan(known / 10)
	for (let i = 0; i < 1_000; i++) curve.add(at(40, 1))
	expect(curve.known(40, 1)).toBeLessThan(50 * known)
})
