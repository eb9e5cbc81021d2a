/** What a {@link import('./downstream.js').Downstream} needs of a clock, from the real one. */
export class RealClock {
	get now() {
		return performance.now()
	}

	/** @param {number} at @param {() => void} run */
	at(at, run) {
		return setTimeout(run, Math.max(0, at - performance.now()))
	}

	/** @param {NodeJS.Timeout | undefined} timer */
	cancel(timer) {
		clearTimeout(timer)
	}
}
