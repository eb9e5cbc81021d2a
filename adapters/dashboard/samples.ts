import { REJECTION_REASONS } from '../../src/errors.js'
import type { SharedLimiter } from '../../src/http/setup.js'
import { type Inspection, inspect } from '../../src/limiter/inspection.js'
import type { LimiterStats } from '../../src/limiter/limiter.js'
import { type DurationStats, Durations } from '../../src/stats/durations.js'
import { busiest, KeyNotes } from './keys.js'

/** The time between two samples, in ms. */
export const INTERVAL = 1000

/** Samples kept of each limiter: 15 minutes. */
export const KEPT = 900

/** Stands for a sample that is the same as the one before. */
const SAME = '0'

/**
 * The fields of a sample, in this order. Counts are since the start of the limiter. Percentiles, in
 * ms, are those of the waits and holds that ended since the sample before; `null` if there were
 * none. `more` is an object with what few limiters have, or 0.
 */
export const FIELDS: readonly string[] = [
	'capacity',
	'active',
	'queued',
	'maxQueue',
	'leftBehind',
	'keys',
	'saturated',
	'admitted',
	'completed',
	'abandoned',
	...REJECTION_REASONS,
	'waitP50',
	'waitP90',
	'waitP99',
	'holdP50',
	'holdP90',
	'holdP99',
	'more',
]

/** The samples of a limiter, one for each interval, kept as the JSON that is sent to pages. */
export class Samples {
	readonly limiter: SharedLimiter
	/** Whether the limiter was closed at the last sample. */
	closed = false
	/** The same string again for a sample that is the same as the one before. */
	readonly #rows: string[] = []
	readonly #waits = new Durations()
	readonly #holds = new Durations()
	readonly #notes: KeyNotes | undefined
	readonly #end: () => void
	#totals = ''

	constructor(limiter: SharedLimiter, keys: boolean) {
		this.limiter = limiter
		const notes = keys ? new KeyNotes() : undefined
		this.#notes = notes
		this.#end = limiter.observe({
			admitted: ({ key, waited }) => {
				this.#waits.record(waited)
				if (key !== undefined && waited > 0) notes?.waited(key, waited)
			},
			released: ({ held }) => this.#holds.record(held),
			rejected: ({ key, waited, reason }) => {
				if (key === undefined) return
				if (waited > 0) notes?.waited(key, waited)
				if (reason !== 'aborted') notes?.rejected(key)
			},
		})
	}

	/** What does not change, and the totals as they were sent last, as JSON. */
	get head(): string {
		const inspection = this.#inspection()
		const settings = inspection && {
			capacity: inspection.capacity,
			keyed: inspection.keyed,
			maxWait: bound(inspection.maxWait),
			order: inspection.order,
			priority: inspection.priority,
			fair: inspection.fair,
			dryRun: inspection.dryRun,
		}
		return `"name":${JSON.stringify(this.limiter.name)},"settings":${JSON.stringify(settings ?? null)},"totals":${this.#totals}`
	}

	/** Some samples, oldest first, as JSON. */
	rows(from: number, to: number): string {
		const rows = this.#rows
		const texts = rows
			.slice(from, to)
			.map((row, i) => (i > 0 && row === rows[from + i - 1] ? SAME : row))
		return `[${texts.join()}]`
	}

	/** Takes a sample. @returns it, and the totals, as JSON; for what is the same as before, 0. */
	take(): string {
		const stats = this.limiter.stats()
		const inspection = this.#inspection()
		this.closed = inspection?.closed === true
		const row = this.#row(stats, inspection)
		const totals = JSON.stringify({
			waits: partsOf(stats.waits),
			holds: partsOf(stats.holds),
			...(this.#notes && inspection?.keyed && { busiest: busiest(inspection.keys()) }),
		})
		const before = this.#rows.at(-1)
		const message = `[${row === before ? SAME : row},${totals === this.#totals ? SAME : totals}]`
		this.#rows.push(row === before ? before : row)
		if (this.#rows.length > KEPT) this.#rows.shift()
		this.#totals = totals
		return message
	}

	close(): void {
		this.#end()
	}

	#row(stats: LimiterStats, inspection: Inspection | undefined): string {
		let saturated = 0
		if (inspection?.keyed) {
			for (const { active, capacity } of inspection.keys()) if (active >= capacity) saturated++
		}
		return JSON.stringify([
			stats.capacity,
			stats.active,
			stats.queued,
			inspection === undefined ? null : bound(inspection.maxQueue),
			inspection?.abandoned ?? null,
			stats.keys,
			saturated,
			stats.admitted,
			stats.completed,
			stats.abandoned,
			...REJECTION_REASONS.map((reason) => stats.rejected[reason]),
			...percentiles(this.#waits),
			...percentiles(this.#holds),
			this.#more(stats, inspection),
		])
	}

	#more(stats: LimiterStats, inspection: Inspection | undefined): object | 0 {
		const { eventLoop, fleet, available } = stats as LimiterStats & {
			fleet?: object
			available?: boolean
		}
		const more = {
			...(eventLoop && {
				loop: { delay: round(eventLoop.delay), overloaded: eventLoop.overloaded },
			}),
			...(fleet && { fleet, available }),
			...(inspection?.reason !== undefined && { why: inspection.reason }),
			...this.#notes?.take(),
		}
		return Object.keys(more).length > 0 ? more : 0
	}

	#inspection(): Inspection | undefined {
		return (this.limiter as { [inspect]?(): Inspection })[inspect]?.()
	}
}

/** JSON has no `Infinity`. */
function bound(value: number): number | null {
	return value === Number.POSITIVE_INFINITY ? null : value
}

/** The percentiles of one interval. Resets `durations` for the next one. */
function percentiles(durations: Durations): (number | null)[] {
	if (durations.count === 0) return [null, null, null]
	const { p50, p90, p99 } = durations.stats()
	durations.reset()
	return [p50, p90, p99].map(round)
}

function partsOf({ p50, p90, p99, max }: DurationStats): number[] {
	return [round(p50), round(p90), round(p99), round(max)]
}

function round(ms: number): number {
	return Math.round(ms * 100) / 100
}
