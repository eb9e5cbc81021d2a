import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RejectedError } from '../errors.js'
import { enter, type Limiter, type Stay } from '../limiter/limiter.js'
import type { AbortSignalLike } from '../semaphore/semaphore.js'
import type { Outcome } from '../stats/observer.js'
import { type Connection, connectionOf, type Member } from './connection.js'
import { onAbandonedHandlerEnd, onHandlerEnd } from './handler-end.js'

/*
 * When an exchange is over. Response finished: over. Client gone and handler done: over. Client gone and handler still
 * at work: the permit is held, as the work goes on, at most for `abandonedTimeout`.
 */

/** A request's admission by a limiter, as its handler sees it. */
export interface Admission {
	/** How long the request waited, in ms; 0 when there was room. */
	readonly waited: number
	/** Requests that were waiting ahead of it when it arrived; 0 when there was room. */
	readonly queued: number
	/** Is aborted when the client leaves, or the permit is lost. To hand to `fetch`, a database, or whatever can stop early. */
	readonly signal: AbortSignal
	/** Gives the permit back early: for a long poll, or the tail of a stream. Only the first call counts. */
	release(): void
}

/** Where the exchange of a request is found: the same for every copy of this package in a process. */
const KEY: unique symbol = Symbol.for('inflight-limit.exchange') as never

interface Limited {
	[KEY]?: Exchange | undefined
}

/** One request and its response, with the limiters that it has met. */
class Exchange implements Member {
	previous: Member | undefined = undefined
	next: Member | undefined = undefined
	/** The place in the limiter met last; the others are behind it. */
	place: Place | undefined = undefined
	over = false
	readonly req: IncomingMessage & Limited
	readonly res: ServerResponse
	readonly #connection: Connection
	readonly #onFinish = (): void => {
		// Node ends the stream of HTTP/2 itself when the client resets it, and it then emits `finish` all the same.
		if (this.res.writableEnded) this.#finish()
	}
	/** The connection is emitting `close`. */
	#closing = false
	#aborter: AbortController | undefined = undefined
	/** Listening to the connection and the response. */
	#attached = false

	constructor(req: IncomingMessage, res: ServerResponse) {
		this.req = req
		this.res = res
		this.#connection = connectionOf(req, res)
	}

	/** The client has left. */
	get gone(): boolean {
		return this.#connection.closed
	}

	get signal(): AbortSignal {
		if (this.#aborter === undefined) {
			this.#aborter = new AbortController()
			if (this.gone) this.#aborter.abort()
		}
		return this.#aborter.signal
	}

	add(place: Place): void {
		place.outer = this.place
		this.place = place
		if (place.outer !== undefined) return
		this.req[KEY] = this
		this.#connection.add(this)
		this.#attached = true
		this.#finisher().on('finish', this.#onFinish)
		// Pipelined behind another response: it gets its socket only when that one has finished, which its own client may
		// put off for ever. What is left to do once the handler has ended it is not work.
		if (this.res.socket === null) onHandlerEnd(this.res, (error) => this.#handlerEnded(error))
	}

	/** A place that was refused is none. If that was because the client left, nobody will end the response. */
	remove(place: Place): void {
		this.place = place.outer
		if (place.outer === undefined) {
			this.req[KEY] = undefined
			this.#detach()
		} else if (this.gone) {
			this.#handlerEnded()
		}
	}

	clientLeft(byHandler: boolean): void {
		this.#detach()
		this.#closing = true
		process.nextTick(() => {
			this.#closing = false
		})
		this.#aborter?.abort()
		// Node marks the response as destroyed only after us, unless it was the handler that destroyed it.
		// With the headers out: `server.closeAllConnections()` must not pass for the handlers of all that have not answered.
		const cutOff = byHandler && this.res.headersSent
		const ended = this.res.writableEnded || this.res.destroyed || cutOff
		let unseen = false
		for (let place = this.place; place !== undefined; place = place.outer) {
			if (place.clientLeft(ended)) unseen = true
		}
		if (unseen) onAbandonedHandlerEnd(this.req, this.res, (error) => this.#handlerEnded(error))
	}

	#handlerEnded(error?: unknown): void {
		// As of version 24, Node itself destroys the responses that were pipelined on a connection while that closes.
		if (this.#closing && (error as { code?: unknown } | undefined)?.code === 'ECONNRESET') return
		if (this.gone) {
			for (let place = this.place; place !== undefined; place = place.outer) place.handlerEnded()
		} else if (this.res.socket === null) {
			this.#finish()
		}
	}

	#finish(): void {
		if (!this.#attached) return
		this.over = true
		this.#attached = false
		this.#connection.delete(this)
		for (let place = this.place; place !== undefined; place = place.outer) place.release()
	}

	#detach(): void {
		if (!this.#attached) return
		this.#attached = false
		this.#connection.delete(this)
		this.#finisher().removeListener('finish', this.#onFinish)
	}

	/** In HTTP/2 the response itself emits `finish` only when its stream closes, which an unread upload puts off. */
	#finisher(): Pick<ServerResponse, 'on' | 'removeListener'> {
		return (this.res as { stream?: ServerResponse }).stream ?? this.res
	}
}

/**
 * A request's place in a limiter: waiting, then at work. It is also the signal that takes it out of the queue.
 *
 * What tells that the handler is done depends on the framework. Koa's middleware sees it, and says so with
 * `handlerBegins` and `handlerDone`. In Express nobody sees it: there the end of the response stands for it.
 */
export class Place implements Admission, AbortSignalLike {
	/** The place in the limiter that the request met before this one. */
	outer: Place | undefined = undefined
	readonly limiter: Limiter
	readonly #exchange: Exchange
	#stay: Stay | undefined = undefined
	#handler: 'unseen' | 'working' | 'done' = 'unseen'
	#abandoned = false
	#waiter: { handleEvent(): void } | undefined = undefined
	#timer: NodeJS.Timeout | undefined = undefined

	constructor(exchange: Exchange, limiter: Limiter) {
		this.#exchange = exchange
		this.limiter = limiter
	}

	get waited(): number {
		return this.#stay?.waited ?? 0
	}

	get queued(): number {
		return this.#stay?.queued ?? 0
	}

	get available(): number {
		return this.#stay?.available ?? 0
	}

	get signal(): AbortSignal {
		const { signal } = this.#exchange
		return this.#stay?.signalWith?.(signal) ?? signal
	}

	get admitted(): boolean {
		return this.#stay !== undefined
	}

	get aborted(): boolean {
		return this.#exchange.gone
	}

	addEventListener(_type: 'abort', waiter: { handleEvent(): void }): void {
		this.#waiter = waiter
	}

	removeEventListener(): void {
		this.#waiter = undefined
	}

	begin(stay: Stay): void {
		this.#stay = stay
	}

	release(): void {
		clearTimeout(this.#timer)
		this.#stay?.leave(this.#abandoned ? 'abandoned' : outcomeOf(this.#exchange.res.statusCode))
	}

	handlerBegins(): void {
		this.#handler = 'working'
	}

	handlerDone(): void {
		this.#handler = 'done'
		if (this.#exchange.gone) this.release()
	}

	/** @returns whether the handler is still at work and only the end of its response will tell when it is done. */
	clientLeft(responseEnded: boolean): boolean {
		if (this.#stay === undefined) {
			this.#waiter?.handleEvent()
			return false
		}
		const done = this.#handler === 'unseen' ? responseEnded : this.#handler === 'done'
		const { abandonedTimeout } = this.limiter
		this.#abandoned = !done
		if (done || abandonedTimeout === 0) {
			this.release()
			return false
		}
		if (abandonedTimeout !== Number.POSITIVE_INFINITY) {
			this.#timer = setTimeout(() => this.release(), abandonedTimeout).unref()
		}
		return this.#handler === 'unseen'
	}

	handlerEnded(): void {
		if (this.#handler === 'unseen') this.release()
	}
}

function outcomeOf(statusCode: number): Outcome {
	if (statusCode < 400) return 'ok'
	return statusCode < 500 ? 'client-error' : 'server-error'
}

/**
 * Lets a request into a limiter.
 *
 * @param subject - what the limiter's own functions are given: `req` or `ctx`.
 * @returns its place, at once or by a promise; or a `RejectedError` at once, if the request is refused without waiting;
 * `undefined` if it is not to be limited, is so already, or is over. The promise is of `undefined` if the client left before
 * its turn, and rejects with a `RejectedError` if the request is refused after waiting.
 * @throws what the limiter's own functions throw.
 */
export function enterLimiter(
	limiter: Limiter,
	subject: object,
	req: IncomingMessage & Limited,
	res: ServerResponse,
): Place | Promise<Place | undefined> | RejectedError | undefined {
	if (res.writableFinished) return undefined
	const exchange = req[KEY] ?? new Exchange(req, res)
	if (exchange.over) return undefined
	for (let place = exchange.place; place !== undefined; place = place.outer) {
		if (place.limiter === limiter) return undefined
	}

	const place = new Place(exchange, limiter)
	const stay = limiter[enter](subject, place)
	if (stay === undefined || 'reason' in stay) return stay
	exchange.add(place)
	if ('leave' in stay) {
		place.begin(stay)
		return place
	}
	return stay.then(
		(begun) => {
			place.begin(begun)
			return place
		},
		(error) => {
			exchange.remove(place)
			if (exchange.gone) return undefined
			throw error
		},
	)
}

/**
 * Gives back all permits that a request holds, as it is no work of the server's.
 *
 * @returns the limiter that it met last; `undefined` if it has met none.
 */
export function releaseAll({ [KEY]: exchange }: IncomingMessage & Limited): Limiter | undefined {
	for (let place = exchange?.place; place !== undefined; place = place.outer) place.release()
	return exchange?.place?.limiter
}

/**
 * The admission of a request by the limiter that it met last.
 *
 * @param request - Express's `req`, Koa's `ctx`, or a request of `node:http`.
 * @returns `undefined` for a request that no limiter has admitted.
 */
export function admission(request: object): Admission | undefined {
	const { [KEY]: own, req } = request as Limited & { req?: Limited }
	for (let place = (own ?? req?.[KEY])?.place; place !== undefined; place = place.outer) {
		if (place.admitted) return place
	}
	return undefined
}
