import { coded, type RejectedError } from '../errors.js'
import type { AbortSignalLike } from '../semaphore/signals.js'
import type { Outcome } from '../stats/observer.js'

/**
 * The method by which a request enters a gate. An object that has it is a gate and not options,
 * whichever copy of this package made it.
 *
 * @internal
 */
export const enter: unique symbol = Symbol.for('inflight-limit.enter') as never

/** A request that is not limited: the gate does not count it. */
export interface Skipped {
	readonly tag: 'skipped'
}

/** A request that has its permits. */
export interface Stay {
	readonly tag: 'admitted'
	/** How long it waited, in ms. */
	readonly waited: number
	/** Requests that were queued ahead of it when it arrived. */
	readonly queued: number
	/** Requests at work at once; with `key`, of its key. */
	readonly capacity: number
	/** Permits that were left when it was admitted; with `key`, those of its key. */
	readonly available: number
	/**
	 * A signal that is aborted with `client`, and also when the permit is lost. Absent where no
	 * permit can be lost.
	 */
	signalWith?(client: AbortSignal): AbortSignal
	/**
	 * Changes how many permits it has. Absent where that can't change.
	 *
	 * @throws TypeError, RangeError - `weight` is not an integer from 1.
	 */
	weigh?(weight: number): void
	/** The client has left, and the handler is still at work. */
	abandon?(): void
	/** Ends the stay: gives its permits back. Only the first call counts. */
	leave(outcome: Outcome): void
}

/** @throws Error - the stay can't change how many permits it has. */
export function weigh(stay: Stay, weight: number): void {
	if (stay.weigh === undefined) {
		const message = 'weigh must not be called: this limiter cannot change a weight'
		throw coded('ERR_INFLIGHT_UNSUPPORTED', new Error(message))
	}
	stay.weigh(weight)
}

/** A request that is rejected. With the reason `aborted`, no client waits for an answer. */
export interface Rejected {
	readonly tag: 'rejected'
	readonly error: RejectedError
}

/** A request that is queued. `settled` never rejects. */
export interface Queued {
	readonly tag: 'waiting'
	readonly settled: Promise<Stay | Rejected>
}

/** What becomes of a request that enters a gate. */
export type Entrance = Skipped | Stay | Queued | Rejected

export const SKIPPED: Skipped = { tag: 'skipped' }

/** The limit before a handler: one of this process, or one that several processes share. */
export interface Gate {
	/** What it is called in figures, headers and messages. */
	readonly name: string
	/** Requests at work at once; with `key`, for each key. */
	readonly capacity: number
	/** How long a handler may hold its permit after its client left, in ms. */
	readonly abandonedTimeout: number
	/** How long a client may take nothing of what waits for it, in ms. */
	readonly stallTimeout: number
	/** Status of a rejection. */
	readonly statusCode: number
	/** Whether clients are told how long they waited. */
	readonly serverTiming: boolean
	/** Whether clients are told the capacity, and what is left of it. */
	readonly rateLimitFields: boolean
	/**
	 * @internal
	 * @param request - what the gate's own functions are given.
	 * @param signal - is aborted once the request is over. It is checked first: a request that is
	 * over is rejected with `aborted`, and no function of the options is called for it.
	 * @throws what the user's functions throw, or a `TypeError` or `RangeError` for what they
	 * returned.
	 */
	[enter](request: object, signal: AbortSignalLike): Entrance
}
