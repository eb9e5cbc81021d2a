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

/** The part of the context of Koa 3 or 2 that is used. */
export interface ContextLike {
	readonly req: IncomingMessage
	readonly res: ServerResponse
	readonly path: string
	readonly ip: string
	status: number
	body: unknown
	respond?: boolean | undefined
	set(headers: Record<string, string>): unknown
}

export type Next = () => Promise<unknown>

export interface LimitOptions extends LimiterOptions<ContextLike> {
	/**
	 * Answers a rejected request instead of the default answer. Throw the rejection to leave the
	 * answer to the error handling. `next()` would go on to the handler, without a permit.
	 */
	onReject?(rejection: Rejection, ctx: ContextLike, next: Next): unknown
}

export interface Middleware {
	(ctx: ContextLike, next: Next): Promise<void>
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

	async function reject(error: RejectedError, ctx: ContextLike, next: Next): Promise<void> {
		const rejection = rejectionBy(limiter, error, ctx.res)
		if (onReject !== undefined) {
			await onReject(rejection, ctx, next)
			return
		}
		const { headers, body } = answerTo(rejection)
		ctx.status = rejection.status
		ctx.body = body
		ctx.set(headers)
	}

	async function inflightLimit(ctx: ContextLike, next: Next): Promise<void> {
		if (ctx.req === undefined) throw wrongFramework('Koa', 'express')
		let entry: Entry = enterGate(limiter, ctx, ctx.req, ctx.res)
		while (entry.tag === 'waiting') entry = entry.enter(await entry.ready)
		switch (entry.tag) {
			case 'ended':
				// No client waits for an answer, so Koa must not send one.
				ctx.respond = false
				return
			case 'rejected':
				return reject(entry.error, ctx, next)
			case 'skipped':
				await next()
				return
			case 'admitted':
				entry.handlerBegins()
				try {
					await next()
				} finally {
					entry.handlerDone()
				}
		}
	}
	return Object.assign(inflightLimit, { limiter })
}
