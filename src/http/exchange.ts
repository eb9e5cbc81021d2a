import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { wrongType } from '../checks.js'
import {
	enter,
	type Gate,
	type Rejected,
	SKIPPED,
	type Skipped,
	type Stay,
} from '../limiter/gate.js'
import {
	type Connection,
	connectionOf,
	type Departure,
	type Occupant,
	turnOf,
} from './connection.js'
import { onAbandonedHandlerEnd, onHandlerDestroy, onHandlerEnd } from './handler-done.js'
import { announce } from './headers.js'
import { hasWaited, waitsFor } from './idle-permits.js'
import { type Admission, Ticket } from './ticket.js'

/*
 * What ends an exchange:
 *
 *   open ── the response has finished ──► over: its permits come back
 *     └──── the client has left ────────► left: its permits come back when the handler is done, or
 *                                         after `abandonedTimeout`: its work goes on
 *
 * Only an open exchange can enter a gate, and be admitted after it has waited. Whether it is open
 * is decided by states (is the connection closed, is the response ended) and not by events, which
 * may not come.
 */

/**
 * The request is over: its client has left, or it was answered. Its handler must not run, and no
 * client waits for an answer.
 */
interface Ended {
	readonly tag: 'ended'
}

/** The request waits: for its turn on its connection, or in a queue. */
interface Waiting {
	readonly tag: 'waiting'
	readonly ready: Promise<Stay | Rejected | undefined>
	/**
	 * Must be called with what `ready` resolves to, at once. Returns what has become of the request
	 * by then.
	 */
	enter(ready: Stay | Rejected | undefined): Entry
}

/** What has become of a request that has met a gate. The tag of a ticket is `admitted`. */
export type Entry = Skipped | Ticket | Waiting | Rejected | Ended

const ENDED: Ended = { tag: 'ended' }

/**
 * Where the exchange of a request is found: the same for every copy of this package in a process.
 */
const KEY: unique symbol = Symbol.for('inflight-limit.exchange') as never

/** The time between two looks at whether a file has been sent, in ms. */
const FILE_LOOK = 1_000

interface Limited {
	[KEY]?: Exchange | undefined
}

/** One request and its response, with the tickets that it has. */
class Exchange implements Occupant {
	readonly req: IncomingMessage & Limited
	readonly res: ServerResponse
	/** The ticket of the gate that was met last; the others are behind it. */
	ticket: Ticket | undefined = undefined
	readonly #connection: Connection
	#state: 'open' | 'left' | 'over' = 'open'
	/** It has the connection, and listens to the response. */
	#attached = false
	/**
	 * The request was answered: while it waited, or by an end that the response does not show yet.
	 */
	#answered = false
	/** The handler has destroyed a response of HTTP/2. Its own state does not show that. */
	#destroyed = false
	#aborter: AbortController | undefined = undefined
	readonly #onFinish = (): void => {
		// Node emits `finish` also for what a connection that was cut off could not send.
		if (this.#state !== 'open' || this.#connection.stalled) return
		if (isSent(this.res)) this.#finish()
		else if (streamOf(this.res)?.aborted === false) setTimeout(this.#onFinish, FILE_LOOK).unref?.()
	}
	#onAnswer: (() => void) | undefined = undefined

	constructor(req: IncomingMessage, res: ServerResponse) {
		this.req = req
		this.res = res
		this.#connection = connectionOf(req, res)
	}

	get ended(): boolean {
		if (this.#state !== 'open' || this.#answered || this.#connection.closed) return true
		return isAnswered(this.res) || this.res.destroyed
	}

	get abandoned(): boolean {
		return this.#state === 'left'
	}

	get signal(): AbortSignal {
		if (this.#aborter === undefined) {
			this.#aborter = new AbortController()
			// After the answer, the server itself may have closed it.
			if (this.#connection.closed && this.#state !== 'over') this.#aborter.abort()
		}
		return this.#aborter.signal
	}

	/** The shortest timeout of the gates whose permits it holds. */
	get stallTimeout(): number {
		let shortest = Number.POSITIVE_INFINITY
		for (let ticket = this.ticket; ticket !== undefined; ticket = ticket.outer) {
			if (ticket.held) shortest = Math.min(shortest, ticket.gate.stallTimeout)
		}
		return shortest
	}

	hasMet(gate: Gate): boolean {
		for (let ticket = this.ticket; ticket !== undefined; ticket = ticket.outer) {
			if (ticket.gate === gate) return true
		}
		return false
	}

	admit(ticket: Ticket, stay: Stay): Ticket {
		this.#add(ticket)
		return this.#begin(ticket, stay)
	}

	/** Begins to wait in the queue of a gate. Any answer takes the request out of the queue. */
	queue(ticket: Ticket): void {
		this.#add(ticket)
		this.#onAnswer ??= () => this.#answer()
		finisherOf(this.res).on('prefinish', this.#onAnswer)
		this.res.on('pipe', this.#onAnswer)
	}

	/** Ends the wait. The gate decided some time ago: the request can be over by now. */
	dequeue(ticket: Ticket, outcome: Stay | Rejected): Entry {
		if (this.#onAnswer !== undefined) {
			finisherOf(this.res).removeListener('prefinish', this.#onAnswer)
			this.res.removeListener('pipe', this.#onAnswer)
		}
		if (outcome.tag === 'admitted' && !this.ended) {
			hasWaited(ticket, outcome.waited)
			return this.#begin(ticket, outcome)
		}
		this.#remove(ticket)
		if (outcome.tag === 'rejected') return unlessAborted(outcome)
		outcome.leave('abandoned')
		return ENDED
	}

	left(why: Departure): void {
		if (this.#state !== 'open') return
		this.#state = 'left'
		this.#detach()
		this.#aborter?.abort()
		const done = this.#handlerDone(why)
		this.#leaveQueues()
		let unseen = false
		for (let ticket = this.ticket; ticket !== undefined; ticket = ticket.outer) {
			if (ticket.abandon(done, why === 'stalled')) unseen = true
		}
		if (!unseen) return
		onAbandonedHandlerEnd(this.req, this.res, () => {
			for (let ticket = this.ticket; ticket !== undefined; ticket = ticket.outer)
				ticket.abandonedEnd()
		})
	}

	#begin(ticket: Ticket, stay: Stay): Ticket {
		ticket.admit(stay)
		this.#connection.watch()
		announce(ticket, this.res)
		return ticket
	}

	#add(ticket: Ticket): void {
		ticket.outer = this.ticket
		this.ticket = ticket
		if (this.#attached) return
		this.#attached = true
		const { req, res } = this
		req[KEY] = this
		this.#connection.occupy(this)
		finisherOf(res).on('finish', this.#onFinish)
		if (streamOf(res) !== undefined) {
			onHandlerDestroy(res, () => {
				this.#destroyed = true
			})
		} else if (res.socket == null) {
			// A response that was made by hand never gets a socket, so it emits no `finish`: its end
			// counts instead.
			onHandlerEnd(res, () => this.#finish())
			return
		}
		// Middleware that has replaced `end`, like compression, may end the response long after the
		// handler has called it, or never once the client has left.
		if (Object.hasOwn(res, 'end')) onHandlerEnd(res, () => this.#answer())
	}

	#remove(ticket: Ticket): void {
		if (this.ticket === ticket) this.ticket = ticket.outer
		for (let inner = this.ticket; inner !== undefined; inner = inner.outer) {
			if (inner.outer === ticket) inner.outer = ticket.outer
		}
		if (this.ticket !== undefined) return
		this.req[KEY] = undefined
		this.#detach()
	}

	#detach(): void {
		if (!this.#attached) return
		this.#attached = false
		this.#connection.vacate()
		finisherOf(this.res).removeListener('finish', this.#onFinish)
	}

	#answer(): void {
		this.#answered = true
		this.#leaveQueues()
	}

	#finish(): void {
		if (this.#state !== 'open') return
		this.#state = 'over'
		this.#connection.vacate()
		this.#leaveQueues()
		for (let ticket = this.ticket; ticket !== undefined; ticket = ticket.outer) ticket.release()
	}

	#leaveQueues(): void {
		for (let ticket = this.ticket; ticket !== undefined; ticket = ticket.outer) ticket.leaveQueue()
	}

	/**
	 * Whether nothing more can come of the handler, as far as the response shows, when the client has
	 * left.
	 */
	#handlerDone(why: Departure): boolean {
		const { req, res } = this
		for (let ticket = this.ticket; ticket !== undefined; ticket = ticket.outer) {
			// It still waits for another gate, so the handler will never run.
			if (!ticket.admitted) return true
		}
		// A WebSocket has no response: its end is that of its connection.
		if ((req as { upgrade?: boolean }).upgrade === true) return true
		// Node marks a response of HTTP/1 as destroyed only after this, unless the handler has
		// destroyed it.
		if (this.#answered || isAnswered(res) || res.destroyed || this.#destroyed) return true
		// Only with the headers sent, or if the request itself was destroyed: otherwise
		// `server.closeAllConnections()` would count as the end of all handlers that have not answered.
		return why === 'handler' && (res.headersSent || req.aborted)
	}
}

function streamOf(res: ServerResponse): (ServerHttp2Stream & { _final?: unknown }) | undefined {
	return (res as { stream?: ServerHttp2Stream }).stream
}

/**
 * What emits `finish`. A response of HTTP/2 does so only when its stream closes, which an unread
 * upload delays.
 */
function finisherOf(res: ServerResponse): Pick<ServerResponse, 'on' | 'removeListener'> {
	return (streamOf(res) as unknown as ServerResponse | undefined) ?? res
}

/**
 * Whether the response was ended. A stream of HTTP/2 that the client has reset does not count: Node
 * itself ends it.
 */
function isAnswered(res: ServerResponse): boolean {
	const stream = streamOf(res)
	if (stream === undefined) return res.writableEnded || res.writableFinished
	return res.writableEnded || (stream.writableEnded && !stream.aborted)
}

/**
 * Whether a response that emits `finish` has been sent. Not if it is a stream that the client has
 * reset, or one that still sends a file.
 */
function isSent(res: ServerResponse): boolean {
	const stream = streamOf(res)
	if (stream === undefined) return true
	// With `respondWithFile`, Node ends the stream first and then sends the file. It does not say when
	// that is done, and the stream does not close before its client has ended the upload.
	return !stream.aborted && (stream._final !== null || stream.state.localClose === 1)
}

function unlessAborted(rejected: Rejected): Rejected | Ended {
	return rejected.error.reason === 'aborted' ? ENDED : rejected
}

/**
 * Lets a request enter a gate.
 *
 * @param subject - what the gate's own functions are given: `req` or `ctx`.
 * @throws what the gate's own functions throw.
 */
export function enterGate(
	gate: Gate,
	subject: object,
	req: IncomingMessage & Limited,
	res: ServerResponse,
): Entry {
	const turn = turnOf(req, res)
	if (turn !== undefined) {
		return { tag: 'waiting', ready: turn, enter: () => enterGate(gate, subject, req, res) }
	}
	const exchange = req[KEY] ?? new Exchange(req, res)
	if (exchange.hasMet(gate)) return exchange.ended ? ENDED : SKIPPED

	const ticket = new Ticket(exchange, gate)
	const entrance = gate[enter](subject, ticket)
	switch (entrance.tag) {
		case 'admitted':
			return exchange.admit(ticket, entrance)
		case 'waiting': {
			exchange.queue(ticket)
			const waitsNoMore = waitsFor(gate, ticket.outer)
			return {
				tag: 'waiting',
				ready: entrance.settled,
				enter: (outcome) => {
					waitsNoMore?.()
					return exchange.dequeue(ticket, outcome as Stay | Rejected)
				},
			}
		}
		case 'rejected':
			return unlessAborted(entrance)
		case 'skipped':
			return entrance
	}
}

/**
 * Gives back all permits that a request holds, for a request that is not work to be limited.
 *
 * @returns the gate that it met last; `undefined` if it has met none.
 */
export function releaseAll({ [KEY]: exchange }: IncomingMessage & Limited): Gate | undefined {
	for (let ticket = exchange?.ticket; ticket !== undefined; ticket = ticket.outer) ticket.release()
	return exchange?.ticket?.gate
}

/**
 * The admission of a request by the limiter that it met last.
 *
 * @param request - Express's `req`, Koa's `ctx`, or a request of `node:http`.
 * @returns `undefined` for a request that no limiter has admitted.
 */
export function admission(request: object): Admission | undefined {
	if (typeof request !== 'object' || request === null) {
		throw wrongType('request', 'a request, or the context of Koa', request)
	}
	const { [KEY]: own, req } = request as Limited & { req?: Limited }
	for (let ticket = (own ?? req?.[KEY])?.ticket; ticket !== undefined; ticket = ticket.outer) {
		if (ticket.admitted) return ticket
	}
	return undefined
}
