import type { Sample } from './controller.js'
import { Curve } from './curve.js'
import { type Measurement, Meter } from './meter.js'

/**
 * One per cent more at work must bring 0.1 % more answers; below the knee it brings 1 %. So it aims for the knee, and not
 * for the top of a plateau, where each place more is only waiting. In answers per place, both by their logarithms.
 */
const PRICE = 0.1

/** The part of the answers that looks may cost: 1 %, what one does not see in the noise of a day. */
const BUDGET = 0.01

/** How many answers a look takes, as a multiple of the limit: those that began before, and half of those it is about. */
const LOOK = 1.5

/** How far it looks at least and at most, as a part of the limit: chance hides less, and more costs too much. */
const [NARROWEST, WIDEST] = [0.03, 0.5]

/** The parabola is fitted to what was seen within so many times that distance: to both sides, and some steps before. */
const WIDTH = 3

/** How far it moves at once at most, in units of log limit: to a half; upwards, where a collapse may be, half as far. */
const DOWNWARDS = Math.LN2
const UPWARDS = Math.LN2 / 2

/** The start is over when one per cent more at work brings less than so many per cent more answers. */
const KEEPS_UP = 0.8

/** It ends only when that is sure: by so many standard deviations. Where it ends too early, each further step takes long. */
const SURE = 2

/** When most answers come too late, this part of the limit is left at least, and at most. */
const [LEAST_LEFT, MOST_LEFT] = [0.25, 0.5]

/** A limit that nobody reached for so long, in ms, comes down to what is used (as in RFC 7661 for TCP), and a fifth more. */
const UNUSED = 1_000

/** What it allows from now on, and why. */
export interface Decision {
	readonly limit: number
	readonly reason: string
}

/**
 * Searches for the limit at which most requests are answered in a second; of those as good, the lowest.
 *
 * - `start`: from few, doubling while the rate keeps up.
 * - `hold`: at the limit that is believed to be the best.
 * - `look`: a little above it or below it, for one measurement.
 */
export class Search {
	readonly #min: number
	readonly #max: number
	readonly #initial: number
	readonly #meter: Meter
	readonly #curve = new Curve(PRICE)
	#phase: 'start' | 'hold' | 'look' = 'start'
	/** Where it believes the best to be. */
	#limit: number
	#decision: Decision
	/** What was seen at the step before, in the start. */
	#before: Measurement | undefined
	/** How far it looks, as a part of the limit, and on which side next. */
	#reach = WIDEST
	#up = true
	/** How many times as far as that it may move, as it moved in the same direction before; negative: downwards. */
	#stride = 1
	/** Answers that looking may still cost, and what the present look costs of each. */
	#credit = 0
	#cost = 0
	/** The rate, in answers a ms, and the mean hold time, in ms, as they were seen last. */
	#rate = 0
	#held = 0
	/** The most at work since `#peakSince`, and whether the limit was reached. */
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

	/** What it decided last. */
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
			const change = this.#curve.surprise(seen)
			if (change !== undefined) {
				this.#curve.forget()
				this.#stride = 1
				this.#up = change === 'more'
				// More is possible than before: how much, is found as in the beginning.
				if (change === 'more' && this.#phase === 'hold') {
					this.#phase = 'start'
					this.#before = undefined
				}
			}
			this.#curve.add(seen)
			if (this.#phase === 'start') this.#goOn(seen)
			else this.#choose(seen)
		}
	}

	#clip(limit: number): number {
		return Math.min(this.#max, Math.max(this.#min, limit))
	}

	#allow(limit: number, reason: string): void {
		const next = Math.round(this.#clip(limit))
		// At the limit itself at least as many must end as are at work, so that it stays there for as long as a look takes.
		this.#meter.begin(next, this.#phase === 'hold' ? next : 0, next > this.#meter.limit ? this.#rate : 0)
		this.#decision = { limit: next, reason }
	}

	#hold(limit: number, reason: string): void {
		this.#limit = this.#clip(limit)
		this.#phase = 'hold'
		this.#allow(this.#limit, reason)
	}

	/** By Little's law, hold times come down at least in proportion to the limit: so by as much as they have grown. */
	#comeDown(seen: Measurement): void {
		const part = Math.max(LEAST_LEFT, Math.min(MOST_LEFT, this.#held / Math.max(seen.held, 0.001)))
		this.#curve.forget()
		this.#hold(Math.min(seen.active, this.#limit) * part, 'most answers come too late')
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
				// Where a rise in proportion meets a fall in proportion, that knee would make this gain.
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

	/** Moves to the top of the parabola, but not further than it looks, and twice as far each time in the same direction. */
	#move(): void {
		const { top } = this.#curve.fit(this.#limit, this.#width)
		const far = Math.min(top > 0 ? UPWARDS : DOWNWARDS, this.#reach * Math.abs(this.#stride))
		this.#limit = this.#clip(this.#limit * Math.exp(Math.max(-far, Math.min(far, top))))
		if (Math.abs(top) <= far) this.#stride = 1
		else this.#stride = Math.sign(top) === Math.sign(this.#stride) ? 2 * this.#stride : Math.sign(top)
		const known = this.#curve.known(this.#limit, this.#width)
		this.#reach = Math.max(NARROWEST, Math.min(WIDEST, known ** -0.25))
	}

	#choose(seen: Measurement): void {
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
		this.#hold(this.#limit, limit > from ? 'more is better' : limit < from ? 'less is as good' : 'stays')
	}

	/** A limit that is not used says nothing, and would let a burst in that nobody has tried. */
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
		this.#allow(this.#limit, 'nobody reached the limit')
		return true
	}
}
