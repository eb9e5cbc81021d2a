import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RejectedError } from '../src/errors.js'
import { enterLimiter, type Place } from '../src/http/exchange.js'
import { announce, announces } from '../src/http/headers.js'
import { type Rejection, refusalOf, rejectionBy } from '../src/http/rejection.js'
import { readLimit, type SharedLimiter } from '../src/http/setup.js'
import type { Limiter, LimiterOptions } from '../src/limiter/limiter.js'

export { type Admission, admission } from '../src/http/exchange.js'
export type { Rejection } from '../src/http/rejection.js'
export { Limiter, type LimiterOptions, type LimiterStats } from '../src/limiter/limiter.js'

/** A request of Express 5 or 4, connect, or `node:http`. */
export interface RequestLike extends IncomingMessage {
	readonly ip?: string | undefined
	readonly path?: string | undefined
	readonly originalUrl?: string | undefined
}

export type Next = (error?: unknown) => void

export interface LimitOptions extends LimiterOptions<RequestLike> {
	/** Answers a refused request instead of the default answer. `next(rejection)` leaves it to the error handling. */
	onReject?(rejection: Rejection, req: RequestLike, res: ServerResponse, next: Next): unknown
}

export interface Middleware {
	(req: RequestLike, res: ServerResponse, next: Next): void
	/** The limiter at work in it: for its figures, to close it, or to share it. */
	readonly limiter: Limiter
}

/**
 * Middleware that bounds how many requests are worked on at the same time. Those past `capacity` wait their turn; those
 * past the bounds of waiting are refused with a 503 (429 with `key`), `Retry-After` and an RFC 9457 body.
 *
 * ```ts
 * app.use(limit(3))
 * app.get('/report', limit({ capacity: 2, maxQueue: 10, maxWait: 5_000 }), renderReport)
 * ```
 *
 * @param options - the capacity, or an object with it, or a {@link Limiter} to share.
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or unknown.
 */
export function limit(options: number | LimitOptions | SharedLimiter): Middleware {
	const { limiter, onReject } = readLimit(options)
	const announcing = announces(limiter)

	function refuse(error: RejectedError, req: RequestLike, res: ServerResponse, next: Next): unknown {
		const rejection = rejectionBy(limiter, error, res)
		if (onReject !== undefined) return onReject(rejection, req, res, next)
		if (res.headersSent) return next(rejection)
		const { headers, body } = refusalOf(rejection)
		return res.writeHead(rejection.status, headers).end(body)
	}

	async function turnAway(
		error: RejectedError,
		req: RequestLike,
		res: ServerResponse,
		next: Next,
	): Promise<void> {
		try {
			await refuse(error, req, res, next)
		} catch (failure) {
			next(failure)
		}
	}

	async function wait(
		waiting: Promise<Place | undefined>,
		req: RequestLike,
		res: ServerResponse,
		next: Next,
	): Promise<void> {
		let place: Place | undefined
		try {
			place = await waiting
		} catch (error) {
			return turnAway(error as RejectedError, req, res, next)
		}
		if (place === undefined) return
		if (announcing) announce(place, res)
		next()
	}

	function inflightLimit(req: RequestLike, res: ServerResponse, next: Next): void {
		let entered: ReturnType<typeof enterLimiter>
		try {
			entered = enterLimiter(limiter, req, req, res)
		} catch (error) {
			next(error)
			return
		}
		if (entered === undefined) {
			next()
		} else if ('then' in entered) {
			wait(entered, req, res, next)
		} else if ('reason' in entered) {
			turnAway(entered, req, res, next)
		} else {
			if (announcing) announce(entered, res)
			next()
		}
	}
	return Object.assign(inflightLimit, { limiter })
}
