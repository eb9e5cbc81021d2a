import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'

/**
 * The longest time in the histogram, in µs: the longest timer. For longer ones, only `max` and
 * `mean` are exact.
 */
const LONGEST = 2_147_483_647_000

/** The distribution of a time, in ms. All figures are 0 when nothing was recorded. */
export interface DurationStats {
	count: number
	mean: number
	/** The median. All percentiles are exact to within 1 %. */
	p50: number
	p90: number
	p99: number
	max: number
}

/**
 * The distribution of a time, in bounded memory: Node's own histogram, in µs with two significant
 * figures.
 *
 * Most waits are exactly 0, but the histogram begins at 1. So zeros are only counted, which is also
 * faster.
 */
export class Durations {
	readonly #histogram: RecordableHistogram = createHistogram({
		lowest: 1,
		highest: LONGEST,
		figures: 2,
	})
	#count = 0
	#sum = 0
	#max = 0

	/** How many were recorded. */
	get count(): number {
		return this.#count
	}

	record(ms: number): void {
		this.#count++
		const microseconds = Math.round(ms * 1000)
		if (microseconds <= 0) return
		this.#sum += ms
		if (ms > this.#max) this.#max = ms
		this.#histogram.record(Math.min(microseconds, LONGEST))
	}

	/** Forgets all that was recorded. */
	reset(): void {
		// It is large, and often nothing is in it.
		if (this.#histogram.count > 0) this.#histogram.reset()
		this.#count = 0
		this.#sum = 0
		this.#max = 0
	}

	stats(): DurationStats {
		const count = this.#count
		const mean = count === 0 ? 0 : this.#sum / count
		return {
			count,
			mean,
			p50: this.#rank(50),
			p90: this.#rank(90),
			p99: this.#rank(99),
			max: this.#max,
		}
	}

	#rank(percent: number): number {
		const recorded = this.#histogram.count
		const rank = (this.#count * percent) / 100 - (this.#count - recorded)
		if (recorded === 0 || rank <= 0) return 0
		return Math.min(this.#max, this.#histogram.percentile((rank / recorded) * 100) / 1000)
	}
}
