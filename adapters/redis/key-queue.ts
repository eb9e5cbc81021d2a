import { Pace } from '../../src/semaphore/pace.js'
import { type Linked, WaitQueue } from '../../src/semaphore/wait-queue.js'
import { accountOf } from './protocol.js'

/**
 * What one process has of one key: its callers that wait, and what the others hold. Without keys,
 * there is one of it.
 */
export class KeyQueue<Caller extends Linked<Caller>> {
	readonly key: string | undefined
	/** What Redis calls the key. */
	readonly account: string
	/** In the order in which they came. */
	readonly waiting: WaitQueue<Caller> = new WaitQueue()
	/** Permits held by this process. */
	active = 0
	/**
	 * What was held, in permits, when the last session ended: Redis keeps that for this process until
	 * its lease ends.
	 */
	kept = 0
	/** Callers that waited in the whole fleet, as last known. */
	inFleet = 0
	readonly pace: Pace
	/** With a key: how many that waited were admitted here. */
	#admitted = 0
	/**
	 * The permits given, and when, at the last admission of one that had waited, while others wait.
	 */
	#measured: { given: number; at: number } | undefined = undefined

	/** @param pace - that of all keys. */
	constructor(key: string | undefined, pace: Pace | undefined) {
		this.key = key
		this.account = accountOf(key)
		this.pace = new Pace(pace)
	}

	/** Callers of this process that wait. */
	get queued(): number {
		return this.waiting.size
	}

	/** Nothing need be kept of it. */
	get empty(): boolean {
		return this.active === 0 && this.kept === 0 && this.waiting.size === 0
	}

	/**
	 * Which of the processes get one permit more when they divide a capacity: another one for each
	 * key.
	 */
	get offset(): number {
		return this.key === undefined ? 0 : Buffer.from(this.account.slice(1, 9), 'base64url').readUInt32BE()
	}

	/**
	 * Measures how fast permits come back: by what was given between two admissions of callers that
	 * waited.
	 *
	 * @param token - of the second: without keys, tokens count what was given in the whole fleet.
	 */
	measure(token: number): void {
		const now = performance.now()
		const given = this.key === undefined ? token : ++this.#admitted
		const before = this.#measured
		// Only while somebody here waits all the time, the time between them is that of a full limit.
		if (before !== undefined && given > before.given) {
			this.pace.add(given - before.given, now - before.at, now)
		}
		this.#measured = this.waiting.size > 0 ? { given, at: now } : undefined
	}

	/** In how many seconds one that is rejected now can expect a permit. */
	get retryAfter(): number {
		return this.pace.secondsFor(Math.max(this.key === undefined ? this.inFleet : 0, this.queued) + 1)
	}
}
