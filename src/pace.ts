/** A measurement of this many ms weighs no more than half as much once as much again has been measured. */
const MEMORY = 15_000

/**
 * How fast permits come back while there is no room: what the next one turned away can expect.
 *
 * Only stretches of time in which the semaphore was full the whole time are measured. An idle minute says nothing
 * about how long a queue will take; and with room available nobody asks, so that case costs no look at the clock.
 */
export class Pace {
	#permits = 0
	#time = 0

	/** Adds a stretch of `time` ms without room, in which `permits` came back. */
	add(permits: number, time: number): void {
		this.#permits += permits
		this.#time += time
		if (this.#time > 2 * MEMORY) {
			this.#permits *= MEMORY / this.#time
			this.#time = MEMORY
		}
	}

	/** The time in which `permits` more will have come back, in ms; 0 with nothing measured. */
	timeFor(permits: number): number {
		return this.#permits === 0 ? 0 : (permits * this.#time) / this.#permits
	}

	/** The seconds after which `permits` more will have come back: an integer from 1 to 60; 1 with nothing measured. */
	secondsFor(permits: number): number {
		return Math.min(60, Math.max(1, Math.ceil(this.timeFor(permits) / 1000)))
	}
}
