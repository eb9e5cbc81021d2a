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
 * - `queue-full`: there was no room, and the queue was full.
 * - `timeout`: it had waited as long as it may.
 * - `evicted`: it made room for one with a better right to wait.
 * - `closed`: the limiter is shutting down.
 * - `overloaded`: the event loop is late.
 * - `aborted`: its client left, it was answered by something else, or its signal was aborted.
 * - `unavailable`: what the limiter is shared through (Redis, or the primary of a cluster) does not
 *   answer.
 */
export type RejectionReason = (typeof REJECTION_REASONS)[number]

/** How busy a limit is. */
export interface Load {
	/** Permits held. */
	readonly active: number
	/** Permits there are. */
	readonly capacity: number
	/** Callers waiting. */
	readonly queued: number
}

/**
 * A caller was rejected instead of being given a permit.
 *
 * It can be passed to the error handling of a framework, which answers with it: by `next(error)` in
 * Express, by a throw in Koa. Its message and its enumerable properties are fit for clients.
 * `active`, `capacity` and `queued` are for logs: they are not enumerable, so that no handler sends
 * them by accident.
 *
 * Recognise it by `code`, not by `instanceof`: one process can hold two copies of this package.
 */
export class RejectedError extends Error implements Load {
	override readonly name: string = 'RejectedError'
	readonly code = 'ERR_INFLIGHT_REJECTED'
	readonly reason: RejectionReason
	/**
	 * In how many seconds to try again: an integer from 1 to 60, from the recent pace at which
	 * permits came back, and from the number of callers that were told to come back before.
	 */
	readonly retryAfter: number
	/** The status to answer with: that of the limiter, or `503` where there is none. */
	readonly status: number = 503
	/** The same as `status`: some frameworks use the one, some the other. */
	readonly statusCode: number = 503
	/** The message may be sent to the client. */
	readonly expose = true
	/** The fields to answer with: `Retry-After`, and those of the limiter if it has any. */
	readonly headers: Readonly<Record<string, string>>
	readonly #active: number
	readonly #capacity: number
	readonly #queued: number

	/**
	 * @param reason - why.
	 * @param retryAfter - in how many seconds to try again.
	 * @param load - how busy the limit is now.
	 */
	constructor(reason: RejectionReason, retryAfter: number, load: Load) {
		super(`Rejected (${reason}): try again in ${retryAfter} s`)
		this.reason = reason
		this.retryAfter = retryAfter
		this.headers = { 'Retry-After': String(retryAfter) }
		this.#active = load.active
		this.#capacity = load.capacity
		this.#queued = load.queued
	}

	/** Permits held when it was rejected. */
	get active(): number {
		return this.#active
	}

	/** Permits there were. */
	get capacity(): number {
		return this.#capacity
	}

	/** Callers that were waiting. */
	get queued(): number {
		return this.#queued
	}
}

/**
 * The codes of errors that have no class of their own. docs/errors.md has cause and remedy of each.
 */
type ErrorCode =
	| 'ERR_INFLIGHT_CAPACITY_FOUND'
	| 'ERR_INFLIGHT_MISSING_OPTION'
	| 'ERR_INFLIGHT_NAME_TAKEN'
	| 'ERR_INFLIGHT_NO_PRIMARY'
	| 'ERR_INFLIGHT_OPTIONS_DIFFER'
	| 'ERR_INFLIGHT_OUT_OF_RANGE'
	| 'ERR_INFLIGHT_UNKNOWN_OPTION'
	| 'ERR_INFLIGHT_UNSUPPORTED'
	| 'ERR_INFLIGHT_WRONG_TYPE'

/** Gives an error its code. Every error of the package has one. */
export function coded<E extends Error>(
	code: ErrorCode,
	error: E,
): E & { readonly code: ErrorCode } {
	return Object.assign(error, { code })
}

/**
 * Whether the depth of stacks can be set. If the built-in objects are frozen, errors keep their
 * stacks.
 */
const ADJUSTABLE = Object.getOwnPropertyDescriptor(Error, 'stackTraceLimit')?.writable === true

/**
 * The errors that `make` creates have no stack. It costs more than the rest of a rejection, and
 * says nothing about the rejected request.
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

/** What user code threw, as text. Some values throw when they are converted. */
export function inWords(thrown: unknown): string {
	try {
		return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)
	} catch {
		return `a value of type ${typeof thrown}`
	}
}
