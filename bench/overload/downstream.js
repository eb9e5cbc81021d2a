/**
 * What the handlers wait for, a database for instance: it works on all that it was given at once,
 * and each piece takes `slowdown(n)` times as long as alone when `n` are there.
 *
 * @typedef {object} Knee
 * @property {string} name
 * @property {number} service what a piece of work takes alone, on average, in ms
 * @property {number} knee the most that it can do at once without loss of throughput
 * @property {(ratio: number) => number} slowdown of `n / knee`
 */

/** @type {Knee[]} */
export const downstreams = [
	// Waiting for each other and keeping each other up to date: the Universal Scalability Law
	// (Gunther), with its knee there.
	{ name: 'database', service: 10, knee: 20, slowdown: (ratio) => 1 + ratio ** 2 },
	// As good as free up to the knee, then worse with the 1.5th power.
	{ name: 'sharp', service: 40, knee: 60, slowdown: (ratio) => Math.max(1, ratio ** 1.5) },
	// A smooth bend, then worse with the square: what a server does that begins to swap.
	{ name: 'large', service: 100, knee: 200, slowdown: (ratio) => Math.sqrt(1 + ratio ** 4) },
]

/**
 * The most pieces a second that it can do, and with how many at once: a bound that no limit can
 * pass.
 *
 * @param {Knee} knee
 */
export function peakOf({ service, knee, slowdown }) {
	let rate = 0
	for (let n = 1; n <= 4 * knee; n++)
		rate = Math.max(rate, (1000 * n) / (service * slowdown(n / knee)))
	return rate
}

export class Downstream {
	#clock
	/** Work done so far on each piece that has been there since the beginning, in ms of service. */
	#done = 0
	#since = 0
	/** Sorted by `until`, the latest first. @type {{ until: number, finish: () => void }[]} */
	#pieces = []
	/** @type {unknown} */
	#next = undefined
	/** @type {Knee} */
	knee

	/**
	 * @param {{ now: number, at(at: number, run: () => void): any, cancel(timer: any): void }} clock
	 * @param {Knee} knee
	 */
	constructor(clock, knee) {
		this.#clock = clock
		this.knee = knee
	}

	get active() {
		return this.#pieces.length
	}

	/** @param {number} work 1 for the average piece @param {() => void} finish */
	start(work, finish) {
		this.#progress()
		// What a piece takes is fixed when it comes; a move of the knee changes how fast all go on.
		const until = this.#done + work
		let low = 0
		let high = this.#pieces.length
		while (low < high) {
			const middle = (low + high) >> 1
			if (/** @type {{ until: number }} */ (this.#pieces[middle]).until > until) low = middle + 1
			else high = middle
		}
		this.#pieces.splice(low, 0, { until, finish })
		this.#schedule()
	}

	/** @param {Knee} knee */
	become(knee) {
		this.#progress()
		this.knee = knee
		this.#schedule()
	}

	/** In ms for a piece of average work, at the present load. */
	get #pace() {
		return this.knee.service * this.knee.slowdown(this.#pieces.length / this.knee.knee)
	}

	#progress() {
		const { now } = this.#clock
		if (this.#pieces.length > 0) this.#done += (now - this.#since) / this.#pace
		this.#since = now
	}

	#schedule() {
		this.#clock.cancel(this.#next)
		const first = this.#pieces.at(-1)
		this.#next =
			first === undefined
				? undefined
				: this.#clock.at(this.#clock.now + (first.until - this.#done) * this.#pace, () =>
						this.#finish(),
					)
	}

	#finish() {
		this.#progress()
		const piece = this.#pieces.pop()
		this.#schedule()
		piece?.finish()
	}
}
