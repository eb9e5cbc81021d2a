import type { Meter } from './permits.js'

/** Measurements of this age, in ms, count half. */
const HALF_LIFE = 15_000

/** While there is no room, a measurement is added at most this often, in ms. */
const INTERVAL = 1_000

/**
 * Measures how fast permits come back while there is no room, to estimate when a rejected caller
 * should try again.
 *
 * Only time without room is measured: an idle minute says nothing about how fast a queue moves. But
 * idle time makes older measurements count less: one slow minute must not outweigh the short bursts
 * of the next hour.
 */
export class Pace implements Meter {
	#permits = 0
	#time = 0
	/** The time of the last measurement, in ms. */
	#at = 0
	/**
	 * While there is no room: since when, or since the last measurement, in ms; and the permits that
	 * came back.
	 */
	#since: number | undefined = undefined
	#returned = 0
	readonly #all: Pace | undefined

	/**
	 * @param all - a pace that gets all measurements of several ones, and is used by those that have
	 * none yet.
	 */
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

	/** Adds a measurement, until now, if there is no room. */
	update(time: number): void {
		if (this.#since === undefined) return
		this.add(this.#returned, time - this.#since, time)
		this.#since = time
		this.#returned = 0
	}

	/** Adds a measurement: in the `time` ms until `now`, without room, `permits` came back. */
	add(permits: number, time: number, now: number): void {
		const weight = 0.5 ** ((now - this.#at) / HALF_LIFE)
		this.#permits = weight * this.#permits + permits
		this.#time = weight * this.#time + time
		this.#at = now
		this.#all?.add(permits, time, now)
	}

	/** The time until `permits` more have come back, in ms; 0 if nothing was measured. */
	timeFor(permits: number): number {
		return this.#permits === 0 ? 0 : (permits * this.#time) / this.#permits
	}

	/**
	 * The time until `permits` more have come back, in s: an integer from 1 to 60; 1 if nothing was
	 * measured.
	 */
	secondsFor(permits: number): number {
		if (this.#permits === 0 && this.#all !== undefined) return this.#all.secondsFor(permits)
		return Math.min(60, Math.max(1, Math.ceil(Math.round(this.timeFor(permits)) / 1000)))
	}
}
