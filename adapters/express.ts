import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RejectedError } from '../src/errors.js'
import { type Entry, enterGate } from '../src/http/exchange.js'
import { answerTo, type Rejection, rejectionBy } from '../src/http/rejection.js'
import { readLimit, type SharedLimiter, wrongFramework } from '../src/http/setup.js'
import type { Limiter } from '../src/limiter/limiter.js'
import type { LimiterOptions } from '../src/limiter/options.js'

export { RejectedError } from '../src/errors.js'
export { type AddressKeyOptions, addressKey } from '../src/http/address-key.js'
export { admission } from '../src/http/exchange.js'
export type { Rejection } from '../src/http/rejection.js'
export type { Admission } from '../src/http/ticket.js'
export { Limiter, type LimiterStats } from '../src/limiter/limiter.js'
export type { LimiterOptions } from '../src/limiter/options.js'

/** A request of Express 5 or 4, connect, or `node:http`. */
export interface RequestLike extends IncomingMessage {
	readonly ip?: string | undefined
	readonly path?: string | undefined
	readonly originalUrl?: string | undefined
}

export type Next = (error?: unknown) => void

export interface LimitOptions extends LimiterOptions<RequestLike> {
	/**
	 * Answers a rejected request instead of the default answer. Call `next(rejection)` to leave the
	 * answer to the error handling. `next()` would go on to the handler, without a permit.
	 */
	onReject?(rejection: Rejection, req: RequestLike, res: ServerResponse, next: Next): unknown
}

export interface Middleware {
	(req: RequestLike, res: ServerResponse, next: Next): void
	/** Its limiter: for figures, to close it, or to share it. */
	readonly limiter: Limiter
}

/**
 * Middleware that bounds how many requests are at work at the same time. Requests above `capacity`
 * wait in a queue. Requests above the bounds of the queue are rejected with a 503 (429 with `key`),
 * `Retry-After` and an RFC 9457 body.
 *
 * ```ts
 * app.use(limit(3))
 * app.get('/report', limit({ capacity: 2, maxQueue: 10, maxWait: 5_000 }), renderReport)
 * ```
 *
 * @param options - the capacity, or an object with it, or a {@link Limiter} to share.
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or
 * unknown.
 */
export function limit(options: number | LimitOptions | SharedLimiter): Middleware
export function limit(
	options: number | LimitOptions | SharedLimiter,
	second?: unknown,
): Middleware {
	const { limiter, onReject } = readLimit(options, second)

	function answer(
		error: RejectedError,
		req: RequestLike,
		res: ServerResponse,
		next: Next,
	): unknown {
		const rejection = rejectionBy(limiter, error, res)
		if (onReject !== undefined) return onReject(rejection, req, res, next)
		if (res.headersSent) return next(rejection)
		const { headers, body } = answerTo(rejection)
		// Not chained: the `writeHead` of express-ws returns nothing.
		res.writeHead(rejection.status, headers)
		return res.end(body)
	}

	async function reject(
		error: RejectedError,
		req: RequestLike,
		res: ServerResponse,
		next: Next,
	): Promise<void> {
		try {
			await answer(error, req, res, next)
		} catch (failure) {
			next(failure)
		}
	}

	function goOn(entry: Entry, req: RequestLike, res: ServerResponse, next: Next): void {
		if (entry.tag === 'waiting') wait(entry, req, res, next)
		else if (entry.tag === 'rejected') reject(entry.error, req, res, next)
		else if (entry.tag !== 'ended') next()
	}

	async function wait(
		waiting: Entry & { tag: 'waiting' },
		req: RequestLike,
		res: ServerResponse,
		next: Next,
	): Promise<void> {
		const ready = await waiting.ready
		let entry: Entry
		try {
			entry = waiting.enter(ready)
		} catch (error) {
			next(error)
			return
		}
		goOn(entry, req, res, next)
	}

	function inflightLimit(req: RequestLike, res: ServerResponse, next: Next): void {
		if (next === undefined) throw wrongFramework('Express', 'koa')
		let entry: Entry
		try {
			entry = enterGate(limiter, req, req, res)
		} catch (error) {
			next(error)
			return
		}
		goOn(entry, req, res, next)
	}
	return Object.assign(inflightLimit, { limiter })
}
