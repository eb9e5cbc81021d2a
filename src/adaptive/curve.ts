import type { Measurement } from './meter.js'

/** A parabola near a limit: `slope * x + bend * x ** 2 / 2`, where `x` is the logarithm of a limit over this one. */
export interface Fit {
	readonly slope: number
	readonly bend: number
	/** Where its top is. */
	readonly top: number
	/** The height at `x` less that here. */
	difference(x: number): number
}

/** Something that was measured: where, what, and how much it tells. */
interface Point {
	readonly x: number
	readonly y: number
	/** The inverse of its variance; it decays. */
	weight: number
}

/** The part of its weight that a measurement loses at each new one: about the last 30 count. */
const LOST = 0.03

/** So many are kept: what was before weighs a sixth or less. */
const KEPT = 60

/**
 * What is believed before anything is known: the slope is between -1 and 1, as the rate grows in proportion at most; and it
 * falls by 1 over the width of the fit, give or take 2.
 */
const SLOPE_VARIANCE = 1
const BEND = -1
const BEND_VARIANCE = 4

/** A parabola is never taken for flatter: its top would be anywhere. */
const FLATTEST = -0.3

/**
 * What is far from what was seen at about the same limit (within 0.1 of its logarithm): by more than three standard
 * deviations, and more than 0.1, which a knee between the two can make. Then what was seen before weighs a hundredth.
 */
const CLOSE = 0.1
const SURE = 3
const MISFIT = 0.1
const FORGET = 0.01

/**
 * The rate as a function of the number at work, both by their logarithms, less the price of each place: from what was
 * measured lately. Near a limit, a parabola is fitted by weighted least squares; its top says where to go. This is the
 * response surface of Box and Wilson (1951).
 */
export class Curve {
	#points: Point[] = []
	readonly #price: number

	/** @param price how many per cent more answers one per cent more at work must bring */
	constructor(price: number) {
		this.#price = price
	}

	add({ active, rate, variance }: Measurement): void {
		for (const point of this.#points) point.weight *= 1 - LOST
		const x = Math.log(active)
		this.#points.push({ x, y: Math.log(rate) - this.#price * x, weight: 1 / (variance + 0.0001) })
		if (this.#points.length > KEPT) this.#points.shift()
	}

	/** Whether far more or fewer were answered than before at the same limit: then what they wait for has changed. */
	surprise({ active, rate, variance }: Measurement): 'more' | 'fewer' | undefined {
		const x = Math.log(active)
		const [y, error] = this.#height(x)
		const change = Math.log(rate) - this.#price * x - y
		if (Math.abs(change) <= MISFIT + SURE * Math.sqrt(variance + error)) return undefined
		return change > 0 ? 'more' : 'fewer'
	}

	/** The mean of what was seen close to `x`, and its variance. */
	#height(x: number): [number, number] {
		let [sum, all] = [0, 0]
		for (const point of this.#points) {
			const weight = point.weight * near((point.x - x) / CLOSE)
			sum += weight * point.y
			all += weight
		}
		return all < 1e-3 ? [0, 1e9] : [sum / all, 1 / all]
	}

	forget(): void {
		for (const point of this.#points) point.weight *= FORGET
	}

	/** How much is known within `width` of a limit. */
	known(limit: number, width: number): number {
		let sum = 0
		for (const { x, weight } of this.#points) sum += weight * near((x - Math.log(limit)) / width)
		return sum
	}

	/** The parabola that fits best near `limit`. */
	fit(limit: number, width: number): Fit {
		const here = Math.log(limit)
		// Normal equations of (height, slope, bend / 2): a b c / b c d / c d e, with the right side p q r.
		let [a, b, c, d, e, p, q, r] = [1e-9, 0, 1 / SLOPE_VARIANCE, 0, (4 * width ** 2) / BEND_VARIANCE, 0, 0, 0]
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
		// Height eliminated.
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

/** From 1 here to 0 far away. */
function near(x: number): number {
	return Math.exp(-(x ** 2) / 2)
}
