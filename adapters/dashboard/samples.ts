import { REJECTION_REASONS } from '../../src/errors.js'
import type { SharedLimiter } from '../../src/http/setup.js'
import { Durations } from '../../src/stats/durations.js'

/** The time between two samples, in ms. */
export const INTERVAL = 1000

/** Samples kept of each limiter: 15 minutes. */
const KEPT = 900

/** Keys kept of one interval: those that waited longest. */
const KEYS = 5

/** Keys are cut to this length, in characters: clients may send keys of any length. */
const LONGEST_KEY = 80

/**
 * The fields of a sample, in this order. Counts are since the start of the limiter. Percentiles, in
 * ms, are those of the waits and holds that ended since the sample before; `null` if there were
 * none. `longest` has the keys that waited longest since then, each with its wait in ms; it is
 * empty unless the option `keys` is set.
 */
export const FIELDS: readonly string[] = [
	'time',
	'capacity',
	'active',
	'queued',
	'keys',
	'admitted',
	'completed',
	'abandoned',
	...REJECTION_REASONS,
	'waitP50',
	'waitP99',
	'holdP50',
	'holdP99',
	'longest',
]

/** The samples of a limiter, one for each interval, kept as the JSON that is sent to pages. */
export class Samples {
	readonly limiter: SharedLimiter
	readonly #rows: string[] = []
	readonly #waits = new Durations()
	readonly #holds = new Durations()
	readonly #end: () => void
	#longest: [key: string, waited: number][] = []

	constructor(limiter: SharedLimiter, keys: boolean) {
		this.limiter = limiter
		const note = (key: string | undefined, waited: number): void => {
			if (keys && key !== undefined && waited > 0) this.#note(key.slice(0, LONGEST_KEY), waited)
		}
		this.#end = limiter.observe({
			admitted: ({ key, waited }) => {
				this.#waits.record(waited)
				note(key, waited)
			},
			released: ({ held }) => this.#holds.record(held),
			rejected: ({ key, waited }) => note(key, waited),
		})
	}

	/** All samples that are kept, oldest first, as JSON. */
	get rows(): string {
		return `[${this.#rows.join()}]`
	}

	/** Takes a sample. @returns the sample and the limiter's `stats()`, as JSON. */
	take(time: number): string {
		const stats = this.limiter.stats()
		const row = JSON.stringify([
			time,
			stats.capacity,
			stats.active,
			stats.queued,
			stats.keys,
			stats.admitted,
			stats.completed,
			stats.abandoned,
			...REJECTION_REASONS.map((reason) => stats.rejected[reason]),
			...percentiles(this.#waits),
			...percentiles(this.#holds),
			this.#longest,
		])
		this.#longest = []
		this.#rows.push(row)
		if (this.#rows.length > KEPT) this.#rows.shift()
		return `{"row":${row},"stats":${JSON.stringify(stats)}}`
	}

	close(): void {
		this.#end()
	}

	#note(key: string, waited: number): void {
		const known = this.#longest.find(([other]) => other === key)
		if (known !== undefined) {
			known[1] = Math.max(known[1], waited)
			return
		}
		this.#longest.push([key, waited])
		if (this.#longest.length <= KEYS) return
		const shortest = Math.min(...this.#longest.map(([, ms]) => ms))
		this.#longest.splice(
			this.#longest.findIndex(([, ms]) => ms === shortest),
			1,
		)
	}
}

/** The percentiles of one interval. Resets `durations` for the next one. */
function percentiles(durations: Durations): [p50: number | null, p99: number | null] {
	const { count, p50, p99 } = durations.stats()
	durations.reset()
	return count === 0 ? [null, null] : [round(p50), round(p99)]
}

function round(ms: number): number {
	return Math.round(ms * 100) / 100
}
