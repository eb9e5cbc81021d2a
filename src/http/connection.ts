import type { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { StallWatch } from './stall.js'

/*
 * Where a client's leaving is noticed, and which of its requests has the connection.
 *
 * A connection is the socket in HTTP/1, and the stream in HTTP/2. Its `close` is the one event that
 * always comes. In HTTP/1, a client may pipeline requests: Node calls their handlers at once, but
 * their responses own the connection one after the other. Here, a pipelined request waits for its
 * turn. So a connection has one exchange at a time, and a client can't take several permits, or
 * several places in a queue, by one connection.
 */

type Carrier = EventEmitter & Pick<Socket, 'destroyed' | 'errored' | 'readableEnded'>

/** Why a connection has closed. */
export type Departure = 'client' | 'handler' | 'stalled'

/** The exchange that a connection has. */
export interface Occupant {
	readonly req: IncomingMessage
	/**
	 * How long the client may take nothing of what waits for it, in ms; `Infinity`: no bound, or no
	 * permit is held.
	 */
	readonly stallTimeout: number
	/** The connection has closed. */
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
		// Before all other listeners: a handler that ends its response because of this event must find
		// us prepared.
		carrier.prependListener('close', () => this.#close())
		carrier.prependListener('timeout', () => {
			this.#timedOut = true
		})
	}

	/** The client has left. Node aborts a stream of HTTP/2 some time before it closes it. */
	get closed(): boolean {
		return this.#carrier.destroyed || (this.#carrier as { aborted?: boolean }).aborted === true
	}

	get occupied(): boolean {
		return this.#occupant !== undefined
	}

	occupy(occupant: Occupant): void {
		this.#occupant = occupant
		// What timed out was an earlier exchange.
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
		const occupant = this.#occupant
		if (occupant !== undefined) {
			const why = this.#departureOf(occupant)
			this.#occupant = undefined
			occupant.left(why)
		}
		for (const come of this.#pipelined ?? []) come()
	}

	/**
	 * A handler may have destroyed the connection, as Express does with an error that reaches it
	 * after the headers were sent. Node doesn't say so. It is concluded where nothing that a client
	 * can bring about has happened: the end of its side, an error, a timeout, malformed bytes,
	 * another request behind this one.
	 */
	#departureOf({ req }: Occupant): Departure {
		if (this.stalled) return 'stalled'
		const carrier: Carrier & { parser?: { incoming?: unknown } | null } = this.#carrier
		if (this.#timedOut || carrier.errored || carrier.readableEnded) return 'client'
		// The handler of a request that is pipelined behind this one may have failed: Node's parser
		// knows of it.
		if (carrier.parser?.incoming !== req) return 'client'
		// Before `clientError`, whose listeners close the connection too, Node takes this listener of
		// its own off.
		return carrier.listeners('error').some(({ name }) => name === 'socketOnError') ? 'handler' : 'client'
	}
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
	// A request that was made by hand may have no socket that tells when a client leaves: its
	// response is all there is.
	const socket = typeof req.socket?.prependListener === 'function' ? req.socket : res
	const connection = connectionBy(stream ?? (socket as Carrier))
	// Only exchanges that were made by hand can share an open connection, as the parts of a batch do.
	return connection.occupied && !connection.closed ? connectionBy(res as unknown as Carrier) : connection
}

/**
 * The turn of a response that is pipelined behind another one, which owns the connection;
 * `undefined`: it need not wait.
 *
 * A response that was made by hand, as for a WebSocket or for a part of a batch, never gets a
 * socket. Those that Node's server makes have a listener of its own.
 */
export function turnOf(req: IncomingMessage, res: ServerResponse): Promise<undefined> | undefined {
	if (res.socket !== null) return undefined
	const { socket } = req as { socket: (Carrier & { _httpMessage?: unknown }) | null }
	if (socket == null || socket._httpMessage == null || socket.destroyed) return undefined
	if (!res.listeners('finish').some(({ name }) => name === 'bound resOnFinish')) return undefined
	return connectionBy(socket).turnOf(res)
}
