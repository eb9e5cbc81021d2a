import type { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Linked, WaitQueue } from '../semaphore/wait-queue.js'

/*
 * What carries an exchange: the socket in HTTP/1, the stream in HTTP/2. Its `close` is the one event that always
 * comes. A response that is pipelined behind another, and whose connection is then reset, emits neither `finish` nor
 * `close` on Node 20 and 22, and no `close` of a request tells of the client once its body has been read.
 */

/**
 * When a client has taken nothing of the bytes that wait for it for this long, in ms, its connection is closed, like
 * by the `send_timeout` of nginx. Else whoever stops reading a response would keep its permit for ever.
 */
const STALLED_AFTER = 30_000

type Carrier = EventEmitter &
	Pick<Socket, 'destroyed' | 'writableLength' | 'destroy' | 'errored' | 'readableEnded'>

/** What takes part in an exchange over a connection. */
export interface Member extends Linked<Member> {
	readonly req: IncomingMessage
	/** The connection is closed. It deletes itself. `byHandler`: its own handler has closed it. */
	clientLeft(byHandler: boolean): void
}

/** A connection with the exchanges that are under way on it: one listener and one timer, however many they are. */
export class Connection {
	readonly #carrier: Carrier
	readonly #members: WaitQueue<Member> = new WaitQueue()
	#timer: NodeJS.Timeout | undefined = undefined
	#taken: string | undefined = undefined
	#timedOut = false

	constructor(carrier: Carrier) {
		this.#carrier = carrier
		// Before anyone else's listener: handlers that end their response because of this event must find us prepared.
		carrier.prependListener('close', () => this.#close())
		carrier.prependListener('timeout', () => {
			this.#timedOut = true
		})
	}

	get closed(): boolean {
		return this.#carrier.destroyed
	}

	add(member: Member): void {
		this.#members.push(member)
		// Left running between requests, so that a keep-alive connection costs one timer and not one for each.
		this.#timer ??= setTimeout(checkProgress, STALLED_AFTER, this).unref()
	}

	/** It must have been added. */
	delete(member: Member): void {
		this.#members.remove(member)
	}

	/** Closes the connection if nothing of what waits to be sent was taken since the last time. */
	checkProgress(): void {
		this.#timer = undefined
		const taken = this.#takenSoFar()
		if (taken !== undefined && taken === this.#taken) {
			this.#timedOut = true
			this.#carrier.destroy()
			return
		}
		this.#taken = taken
		if (this.#members.size > 0) this.#timer = setTimeout(checkProgress, STALLED_AFTER, this).unref()
	}

	/** Changes with each byte taken; `undefined` when none waits. */
	#takenSoFar(): string | undefined {
		const carrier = this.#carrier as Carrier & {
			bytesWritten?: number
			_handle?: { writeQueueSize?: number } | null
		}
		if (!(carrier.writableLength > 0) || this.#members.size === 0) return undefined
		// Within one large chunk, only the handle knows: Node's own socket timeout looks at the same figure.
		return `${carrier.bytesWritten} ${carrier.writableLength} ${carrier._handle?.writeQueueSize}`
	}

	#close(): void {
		clearTimeout(this.#timer)
		this.#timer = undefined
		const byHandler = this.#closedByHandler()
		for (let member = this.#members.head; member !== undefined; member = this.#members.head)
			member.clientLeft(byHandler)
	}

	/**
	 * Whether a handler has destroyed the connection, like Express's last one does with an error that reaches it after the
	 * headers were sent. Told from all that a client can bring about: it ended its side, an error, a timeout, malformed
	 * bytes, other requests on the same connection.
	 */
	#closedByHandler(): boolean {
		const carrier: Carrier & { parser?: { incoming?: unknown } | null } = this.#carrier
		if (this.#timedOut || carrier.errored || carrier.readableEnded) return false
		// One pipelined behind it that no limiter has met is known to Node's parser only.
		if (this.#members.size !== 1 || carrier.parser?.incoming !== this.#members.head?.req) return false
		// Before `clientError`, whose listeners close the connection too, Node takes this listener of its own off.
		return carrier.listeners('error').some(({ name }) => name === 'socketOnError')
	}
}

function checkProgress(connection: Connection): void {
	connection.checkProgress()
}

/** Where the connection of a carrier is found. A `WeakMap` of all of them would cost more at each garbage collection. */
const KEY: unique symbol = Symbol('connection')

export function connectionOf(req: IncomingMessage, res: ServerResponse): Connection {
	const { stream } = res as { stream?: Carrier }
	// In a unit test the two may be made by hand, with no socket that tells of a client: the response is all there is.
	const socket = typeof req.socket?.prependListener === 'function' ? req.socket : res
	const carrier: Carrier & { [KEY]?: Connection } = stream ?? (socket as Carrier)
	carrier[KEY] ??= new Connection(carrier)
	return carrier[KEY]
}
