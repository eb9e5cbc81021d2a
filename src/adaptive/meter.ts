import type { Sample } from './controller.js'

/** What was seen at one limit. */
export interface Measurement {
	/** Requests at work, on average. */
	readonly active: number
	/** Good answers per ms: successes, and errors that are the client's fault. */
	readonly rate: number
	/** The variance of the logarithm of `rate`. */
	readonly variance: number
	/** The fraction of requests that ended after their clients had left. */
	readonly late: number
	/** The mean hold time, in ms. */
	readonly held: number
	/** Requests that ended during the measurement, also if they began before it. */
	readonly ended: number
	/** Whether the limit was reached most of the time: only then does it bound the work. */
	readonly full: boolean
}

/**
 * Requests per unit of the squared coefficient of variation of hold times. With 25, the standard
 * deviation of the logarithm of the rate is 1 / sqrt(25), a fifth.
 */
const TELLING = 25

/**
 * The shortest measurement, in ms. A shorter one would measure the event loop and the garbage
 * collector.
 */
const MOMENT = 25

/**
 * Squared coefficient of variation of hold times from which answers are counted. Below it, hold
 * times are more precise. A log-normal distribution with sigma 0.5 has 0.28, an exponential one 1.
 */
const MIXED = 0.4

/** Fewer requests than this show neither a rate nor that most are late. */
const FEW = 4

/**
 * Most are late when this fraction of the requests at work have no client any more. Not half: where
 * fast and slow ones are mixed, most of those at work are slow.
 */
const DESERTED = 0.8

/** The limit bounds the work if at least this fraction of requests ended while it was full. */
const REACHED = 1 / 3

/** When answers are counted: how many, as a multiple of the limit (one is one mean hold time). */
const ROUNDS = 2

/** A measurement is overdue after this multiple of the time that it takes at the rate before. */
const OVERDUE = 2

/** The variation of hold times is that of about this number of recent requests. */
const MEMORY = 300

/**
 * The first assumption, that hold times are exponential, counts as much as this number of measured
 * requests.
 */
const UNSURE = 4

/** Bounds of the variation, and the shortest hold time, in ms: a clock is not more precise. */
const [LEAST_VARIATION, MOST_VARIATION] = [0.001, 20]
const SHORTEST = 0.001

/** What a measurement has counted since it began. */
class Tally {
	/** Requests that ended; of these, the good ones, and those that ended at a full limit. */
	ended = 0
	good = 0
	full = 0
	/** The time with requests at work, in ms, and the integral of their number over it. */
	busy = 0
	active = 0
	/** Sums over those that ended: hold times, squares of hold times. */
	held = 0
	squares = 0
	/**
	 * Those that began at this limit: all, the late ones, the good ones, and the sum of hold times.
	 */
	fresh = 0
	late = 0
	freshGood = 0
	freshHeld = 0
	/** Answers still to come of requests that began at the limit before. */
	settling = 0
	/** Those that ended after these: all, the good ones, and the sum of hold times. */
	settled = 0
	settledGood = 0
	settledHeld = 0
	/** Of these, those that ended while the limit was full, and the time for which it was. */
	timed = 0
	timedGood = 0
	time = 0
}

/**
 * Measures the rate of good answers at a limit, in one of two ways.
 *
 * 1. By Little's law, rate = requests at work / mean hold time. With n requests, the variance of its
 *    logarithm is the squared coefficient of variation of the hold times, divided by n. So if hold
 *    times vary little, a few requests are enough.
 * 2. If fast and slow requests are mixed, answers are counted over time: that is more precise.
 *
 * Both begin after one mean hold time (as many answers as the limit), because from then on most
 * requests at work began at this limit. Before that, of those that began at it, only the shortest
 * have ended: so each new limit would look better than it is. A brief measurement does not wait for
 * this. It looks too good, and is only compared with another one that looks too good as well.
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
	#brief = true
	#lowered = false
	/**
	 * Squared coefficient of variation of hold times at one limit; requests that it was taken from.
	 */
	#variation = 1
	#known = UNSURE

	constructor(limit: number) {
		this.limit = limit
	}

	/**
	 * Begins to measure at a limit.
	 *
	 * @param least - requests that must end before the measurement is complete.
	 * @param rate - the rate before, in answers per ms, which makes a measurement overdue; 0: none.
	 * @param brief - whether it is complete after as many requests as the limit, of those that begin
	 * at it.
	 */
	begin(limit: number, least: number, rate: number, brief: boolean): void {
		const tally = new Tally()
		this.#tally = tally
		this.#brief = brief
		if (limit !== this.limit) {
			this.#lowered = limit < this.limit
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
	add({ active, queued, abandoned, outcome, held, now }: Sample): Measurement | undefined {
		const time = now - this.#now
		this.#now = now
		const tally = this.#tally
		const good = outcome === 'ok' || outcome === 'client-error'
		const full = queued > 0 || active >= this.limit
		tally.ended++
		// An average over time, not over requests: those that began together end together. The time
		// since this one began, at most: before, the server may have been idle.
		const busy = Math.min(time, held)
		tally.busy += busy
		tally.active += Math.min(active, this.limit) * busy
		tally.held += held
		tally.squares += held ** 2
		if (full) tally.full++
		if (good) tally.good++
		// After a fall, those that have waited in a long line come first. They say nothing of this limit.
		if (now - held >= this.#since && !(this.#lowered && tally.settling > 0)) {
			tally.fresh++
			tally.freshHeld += held
			if (good) tally.freshGood++
			if (outcome === 'abandoned') tally.late++
		}
		if (tally.settling > 0) {
			if (active <= this.limit) tally.settling--
		} else {
			tally.settled++
			tally.settledHeld += held
			if (good) tally.settledGood++
			if (full && this.#wasFull) {
				tally.timed++
				tally.time += time
				if (good) tally.timedGood++
			}
		}
		this.#wasFull = full
		// They need not end to tell that they are late.
		const settled = !this.#lowered || tally.settling === 0
		if (settled && full && active >= FEW && abandoned > DESERTED * active)
			return { ...this.#complete(true), late: 1 }
		if (tally.ended < Math.max(2, this.#least) || now - this.#begun < MOMENT) return undefined
		const variation = this.#blended()
		const telling = TELLING * variation
		const used = tally.full >= tally.ended * REACHED
		if (!used && tally.ended >= 2 * (this.limit + telling)) return this.#complete(false)
		// Half of the limit, as those that leave early end first.
		const late = tally.fresh >= Math.max(FEW, this.limit / 2) && tally.late > tally.fresh / 2
		if (used && full && (late || this.#tells(variation, telling))) return this.#complete(true)
		const due = OVERDUE * (this.limit + Math.max(this.limit, telling))
		return this.#rate > 0 && (now - this.#begun) * this.#rate > due
			? this.#overdue(full)
			: undefined
	}

	/** Whether enough requests were measured. */
	#tells(variation: number, telling: number): boolean {
		const { fresh, settled, timed, time } = this.#tally
		if (this.#brief) return fresh >= Math.max(FEW, this.limit)
		if (variation >= MIXED) return time > 0 && timed >= Math.max(telling, ROUNDS * this.limit)
		// The shortest requests end first. So as many as the limit are needed, unless all are alike.
		const round = this.limit * Math.min(1, 4 * variation)
		return settled >= Math.max(2, round, telling)
	}

	/** The variation known before, combined with that of this measurement. */
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
		const tally = this.#tally
		const counts = this.#variation >= MIXED && !this.#brief
		const [all, well, time] = counts
			? [tally.timed, tally.timedGood, tally.time]
			: this.#brief
				? [tally.fresh, tally.freshGood, tally.freshHeld]
				: [tally.settled, tally.settledGood, tally.settledHeld]
		const seen = this.#seen(full)
		if (well === 0) return { ...seen, rate: 0, variance: 1 }
		const part = (well + 0.5) / (all + 0.5)
		// Over only a few hold times, answers arrive at random, whatever the variation.
		const variation = counts ? Math.max(1, this.#variation) : this.#variation
		return {
			...seen,
			rate: counts
				? well / Math.max(time, SHORTEST)
				: (seen.active * part * all) / Math.max(time, SHORTEST * all),
			variance: variation / all + (1 - part) / (part * all),
		}
	}

	/** The measurement of an overdue one: its slowness says enough. */
	#overdue(full: boolean): Measurement {
		const { good } = this.#tally
		const variance = 1 / Math.max(1, good)
		return { ...this.#seen(full), rate: good / (this.#now - this.#begun), variance }
	}

	#seen(full: boolean): Omit<Measurement, 'rate' | 'variance'> {
		const { active, busy, held, ended, late, fresh } = this.#tally
		return {
			active: busy > 0 ? active / busy : this.limit,
			held: held / ended,
			late: late / Math.max(FEW, fresh),
			ended,
			full,
		}
	}
}
