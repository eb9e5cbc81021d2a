import type { Sample } from './controller.js'

/*
 * How it works: what is wanted is the capacity at which most requests are answered in a second. Past a knee more work at
 * once means fewer answers; before it, more. So the prober counts good answers while the limit is full, for a moment
 * with a little more allowed and for a moment with a little less, right after each other, and moves to the better side
 * once the evidence of several such pairs is beyond chance. It compares neighbours in time only and remembers no latency,
 * so there is no baseline that could drift, and none that must be measured at an empty server.
 *
 * When the answers change beyond chance at an unchanged limit, or a direction pays clearly, it does not creep: it searches,
 * doubling or halving as long as that pays.
 */

/** Good answers counted at each of two neighbouring limits. */
const PAIR = 32

/** Good answers counted between pairs, at most, and for how long, in ms: at the limit itself, which serves best. */
const HOLD = 400
const HOLD_TIME = 260

/** How far a pair is from the limit on either side, where `HOLD` answers come in a hold; further where fewer come. */
const REACH = 0.13
const [SHORTEST, LONGEST] = [0.12, 0.3]

/** A limit must bring at least this share of the answers it would without a knee: what keeps it short of the knee's top. */
const WORTH = 0.2

/** How many standard deviations are evidence, and how much of the evidence of earlier pairs remains at each. */
const EVIDENCE = 2
const MEMORY = 0.87

/** How far the limit moves on evidence, and from which slope on it searches instead. */
const STEP = 0.2
const STEEP = 0.6

/** Answers counted at each limit of a search, the steps of it, and how many ms it waits for them. */
const SEARCH = 40
const UP = 1.7
const DOWN = 0.5
const PATIENCE = 600

/** A limit that nobody reached for so long, in ms, comes down to what is used (as in RFC 7661 for TCP), and a fifth more. */
const UNUSED = 1_000

/** Answers counted at one limit. */
interface Count {
	readonly limit: number
	good: number
	/** In ms. */
	time: number
}

function rateOf({ good, time }: Count): number {
	return time === 0 ? 0 : good / time
}

export class Prober {
	readonly #min: number
	readonly #max: number
	readonly #initial: number
	/** Where it believes the best to be; what it allows now is `#count.limit`. */
	#limit: number
	#doing: 'search' | 'hold' | 'pair' = 'search'
	#count: Count
	/** The first half of a pair. */
	#half: Count | undefined = undefined
	#upFirst = true
	/** Answers a ms in the last hold; 0: not known. */
	#rate = 0
	#hold = PAIR
	#reach = 0.2
	/** The sums over the pairs so far of log ratios of rates, of their variances, and of the log ratios of limits. */
	#evidence = 0
	#variance = 0
	#span = 0
	/** In a search: the best so far, whether up or down, and whether it has been the other way already. */
	#best: Count | undefined = undefined
	#factor = UP
	#turned = false
	/** After a change, nothing is counted until the work has followed it. */
	#settling = true
	#settledAt = 0
	#now = 0
	#wasFull = false
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
		this.#count = { limit: initial, good: 0, time: 0 }
	}

	sample({ active, queued, outcome, now, held }: Sample): number {
		const count = this.#count
		const full = queued > 0 || active >= count.limit
		const fullSince = this.#wasFull
		const time = now - this.#now
		this.#wasFull = full
		this.#now = now
		this.#held += 0.1 * (held - this.#held)
		this.#peak = Math.max(this.#peak, active)
		this.#reached ||= full
		if (now - this.#peakSince > UNUSED) this.#shrinkToUse(now)
		else if (full && this.#settling) this.#settle(active)
		else if (full && fullSince) {
			// Only what came while the limit was full the whole time tells of the limit, and not of the traffic.
			count.time += time
			if (outcome === 'ok' || outcome === 'client-error') count.good++
			this.#decide()
		}
		return this.#count.limit
	}

	#settle(active: number): void {
		if (active > this.#count.limit || this.#now < this.#settledAt) return
		this.#settling = false
	}

	#decide(): void {
		const { good, time } = this.#count
		if (this.#doing === 'search') {
			if (this.#searchedEnough()) this.#searched()
			return
		}
		if (this.#rate > 0) {
			const expected = time * this.#rate
			const fell = expected >= 20 && good < expected / 3
			const rose = good >= 20 && good > 2.5 * expected
			if (fell || rose) {
				this.#search(fell ? DOWN : UP)
				return
			}
		}
		if (this.#doing === 'pair') {
			if (good >= PAIR || time > 1_000) this.#halfDone()
		} else if (good >= this.#hold || (time > HOLD_TIME && good >= PAIR)) {
			this.#rate = good / time
			this.#reach = Math.min(LONGEST, Math.max(SHORTEST, REACH * Math.sqrt(HOLD / good)))
			this.#upFirst = !this.#upFirst
			this.#try(this.#upFirst)
		}
	}

	#allow(limit: number): void {
		const clipped = Math.min(this.#max, Math.max(this.#min, Math.round(limit)))
		this.#settling = true
		this.#settledAt = this.#now + (clipped > this.#count.limit ? Math.min(this.#held, 100) : 0)
		this.#wasFull = false
		this.#count = { limit: clipped, good: 0, time: 0 }
	}

	#try(up: boolean): void {
		this.#doing = 'pair'
		const reach = Math.max(1, this.#reach * this.#limit)
		this.#allow(this.#limit + (up ? reach : -reach))
	}

	#halfDone(): void {
		if (this.#half === undefined) {
			this.#half = this.#count
			this.#try(!this.#upFirst)
			return
		}
		const [up, down] = this.#upFirst ? [this.#half, this.#count] : [this.#count, this.#half]
		const span = Math.log(up.limit / down.limit)
		if (span > 0 && up.good > 0 && down.good > 0) {
			const gain = Math.log(rateOf(up) / rateOf(down)) - WORTH * span
			this.#evidence = MEMORY * this.#evidence + gain
			this.#variance = MEMORY ** 2 * this.#variance + 1 / up.good + 1 / down.good
			this.#span = MEMORY * this.#span + span
			if (Math.abs(this.#evidence) > EVIDENCE * Math.sqrt(this.#variance)) {
				this.#move()
				return
			}
			this.#hold = Math.min(HOLD, this.#hold * 1.5)
		}
		this.#settleFor(this.#limit)
	}

	#move(): void {
		const slope = Math.max(-1, Math.min(1, this.#evidence / this.#span))
		this.#forget()
		if (slope > STEEP) this.#search(UP)
		else this.#settleFor(this.#limit * Math.exp(STEP * slope))
	}

	#forget(): void {
		this.#evidence = 0
		this.#variance = 0
		this.#span = 0
		this.#hold = PAIR
	}

	/** Holds a limit, until the next pair. */
	#settleFor(limit: number): void {
		this.#limit = Math.min(this.#max, Math.max(this.#min, limit))
		this.#half = undefined
		this.#doing = 'hold'
		this.#allow(this.#limit)
	}

	#search(factor: number): void {
		this.#half = undefined
		this.#best = undefined
		this.#factor = factor
		this.#turned = false
		this.#doing = 'search'
		this.#allow(this.#limit)
	}

	/** By how much this limit of a search is better than the best so far: half of what it would bring without a knee counts as none. */
	#gainOver(best: Count): number {
		return Math.log(rateOf(this.#count) / rateOf(best)) - 0.5 * Math.log(this.#count.limit / best.limit)
	}

	#searchedEnough(): boolean {
		const { good, time } = this.#count
		if (good >= SEARCH || time > PATIENCE) return true
		if (this.#best === undefined || good < 10) return false
		return Math.abs(this.#gainOver(this.#best)) > 2.5 * Math.sqrt(1 / good + 1 / SEARCH)
	}

	#searched(): void {
		const best = this.#best
		const here = this.#count
		if (best === undefined || (here.limit !== best.limit && this.#gainOver(best) > 0)) {
			this.#turned = best !== undefined
			this.#best = here
			this.#allow(here.limit * this.#factor)
		} else if (!this.#turned) {
			this.#turned = true
			this.#factor = this.#factor === UP ? DOWN : UP
			this.#allow(best.limit * this.#factor)
		} else {
			this.#rate = 0
			this.#forget()
			this.#settleFor(best.limit)
		}
	}

	/** A limit that is not used says nothing, and would let a burst in that nobody has tried. */
	#shrinkToUse(now: number): void {
		const used = Math.max(this.#initial, 1.2 * this.#peak)
		const { limit } = this.#count
		const unused = !this.#reached && Math.ceil(used) < limit
		this.#peak = 0
		this.#peakSince = now
		this.#reached = false
		if (unused) this.#settleFor(Math.floor(0.7 * limit + 0.3 * used))
	}
}
