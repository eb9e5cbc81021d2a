import { now } from './clock.js'
import type { Meter } from './permits.js'
import { Returns } from './returns.js'

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
	 * While there is no room: the time since which it is measured, in ms, and the permits that came
	 * back since then.
	 */
	#since: number | undefined = undefined
	#returned = 0
	readonly #all: Pace | undefined
	readonly #begun: number = now()
	/** The rejected clients that are expected back; `undefined` before the first. */
	#returns: Returns | undefined = undefined

	/**
	 * @param all - a pace that gets the measurements of several paces, and stands in for those that
	 * have none yet.
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

	/** Adds a measurement: in the `time` ms until then, without room, `permits` came back. */
	add(permits: number, time: number, until: number): void {
		const weight = 0.5 ** ((until - this.#at) / HALF_LIFE)
		this.#permits = weight * this.#permits + permits
		this.#time = weight * this.#time + time
		this.#at = until
		this.#all?.add(permits, time, until)
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

	/**
	 * The time after which a caller that is rejected now should come back, in s: an integer from 1 to
	 * 60; 1 if nothing was measured. It is then expected at that time, so the next one is told a
	 * later time.
	 *
	 * @param weight - the permits that it wants.
	 * @param wanted - the permits that the waiters want.
	 * @param taken - the permits that were ever taken.
	 */
	promise(weight: number, wanted: number, taken: number, time: number): number {
		this.update(time)
		const pace = this.#permits === 0 && this.#all !== undefined ? this.#all : this
		const each = pace.timeFor(1)
		if (each === 0) return 1
		this.#returns ??= new Returns(this.#begun)
		return this.#returns.promise(weight, wanted, taken, each, time)
	}
}
