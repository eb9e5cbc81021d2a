import type { Measurement } from './meter.js'

/** A parabola near a limit L: `slope * x + bend * x ** 2 / 2`, where `x` is `log(limit / L)`. */
export interface Fit {
	readonly slope: number
	readonly bend: number
	/** The `x` of its top. */
	readonly top: number
	/** Its height at `x`, less that at 0. */
	difference(x: number): number
}

/** A measurement. */
interface Point {
	readonly x: number
	readonly y: number
	/** The inverse of its variance. It decays. */
	weight: number
}

/** The fraction of its weight that a measurement loses with each new one: about 50 count. */
const LOST = 0.02

/** Measurements that are kept. Older ones would have a sixth of their weight or less. */
const KEPT = 90

/**
 * The prior of the fit. The slope has mean 0 and variance 1, as the rate grows at most in
 * proportion. It falls by 1 over the width of the fit, with a standard deviation of 2.
 */
const SLOPE_VARIANCE = 1
const BEND = -1
const BEND_VARIANCE = 4

/** The flattest parabola: the top of a flatter one could be anywhere. */
const FLATTEST = -0.3

/**
 * A measurement is a surprise if it differs from those at about the same limit (`CLOSE`, in units
 * of its logarithm) by more than `SURE` standard deviations and `MISFIT`, which a knee between them
 * can explain. Then the weights of older measurements are multiplied by `FORGET`.
 */
const CLOSE = 0.1
const SURE = 3
const MISFIT = 0.1
const FORGET = 0.01

/**
 * The logarithm of the rate as a function of the logarithm of the requests at work, less their
 * price, from recent measurements. Near a limit, a parabola is fitted by weighted least squares.
 * Its top says where to move: the response surface of Box and Wilson (1951).
 */
export class Curve {
	#points: Point[] = []
	readonly #price: number

	/** @param price - per cent more answers that one per cent more requests at work must bring. */
	constructor(price: number) {
		this.#price = price
	}

	add({ active, rate, variance }: Measurement): void {
		for (const point of this.#points) point.weight *= 1 - LOST
		const x = Math.log(active)
		this.#points.push({ x, y: Math.log(rate) - this.#price * x, weight: 1 / (variance + 0.0001) })
		if (this.#points.length > KEPT) this.#points.shift()
	}

	/** Whether the rate differs much from that measured before at the same limit. */
	surprise({ active, rate, variance }: Measurement): 'more' | 'fewer' | undefined {
		const x = Math.log(active)
		const [y, error] = this.#height(x)
		const change = Math.log(rate) - this.#price * x - y
		if (Math.abs(change) <= MISFIT + SURE * Math.sqrt(variance + error)) return undefined
		return change > 0 ? 'more' : 'fewer'
	}

	/** The mean of the measurements close to `x`, and its variance. */
	#height(x: number): [number, number] {
		let [sum, all] = [0, 0]
		for (const point of this.#points) {
			const weight = point.weight * near((point.x - x) / CLOSE)
			sum += weight * point.y
			all += weight
		}
		return all < 1e-3 ? [0, 1e9] : [sum / all, 1 / all]
	}

	/** What was seen before counts next to nothing. */
	forget(): void {
		for (const point of this.#points) point.weight *= FORGET
	}

	/** The sum of the weights of the measurements within `width` of a limit. */
	known(limit: number, width: number): number {
		let sum = 0
		for (const { x, weight } of this.#points) sum += weight * near((x - Math.log(limit)) / width)
		return sum
	}

	/** The parabola that fits best near `limit`. */
	fit(limit: number, width: number): Fit {
		const here = Math.log(limit)
		// Normal equations of (height, slope, bend / 2): a b c / b c d / c d e, with the right side p q
		// r.
		let [a, b, c, d, e, p, q, r] = [
			1e-9,
			0,
			1 / SLOPE_VARIANCE,
			0,
			(4 * width ** 2) / BEND_VARIANCE,
			0,
			0,
			0,
		]
		const q0 = (BEND / width / 2) * e
		let c2 = 0
		for (const point of this.#points) {
			const x = point.x - here
			const w = point.weight * near(x / width)
			a += w
			b += w * x
			c2 += w * x ** 2
			d += w * x ** 3
			e += w * x ** 4
			p += w * point.y
			q += w * x * point.y
			r += w * x ** 2 * point.y
		}
		c += c2
		r += q0
		// The height is eliminated.
		const m11 = c - (b * b) / a
		const m12 = d - (b * c2) / a
		const m22 = e - (c2 * c2) / a
		const v1 = q - (b * p) / a
		const v2 = r - (c2 * p) / a
		const det = m11 * m22 - m12 ** 2
		const slope = (m22 * v1 - m12 * v2) / det
		const bend = (2 * (m11 * v2 - m12 * v1)) / det
		return {
			slope,
			bend,
			top: slope / -Math.min(bend, FLATTEST),
			difference: (x) => slope * x + (bend * x ** 2) / 2,
		}
	}
}

/** A Gaussian weight: 1 at 0, nearly 0 from 3 on. */
function near(x: number): number {
	return Math.exp(-(x ** 2) / 2)
}
