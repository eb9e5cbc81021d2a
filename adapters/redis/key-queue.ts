import { Pace } from '../../src/semaphore/pace.js'
import { type Linked, WaitQueue } from '../../src/semaphore/wait-queue.js'
import { accountOf } from './protocol.js'

/**
 * The state of one key in one process: the callers that wait, and the permits held. Without keys,
 * there is only one.
 */
export class KeyQueue<Caller extends Linked<Caller>> {
	readonly key: string | undefined
	/** The name of the key in Redis. */
	readonly account: string
	/** In the order in which they came. */
	readonly waiting: WaitQueue<Caller> = new WaitQueue()
	/** Permits held by this process. */
	active = 0
	/**
	 * Permits held when the last session ended: Redis keeps them for this process until its lease
	 * ends.
	 */
	kept = 0
	/** Callers that waited in the whole fleet, as last known. */
	inFleet = 0
	readonly pace: Pace
	/** With a key: how many waiters were admitted in this process. */
	#admitted = 0
	/**
	 * The permits given so far, and the time, at the last admission of a waiter; `undefined` if it
	 * left the queue empty.
	 */
	#measured: { given: number; at: number } | undefined = undefined

	/** @param pace - the pace of all keys. */
	constructor(key: string | undefined, pace: Pace | undefined) {
		this.key = key
		this.account = accountOf(key)
		this.pace = new Pace(pace)
	}

	/** Callers of this process that wait. */
	get queued(): number {
		return this.waiting.size
	}

	/** Whether it can be forgotten. */
	get empty(): boolean {
		return this.active === 0 && this.kept === 0 && this.waiting.size === 0
	}

	/**
	 * When processes divide a capacity, some get one permit more: this number makes them different
	 * processes for each key.
	 */
	get offset(): number {
		return this.key === undefined
			? 0
			: Buffer.from(this.account.slice(1, 9), 'base64url').readUInt32BE()
	}

	/**
	 * Measures how fast permits come back, by the permits given between two admissions of waiters.
	 *
	 * @param token - the token of the second one: without keys, tokens count the permits given in the
	 * whole fleet.
	 */
	measure(token: number): void {
		const now = performance.now()
		const given = this.key === undefined ? token : ++this.#admitted
		const before = this.#measured
		// The time between two admissions only counts if the queue was not empty meanwhile: then the
		// limit was full.
		if (before !== undefined && given > before.given) {
			this.pace.add(given - before.given, now - before.at, now)
		}
		this.#measured = this.waiting.size > 0 ? { given, at: now } : undefined
	}

	/** In how many seconds a caller that is rejected now can expect a permit. */
	get retryAfter(): number {
		return this.pace.secondsFor(
			Math.max(this.key === undefined ? this.inFleet : 0, this.queued) + 1,
		)
	}
}
