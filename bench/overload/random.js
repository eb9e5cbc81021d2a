/**
 * A seeded source of random numbers: the same seed gives the same run, to the digit. The generator
 * is mulberry32.
 *
 * @param {number} seed
 */
export function randomFrom(seed) {
	let state = seed | 0
	const next = () => {
		state = (state + 0x6d2b79f5) | 0
		let mixed = Math.imul(state ^ (state >>> 15), state | 1)
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
	}
	return {
		/** From 0 to 1. */
		next,
		/**
		 * Exponentially distributed: the times between arrivals of a Poisson process. @param {number}
		 * mean
		 */
		exponential: (mean) => -mean * Math.log(1 - next()),
	}
}

/** @typedef {ReturnType<typeof randomFrom>} Random */
