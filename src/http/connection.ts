import type { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { StallWatch } from './stall.js'

/*
 * Where a client's leaving is noticed, and which of its requests has the connection.
 *
 * A connection is the socket in HTTP/1, and the stream in HTTP/2. It is over when it has closed, or
 * when the server has ended its side of a socket: then no answer can reach the client any more, and
 * the client alone decides when the socket closes. One of these events always comes.
 *
 * In HTTP/1, a client may pipeline requests: Node calls their handlers at once, but their responses
 * own the connection one after the other. Here, a pipelined request waits for its turn. So a
 * connection has one exchange at a time, and a client can't take several permits, or several places
 * in a queue, by one connection.
 */

type Carrier = EventEmitter &
	Pick<Socket, 'destroyed' | 'errored' | 'readableEnded' | 'writableEnded'>

/** Why a connection is over. */
export type Departure = 'client' | 'handler' | 'stalled'

/** The exchange that a connection has. */
export interface Occupant {
	readonly req: IncomingMessage
	/**
	 * How long the client may take nothing of what waits for it, in ms; `Infinity`: no bound, or no
	 * permit is held.
	 */
	readonly stallTimeout: number
	/** The connection is over. */
	left(why: Departure): void
}

export class Connection {
	readonly #carrier: Carrier
	readonly #stall: StallWatch
	#occupant: Occupant | undefined = undefined
	/** Pipelined requests that wait for their turn, if there ever was one. */
	#pipelined: Set<() => void> | undefined = undefined
	/** The client has stalled, and so it is cut off. */
	stalled = false
	#timedOut = false

	constructor(carrier: Carrier) {
		this.#carrier = carrier
		this.#stall = new StallWatch(
			carrier as Socket,
			() => this.#occupant?.stallTimeout ?? Number.POSITIVE_INFINITY,
			() => {
				this.stalled = true
			},
		)
		// Before all other listeners: one of them may end the response because of this event, and the
		// exchange must know by then that the client has left.
		carrier.prependListener('close', () => this.#close())
		if (isSocket(carrier)) carrier.prependListener('finish', () => this.#leave())
		carrier.prependListener('timeout', () => {
			this.#timedOut = true
		})
	}

	/** The client has left. Node aborts a stream of HTTP/2 some time before it closes it. */
	get closed(): boolean {
		const carrier: Carrier & { aborted?: boolean } = this.#carrier
		if (carrier.destroyed || carrier.aborted === true) return true
		return carrier.writableEnded && isSocket(carrier)
	}

	get occupied(): boolean {
		return this.#occupant !== undefined
	}

	occupy(occupant: Occupant): void {
		this.#occupant = occupant
		// A timeout until now was that of an earlier exchange.
		this.#timedOut = false
	}

	vacate(): void {
		this.#occupant = undefined
	}

	/** The occupant holds a permit from now on: its client must take what waits for it. */
	watch(): void {
		this.#stall.begin()
	}

	/** Resolves when a pipelined response owns the connection, or when that has closed. */
	turnOf(res: ServerResponse): Promise<undefined> {
		this.#pipelined ??= new Set()
		const pipelined = this.#pipelined
		return new Promise((resolve) => {
			const come = (): void => {
				pipelined.delete(come)
				resolve(undefined)
			}
			pipelined.add(come)
			// Node gives the socket to a response when the one before it has finished.
			res.once('socket', come)
		})
	}

	#close(): void {
		this.#stall.end()
		this.#leave()
		for (const come of this.#pipelined ?? []) come()
	}

	#leave(): void {
		const occupant = this.#occupant
		if (occupant === undefined) return
		const why = this.#departureOf(occupant)
		this.#occupant = undefined
		occupant.left(why)
	}

	/**
	 * Decides why the connection is over. A handler may have destroyed it, as Express does with an
	 * error that comes after the headers were sent. Node doesn't report this, so it is concluded by
	 * exclusion: there was no end of the client's side, no error, no timeout, no malformed bytes, and
	 * no other request behind this one.
	 */
	#departureOf({ req }: Occupant): Departure {
		if (this.stalled) return 'stalled'
		const carrier: Carrier & { parser?: { incoming?: unknown } | null } = this.#carrier
		if (this.#timedOut || carrier.errored || carrier.readableEnded) return 'client'
		// The parser has read another request behind this one, whose handler may have destroyed the
		// connection.
		if (carrier.parser?.incoming !== req) return 'client'
		// Node removes this listener of its own before it emits `clientError`, whose listeners close
		// the connection too.
		return carrier.listeners('error').some(({ name }) => name === 'socketOnError')
			? 'handler'
			: 'client'
	}
}

/** Not a stream of HTTP/2, nor a response that stands for its connection. */
function isSocket(carrier: object): boolean {
	return !('pushStream' in carrier || 'writeHead' in carrier)
}

/**
 * Where the connection of a carrier is found. A `WeakMap` would cost more at each garbage
 * collection.
 */
const KEY: unique symbol = Symbol('connection')

function connectionBy(carrier: Carrier & { [KEY]?: Connection }): Connection {
	carrier[KEY] ??= new Connection(carrier)
	return carrier[KEY]
}

export function connectionOf(req: IncomingMessage, res: ServerResponse): Connection {
	const { stream } = res as { stream?: ServerHttp2Stream }
	// A request that was made by hand may have no socket that emits `close`. Then its response stands
	// for the connection.
	const socket = typeof req.socket?.prependListener === 'function' ? req.socket : res
	const connection = connectionBy(stream ?? (socket as Carrier))
	// Only requests that were made by hand can share an open connection, as the parts of a batch do.
	// Each of them counts as a connection of its own.
	return connection.occupied && !connection.closed
		? connectionBy(res as unknown as Carrier)
		: connection
}

/**
 * A promise that resolves when it is the turn of a response that is pipelined behind another one;
 * `undefined` if it need not wait.
 *
 * A response that was made by hand, as for a WebSocket or for a part of a batch, never gets a
 * socket. A response that Node's server made has a listener of Node's own, by which it is told
 * apart.
 */
export function turnOf(req: IncomingMessage, res: ServerResponse): Promise<undefined> | undefined {
	if (res.socket !== null) return undefined
	const { socket } = req as { socket: (Carrier & { _httpMessage?: unknown }) | null }
	if (socket == null || socket._httpMessage == null || socket.destroyed) return undefined
	if (!res.listeners('finish').some(({ name }) => name === 'bound resOnFinish')) return undefined
	return connectionBy(socket).turnOf(res)
}
