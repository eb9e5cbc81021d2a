import type { Sample } from './controller.js'

/** What was seen at one limit. */
export interface Measurement {
	/** Requests at work, on average. */
	readonly active: number
	/** Good answers in a ms: right ones, and those that are wrong by the client's own fault. */
	readonly rate: number
	/** The variance of the logarithm of `rate`. */
	readonly variance: number
	/** Requests that ended when their clients had left, as a part of all. */
	readonly late: number
	/** The mean hold time, in ms. */
	readonly held: number
	/** Requests that ended meanwhile, with those that began before. */
	readonly ended: number
	/** Whether the limit was reached most of the time: only then does it bound the work. */
	readonly full: boolean
}

/**
 * Requests for each unit of the squared coefficient of variation of hold times: with 25, the standard deviation of the
 * logarithm of the rate is 1 / sqrt(25), a fifth.
 */
const TELLING = 25

/** The shortest measurement, in ms: below that, turns of the event loop and collections of garbage are what is seen. */
const MOMENT = 25

/**
 * From this squared coefficient of variation on, answers are counted; below it, hold times tell more. That of a log-normal
 * distribution with sigma 0.5 is 0.28, that of an exponential one 1.
 */
const MIXED = 0.4

/** Of fewer requests, that most are late says nothing. */
const FEW = 4

/** The limit bounds the work when at least this part of the requests ended while it was full. */
const REACHED = 1 / 3

/** Where answers are counted: so many times as many as the limit, that is so many mean hold times. */
const ROUNDS = 2

/** After so many times the time that it should take at the rate before, it is known that it takes longer. */
const OVERDUE = 2

/** Of how many requests the variation of hold times is known, about. */
const MEMORY = 300

/** Before anything is known, hold times are taken to vary as exponential ones do; that counts as so many requests. */
const UNSURE = 4

/** Bounds of the variation, and the shortest hold time, in ms: what a clock can't tell apart is not certain. */
const [LEAST_VARIATION, MOST_VARIATION] = [0.001, 20]
const SHORTEST = 0.001

/** Of a measurement, since it began. */
class Tally {
	/** Requests that ended, and of them those that were good, and those at a full limit. */
	ended = 0
	allGood = 0
	full = 0
	/** Sums of what they saw, and of their hold times. */
	active = 0
	held = 0
	squares = 0
	/** Of those that began at this limit: how many, how many were good or too late, and the sum of their hold times. */
	fresh = 0
	late = 0
	freshGood = 0
	freshHeld = 0
	/** Answers that are still of the limit before. */
	settling = 0
	/** The time in which the limit was full, after that; and what ended in it. */
	time = 0
	counted = 0
	good = 0
}

/**
 * Measures the rate of good answers at a limit, in one of two ways.
 *
 * By Little's law it is the number at work divided by the mean hold time. With n requests, its logarithm has the variance
 * of the hold times over n times their squared mean: so where hold times vary little, a few requests tell it.
 *
 * Where fast and slow ones are mixed, the first to end are the fast ones, and the mean of those says little. There answers
 * are counted, and the time in which they came: after as many answers as the limit, which takes one mean hold time, as then
 * most of those at work began at this limit.
 */
export class Meter {
	limit: number
	#tally = new Tally()
	#begun = 0
	#since = 0
	#now = 0
	#wasFull = false
	#least = 0
	#rate = 0
	/** The squared coefficient of variation of hold times at one limit, and of how many requests it is known. */
	#variation = 1
	#known = UNSURE

	constructor(limit: number) {
		this.limit = limit
	}

	/**
	 * Begins to measure at a limit.
	 *
	 * @param least how many requests must end before it is complete
	 * @param rate in answers a ms, below which it need not be complete; 0: none
	 */
	begin(limit: number, least: number, rate: number): void {
		const tally = new Tally()
		this.#tally = tally
		if (limit !== this.limit) {
			this.#since = this.#now
			tally.settling = Math.ceil(limit * Math.max(1, this.#variation))
			this.#wasFull = false
		}
		this.limit = limit
		this.#begun = this.#now
		this.#least = least
		this.#rate = rate
	}

	/** @returns the measurement, when it is complete. */
	add({ active, queued, outcome, held, now }: Sample): Measurement | undefined {
		const time = now - this.#now
		this.#now = now
		const tally = this.#tally
		const good = outcome === 'ok' || outcome === 'client-error'
		const full = queued > 0 || active >= this.limit
		tally.ended++
		tally.active += Math.min(active, this.limit)
		tally.held += held
		tally.squares += held ** 2
		if (full) tally.full++
		if (good) tally.allGood++
		if (now - held >= this.#since) {
			tally.fresh++
			tally.freshHeld += held
			if (good) tally.freshGood++
			if (outcome === 'abandoned') tally.late++
		}
		if (tally.settling > 0) {
			if (active <= this.limit) tally.settling--
		} else if (full && this.#wasFull) {
			tally.time += time
			tally.counted++
			if (good) tally.good++
		}
		this.#wasFull = full
		if (tally.ended < Math.max(2, this.#least) || now - this.#begun < MOMENT) return undefined
		const variation = this.#blended()
		const telling = TELLING * variation
		const used = tally.full >= tally.ended * REACHED
		if (!used && tally.ended >= 2 * (this.limit + telling)) return this.#complete(false)
		if (used && full && this.#tells(variation, telling)) return this.#complete(true)
		const late = OVERDUE * (this.limit + Math.max(this.limit, telling))
		return this.#rate > 0 && (now - this.#begun) * this.#rate > late ? this.#overdue(full) : undefined
	}

	/** Whether enough was seen. */
	#tells(variation: number, telling: number): boolean {
		const { fresh, counted, time } = this.#tally
		if (variation >= MIXED) return time > 0 && counted >= Math.max(telling, ROUNDS * this.limit)
		// The first to end are those that take the least: so a round of them is needed, unless they are all alike.
		const round = this.limit * Math.min(1, 4 * variation)
		return fresh >= Math.max(2, round, telling)
	}

	/** The variation as it was known before, and as it is seen now. */
	#blended(): number {
		const { ended, held, squares } = this.#tally
		const mean = Math.max(held / ended, SHORTEST)
		const spread = Math.max(0, squares - ended * mean ** 2) / mean ** 2
		const variation = (this.#known * this.#variation + spread) / (this.#known + ended - 1)
		return Math.min(Math.max(variation, LEAST_VARIATION), MOST_VARIATION)
	}

	#complete(full: boolean): Measurement {
		this.#variation = this.#blended()
		this.#known = Math.min(this.#known + this.#tally.ended, MEMORY)
		const { fresh, freshGood, freshHeld, good, counted, time } = this.#tally
		const counts = this.#variation >= MIXED
		const [all, well] = counts ? [counted, good] : [fresh, freshGood]
		const seen = this.#seen(full)
		if (well === 0) return { ...seen, rate: 0, variance: 1 }
		const part = (well + 0.5) / (all + 0.5)
		// Over less than some hold times, answers come as by chance, whatever the variation.
		const variation = counts ? Math.max(1, this.#variation) : this.#variation
		return {
			...seen,
			rate: counts
				? well / Math.max(time, SHORTEST)
				: (seen.active * part * fresh) / Math.max(freshHeld, SHORTEST * fresh),
			variance: variation / all + (1 - part) / (part * all),
		}
	}

	/** It takes longer than it should: then what has ended tells enough. */
	#overdue(full: boolean): Measurement {
		const { allGood } = this.#tally
		const variance = 1 / Math.max(1, allGood)
		return { ...this.#seen(full), rate: allGood / (this.#now - this.#begun), variance }
	}

	#seen(full: boolean): Omit<Measurement, 'rate' | 'variance'> {
		const { active, held, ended, late, fresh } = this.#tally
		return { active: active / ended, held: held / ended, late: late / Math.max(FEW, fresh), ended, full }
	}
}
