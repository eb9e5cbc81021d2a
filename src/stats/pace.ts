/** What was measured so long ago, in ms, weighs half. */
const HALF_LIFE = 15_000

/**
 * How fast permits come back while there is no room: what the next one turned away can expect.
 *
 * Only stretches of time in which the semaphore was full the whole time are measured. An idle minute says nothing
 * about how long a queue will take; and with room available nobody asks, so that case costs no look at the clock. But it
 * makes what was measured before weigh less: one slow minute must not outweigh all the short rushes of the next hour.
 */
export class Pace {
	#permits = 0
	#time = 0
	/** When it was measured last, in ms. */
	#at = 0
	readonly #all: Pace | undefined

	/** @param all - that of many like this one: it measures what they measure, and stands in for those that have nothing measured. */
	constructor(all?: Pace) {
		this.#all = all
	}

	/** Adds a stretch of `time` ms without room until `now`, in which `permits` came back. */
	add(permits: number, time: number, now: number): void {
		const weight = 0.5 ** ((now - this.#at) / HALF_LIFE)
		this.#permits = weight * this.#permits + permits
		this.#time = weight * this.#time + time
		this.#at = now
		this.#all?.add(permits, time, now)
	}

	/** The time in which `permits` more will have come back, in ms; 0 with nothing measured. */
	timeFor(permits: number): number {
		return this.#permits === 0 ? 0 : (permits * this.#time) / this.#permits
	}

	/** The seconds after which `permits` more will have come back: an integer from 1 to 60; 1 with nothing measured. */
	secondsFor(permits: number): number {
		if (this.#permits === 0 && this.#all !== undefined) return this.#all.secondsFor(permits)
		return Math.min(60, Math.max(1, Math.ceil(Math.round(this.timeFor(permits)) / 1000)))
	}
}
