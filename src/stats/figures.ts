import { REJECTION_REASONS, type RejectionReason } from '../errors.js'
import { type DurationStats, Durations } from './durations.js'
import { type Observer, Observers, type Outcome } from './observer.js'

/** What a limiter has counted since its start: a plain object, fit for JSON. */
export interface Counts {
	/** Requests given a permit. When all have weight 1: `active + completed + abandoned`. */
	admitted: number
	/**
	 * Requests that have ended, and were not abandoned: the client stayed, or left when the handler
	 * was done; or the handler ended its response as soon as its signal was aborted, or gave its
	 * permit back early.
	 */
	completed: number
	/**
	 * Requests that have ended, and whose handler was still at work when the client left; and those
	 * whose client was cut off after `stallTimeout`.
	 */
	abandoned: number
	/** Requests that were rejected, by reason. */
	rejected: Record<RejectionReason, number>
	/** How long admitted requests had waited, in ms. */
	waits: DurationStats
	/** How long permits were held, in ms. */
	holds: DurationStats
}

/** The partition, or the limiter, in which something happened. */
interface Gauge {
	readonly active: number
	readonly queued: number
}

/** Counts what a limiter does, and calls its observers. */
export class Figures {
	/** The name of the limiter. */
	readonly #limiter: string
	readonly #waits = new Durations()
	readonly #holds = new Durations()
	readonly #rejected = Object.fromEntries(REJECTION_REASONS.map((reason) => [reason, 0])) as Record<
		RejectionReason,
		number
	>
	#admitted = 0
	#completed = 0
	#abandoned = 0
	/** Requests at work whose client has left. */
	leftBehind = 0
	readonly #observers = new Observers()

	constructor(limiter: string) {
		this.#limiter = limiter
	}

	counts(): Counts {
		return {
			admitted: this.#admitted,
			completed: this.#completed,
			abandoned: this.#abandoned,
			rejected: { ...this.#rejected },
			waits: this.#waits.stats(),
			holds: this.#holds.stats(),
		}
	}

	observe(observer: Observer): () => void {
		return this.#observers.add(observer)
	}

	admitted(waited: number, key: string | undefined, { active, queued }: Gauge): void {
		this.#admitted++
		this.#waits.record(waited)
		if (this.#observers.size === 0) return
		this.#observers.tell('admitted', { limiter: this.#limiter, key, active, queued, waited })
	}

	released(
		waited: number,
		held: number,
		outcome: Outcome,
		key: string | undefined,
		{ active, queued }: Gauge,
	): void {
		if (outcome === 'abandoned') this.#abandoned++
		else this.#completed++
		this.#holds.record(held)
		if (this.#observers.size === 0) return
		this.#observers.tell('released', {
			limiter: this.#limiter,
			key,
			active,
			queued,
			waited,
			held,
			outcome,
		})
	}

	rejected(
		reason: RejectionReason,
		waited: number,
		key: string | undefined,
		{ active, queued }: Gauge,
	): void {
		this.#rejected[reason]++
		if (this.#observers.size === 0) return
		this.#observers.tell('rejected', {
			limiter: this.#limiter,
			key,
			active,
			queued,
			reason,
			waited,
		})
	}

	resized(capacity: number, key?: string): void {
		if (this.#observers.size > 0)
			this.#observers.tell('resized', { limiter: this.#limiter, key, capacity })
	}

	availability(available: boolean): void {
		if (this.#observers.size > 0)
			this.#observers.tell('availability', { limiter: this.#limiter, available })
	}
}
