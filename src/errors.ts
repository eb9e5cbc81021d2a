/** All reasons, in the order in which figures show them. */
export const REJECTION_REASONS = [
	'queue-full',
	'timeout',
	'evicted',
	'closed',
	'overloaded',
	'aborted',
	'unavailable',
] as const

/**
 * Why a caller was rejected.
 *
 * - `queue-full`: there was no room, and as many were waiting as may wait.
 * - `timeout`: it had waited as long as it may.
 * - `evicted`: it made room for one with a better right to wait.
 * - `closed`: the limiter is shutting down.
 * - `overloaded`: the event loop is late.
 * - `aborted`: its client left, it was answered by something else, or its signal was aborted.
 * - `unavailable`: Redis, through which the limiter is shared, does not answer.
 */
export type RejectionReason = (typeof REJECTION_REASONS)[number]

/**
 * A caller was rejected instead of being given a permit.
 *
 * Recognise it by `code`, not by `instanceof`: one process can hold two copies of this package.
 */
export class RejectedError extends Error {
	override readonly name: string = 'RejectedError'
	readonly code = 'ERR_INFLIGHT_REJECTED'
	readonly reason: RejectionReason
	/** In how many seconds to try again: an integer from 1 to 60, from the pace at which permits came back lately. */
	readonly retryAfter: number

	constructor(reason: RejectionReason, retryAfter: number, message: string) {
		super(message)
		this.reason = reason
		this.retryAfter = retryAfter
	}
}

/** Whoever has frozen the intrinsics of the language pays for the stacks. */
const ADJUSTABLE = Object.getOwnPropertyDescriptor(Error, 'stackTraceLimit')?.writable === true

/**
 * The errors that `make` creates have no stack: it costs more than all else of a refusal, and of a refused request it
 * would tell nothing.
 */
export function withoutStack<T>(make: () => T): T {
	if (!ADJUSTABLE) return make()
	const { stackTraceLimit } = Error
	Error.stackTraceLimit = 0
	try {
		return make()
	} finally {
		Error.stackTraceLimit = stackTraceLimit
	}
}

/** What user code threw, in words, whatever it is: not everything can be made a string. */
export function inWords(thrown: unknown): string {
	try {
		return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)
	} catch {
		return `a value of type ${typeof thrown}`
	}
}
