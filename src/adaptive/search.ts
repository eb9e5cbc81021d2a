import type { Sample } from './controller.js'
import { Curve } from './curve.js'
import { type Measurement, Meter } from './meter.js'

/**
 * One per cent more requests at work must bring at least 0.1 % more answers. Below the knee it
 * brings 1 %; on a plateau, more requests at work only wait. So the search aims for the knee. Unit:
 * logarithm of answers per logarithm of requests at work.
 */
const PRICE = 0.1

/** The fraction of answers that looks may cost. One per cent is less than the usual noise. */
const BUDGET = 0.01

/**
 * Answers that a look takes, as a multiple of the limit: one of requests that began before it, and
 * half of one of its own.
 */
const LOOK = 1.5

/** The shortest and the longest look, relative to the limit: shorter is noise, longer is costly. */
const [NARROWEST, WIDEST] = [0.03, 0.5]

/** The parabola is fitted to measurements within this multiple of the distance of a look. */
const WIDTH = 3

/**
 * The longest move, in units of the logarithm of the limit: to a half; upwards, where throughput
 * may collapse, half as far.
 */
const DOWNWARDS = Math.LN2
const UPWARDS = Math.LN2 / 2

/** The start ends when one per cent more at work brings less than this per cent more answers. */
const KEEPS_UP = 0.8

/**
 * Standard deviations by which that must be sure: after a start that ended too early, each further
 * step takes long.
 */
const SURE = 3

/** When most answers come too late, the limit falls to a fraction of itself within these bounds. */
const [LEAST_LEFT, MOST_LEFT] = [0.25, 0.5]

/**
 * A limit that was not reached for this time, in ms, shrinks towards 1.2 times what is used, as
 * RFC 7661 does for TCP.
 */
const UNUSED = 1_000

/** The limit from now on, and why. */
export interface Decision {
	readonly limit: number
	readonly reason: string
}

/**
 * Searches for the limit with the highest rate of answers; of limits with the same rate, the
 * lowest.
 *
 * - `start`: doubles the limit from a few requests, while the rate keeps up.
 * - `hold`: stays at the best limit known.
 * - `look`: tries a limit a little above or below it, for one measurement.
 */
export class Search {
	readonly #min: number
	readonly #max: number
	readonly #initial: number
	readonly #meter: Meter
	readonly #curve = new Curve(PRICE)
	#phase: 'start' | 'hold' | 'look' = 'start'
	/** The best limit known. */
	#limit: number
	#decision: Decision
	/** In the start: the measurement of the step before. */
	#before: Measurement | undefined
	/** The distance of a look, relative to the limit, and whether the next one is above. */
	#reach = WIDEST
	#up = false
	/**
	 * The longest move, in distances of a look: doubles with each move in one direction; below 0:
	 * down.
	 */
	#stride = 1
	/** Answers that looks may still cost, and the fraction that the present look costs. */
	#credit = 0
	#cost = 0
	/** The last rate, in answers per ms, and the last mean hold time, in ms. */
	#rate = 0
	#held = 0
	/** The most requests at work since `#peakSince`, and whether the limit was reached. */
	#peak = 0
	#peakSince = 0
	#reached = false

	constructor(min: number, max: number, initial: number) {
		this.#min = min
		this.#max = max
		this.#initial = initial
		this.#limit = initial
		this.#decision = { limit: initial, reason: 'begins' }
		this.#meter = new Meter(initial)
	}

	/** The last decision. */
	get decision(): Decision {
		return this.#decision
	}

	sample(sample: Sample): number {
		const { active, queued, now } = sample
		const seen = this.#meter.add(sample)
		this.#peak = Math.max(this.#peak, active)
		this.#reached ||= queued > 0 || active >= this.#decision.limit
		if (now - this.#peakSince > UNUSED && this.#shrinkToUse(now)) return this.#decision.limit
		if (seen !== undefined) this.#decide(seen, queued > 0 || active >= this.#decision.limit)
		return this.#decision.limit
	}

	#decide(seen: Measurement, full: boolean): void {
		if (seen.late > 0.5) this.#comeDown(seen)
		else if (!seen.full || !full) {
			if (this.#phase === 'look') this.#phase = 'hold'
			this.#allow(Math.min(this.#limit, this.#decision.limit), 'the limit was not reached')
		} else if (seen.rate === 0) this.#allow(this.#limit, 'nothing was answered well')
		else {
			this.#rate = seen.rate
			this.#held = seen.held
			// The start measures only briefly. That can't be compared with the rest.
			if (this.#phase === 'start') this.#goOn(seen)
			else this.#choose(seen)
		}
	}

	#clip(limit: number): number {
		return Math.min(this.#max, Math.max(this.#min, limit))
	}

	#allow(limit: number, reason: string): void {
		const next = Math.round(this.#clip(limit))
		// At the limit itself, the measurement must last about as long as a look.
		this.#meter.begin(
			next,
			this.#phase === 'hold' ? next : 0,
			next > this.#meter.limit ? this.#rate : 0,
			this.#phase === 'start',
		)
		this.#decision = { limit: next, reason }
	}

	#hold(limit: number, reason: string): void {
		this.#limit = this.#clip(limit)
		this.#phase = 'hold'
		this.#allow(this.#limit, reason)
	}

	/** By Little's law, hold times shrink at least in proportion to the limit. */
	#comeDown(seen: Measurement): void {
		const part = Math.max(LEAST_LEFT, Math.min(MOST_LEFT, this.#held / Math.max(seen.held, 0.001)))
		this.#curve.forget()
		this.#hold(Math.min(seen.active * part, this.#limit), 'most answers come too late')
	}

	#goOn(seen: Measurement): void {
		const { limit } = this.#meter
		const before = this.#before
		this.#before = seen
		let growth = 1
		if (before !== undefined) {
			const far = Math.max(0.1, Math.log(seen.active / before.active))
			const gain = Math.log(seen.rate / before.rate) / far
			const doubt = Math.sqrt(seen.variance + before.variance) / far
			if (gain + SURE * doubt < KEEPS_UP) {
				// The knee that explains this gain: proportional growth below it, proportional loss above
				// it.
				const part = Math.max(0, Math.min(1, (1 + gain) / 2))
				this.#hold(before.active * Math.exp(far * part), 'more at work bring too little')
				return
			}
			growth = Math.min(1, gain + doubt)
		}
		this.#limit = limit
		if (limit === this.#max) this.#hold(limit, 'it is at max')
		else this.#allow(Math.max(limit + 1, limit * 2 ** growth), 'the rate keeps up')
	}

	get #width(): number {
		return Math.max(WIDTH * this.#reach, 1.5 / this.#limit)
	}

	/** Moves towards the top of the parabola, at most as far as `#reach` and `#stride` allow. */
	#move(): void {
		const { top } = this.#curve.fit(this.#limit, this.#width)
		const far = Math.min(top > 0 ? UPWARDS : DOWNWARDS, this.#reach * Math.abs(this.#stride))
		this.#limit = this.#clip(this.#limit * Math.exp(Math.max(-far, Math.min(far, top))))
		if (Math.abs(top) <= far) this.#stride = 1
		else
			this.#stride = Math.sign(top) === Math.sign(this.#stride) ? 2 * this.#stride : Math.sign(top)
		const known = this.#curve.known(this.#limit, this.#width)
		this.#reach = Math.max(NARROWEST, Math.min(WIDEST, known ** -0.25))
	}

	#choose(seen: Measurement): void {
		const change = this.#curve.surprise(seen)
		if (change !== undefined) {
			this.#curve.forget()
			this.#stride = 1
			this.#up = change === 'more'
		}
		this.#curve.add(seen)
		const held = this.#phase === 'hold'
		this.#credit += (held ? BUDGET : -this.#cost) * seen.ended
		this.#credit = Math.min(this.#credit, 2 * this.#limit)
		const from = this.#limit
		this.#move()
		const limit = Math.round(this.#limit)
		if (held) {
			const far = Math.max(1, this.#reach * limit)
			const look = Math.round(this.#clip(this.#up ? limit + far : limit - far))
			const { difference } = this.#curve.fit(limit, this.#width)
			const cost = Math.max(0, -difference(Math.log(look / limit)))
			const affordable = LOOK * look * cost <= Math.max(0, this.#credit)
			this.#up = !this.#up
			if (affordable && look !== limit) {
				this.#cost = cost
				this.#phase = 'look'
				this.#allow(look, this.#up ? 'looks below' : 'looks above')
				return
			}
		}
		this.#hold(
			this.#limit,
			limit > from ? 'more is better' : limit < from ? 'less is as good' : 'stays',
		)
	}

	/** An unused limit is untested: it would admit a burst that may be too large. */
	#shrinkToUse(now: number): boolean {
		const used = Math.max(this.#initial, 1.2 * this.#peak)
		const { limit } = this.#decision
		const unused = !this.#reached && Math.ceil(used) < limit
		this.#peak = 0
		this.#peakSince = now
		this.#reached = false
		if (!unused) return false
		this.#limit = this.#clip(Math.min(this.#limit, Math.floor(0.7 * limit + 0.3 * used)))
		this.#before = undefined
		if (this.#phase === 'look') this.#phase = 'hold'
		this.#allow(this.#limit, 'the limit was not used')
		return true
	}
}
