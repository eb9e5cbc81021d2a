import type { Meter } from './permits.js'

/** What was measured so long ago, in ms, weighs half. */
const HALF_LIFE = 15_000

/** How often a stretch without room is added while it lasts, in ms. */
const INTERVAL = 1_000

/**
 * How fast permits come back while there is no room: what a rejected caller can expect.
 *
 * Only the time without room is measured: an idle minute says nothing about how long a queue will take. But it makes
 * older measurements count less: one slow minute must not outweigh all the short rushes of the next hour.
 */
export class Pace implements Meter {
	#permits = 0
	#time = 0
	/** When it was measured last, in ms. */
	#at = 0
	/** The stretch without room that lasts: when it began, or was added last; and the permits that came back since. */
	#since: number | undefined = undefined
	#returned = 0
	readonly #all: Pace | undefined

	/** @param all - that of many like this one: it measures what they measure, and stands in for those that have nothing measured. */
	constructor(all?: Pace) {
		this.#all = all
	}

	full(time: number): void {
		this.#since ??= time
	}

	returned(permits: number, time: number): void {
		this.#returned += permits
		if (this.#since !== undefined && time - this.#since > INTERVAL) this.update(time)
	}

	room(time: number): void {
		this.update(time)
		this.#since = undefined
	}

	/** Adds the stretch that lasts, until now. */
	update(time: number): void {
		if (this.#since === undefined) return
		this.add(this.#returned, time - this.#since, time)
		this.#since = time
		this.#returned = 0
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
