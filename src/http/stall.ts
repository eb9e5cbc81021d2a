import { constants, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'

/*
 * Cuts off clients that take nothing of what waits for them. Without this, a client that stops
 * reading its response, or stops sending its upload, would keep a permit for ever.
 *
 * A client has stalled when data waited for it during the whole period, and it took not one byte.
 * What the handler writes meanwhile does not count.
 */

/**
 * How often a connection is checked in one period. So a stall is noticed at most a quarter of the
 * period too late.
 */
const LOOKS = 4

/**
 * A number that changes with each byte that the client takes; `undefined` when nothing waits for
 * the client.
 */
type Meter = () => number | undefined

/** Checks a connection at intervals while a permit is held for it. */
export class StallWatch {
	readonly #connection: Socket | ServerHttp2Stream
	readonly #timeout: () => number
	readonly #onStall: () => void
	#meter: Meter | undefined
	#timer: NodeJS.Timeout | undefined = undefined
	/** The time between two looks, in ms. */
	#interval = 0
	/** What the meter showed at the last look, and for how long it has shown that, in ms. */
	#taken: number | undefined = undefined
	#stalledFor = 0

	/**
	 * @param timeout - returns how long the client may stall now, in ms; `Infinity` if no permit is
	 * held, or there is no bound.
	 * @param onStall - is called before the connection is closed.
	 */
	constructor(connection: Socket | ServerHttp2Stream, timeout: () => number, onStall: () => void) {
		this.#connection = connection
		this.#timeout = timeout
		this.#onStall = onStall
		// It must be there before the handler writes to the stream.
		this.#meter = 'pushStream' in connection ? streamMeter(connection) : undefined
	}

	/** A permit is held from now on. */
	begin(): void {
		this.#taken = undefined
		this.#stalledFor = 0
		// The timer goes on between requests: a connection that is kept alive costs one timer, not one
		// for each request.
		const interval = this.#timeout() / LOOKS
		if (this.#timer === undefined || interval < this.#interval) this.#schedule(interval)
	}

	end(): void {
		clearTimeout(this.#timer)
		this.#timer = undefined
	}

	look(): void {
		this.#timer = undefined
		const timeout = this.#timeout()
		if (timeout === Number.POSITIVE_INFINITY) return
		this.#meter ??= socketMeter(this.#connection as Socket)
		const taken = this.#meter()
		this.#stalledFor =
			taken !== undefined && taken === this.#taken ? this.#stalledFor + this.#interval : 0
		this.#taken = taken
		if (this.#stalledFor < timeout) {
			this.#schedule(timeout / LOOKS)
		} else {
			this.#onStall()
			cutOff(this.#connection)
		}
	}

	#schedule(interval: number): void {
		this.end()
		if (interval === Number.POSITIVE_INFINITY) return
		this.#interval = interval
		this.#timer = setTimeout(look, interval, this)
		// Where timers are numbers, as in a browser's environment, there is no `unref`.
		this.#timer.unref?.()
	}
}

function look(watch: StallWatch): void {
	watch.look()
}

/** Closes a connection in a way that the client can tell from the end of a response. */
function cutOff(connection: Socket | ServerHttp2Stream): void {
	if ('pushStream' in connection) {
		// Most clients take a reset with the code CANCEL for the end of the response.
		connection.close(constants.NGHTTP2_ENHANCE_YOUR_CALM)
		// If the whole connection is stuck, the reset can't be sent, and without this the stream would
		// stay open until it is.
		setImmediate(() => connection.destroy())
	} else if (
		handleOf(connection)?._parent === undefined &&
		typeof connection.resetAndDestroy === 'function'
	) {
		// A response without a length, as in HTTP/1.0, ends with its connection: with a FIN, the client
		// would take it for complete.
		connection.resetAndDestroy()
	} else {
		connection.destroy()
	}
}

/** The part of a socket's handle that is read. Node's own socket timeout reads the same figures. */
interface Handle {
	readonly bytesWritten: number
	/**
	 * Bytes that the kernel has not taken yet: its buffer is full until the client takes some of it.
	 */
	readonly writeQueueSize: number
	/** The handle below that of TLS, which counts what is encrypted. */
	readonly _parent?: Handle
}

function handleOf(socket: Socket): Handle | null | undefined {
	return (socket as { _handle?: Handle | null })._handle
}

function takenBy(socket: Socket): { taken: number; waiting: number } {
	let handle = handleOf(socket)
	while (handle?._parent !== undefined) handle = handle._parent
	const { bytesWritten = 0, writeQueueSize = 0 } = handle ?? {}
	return { taken: bytesWritten - writeQueueSize, waiting: writeQueueSize }
}

function socketMeter(socket: Socket): Meter {
	return () => {
		const { taken, waiting } = takenBy(socket)
		return waiting > 0 ? taken : undefined
	}
}

/**
 * The most that one frame of HTTP/2 carries unless both sides agree on more: RFC 9113, section 4.2.
 */
const FRAME = 16_384

/**
 * A stream of HTTP/2 must be measured by itself: a client could stall it while it lets other
 * streams, or pings, go on. Node only reports when a whole chunk was taken. So chunks are cut into
 * pieces of the size of a frame: the stream passes on the next piece when the one before it was
 * taken.
 */
function streamMeter(stream: ServerHttp2Stream): Meter {
	const inner = stream as unknown as Internals
	const { write, end, push, _write } = inner
	let moved = 0
	inner._writev = null
	inner._write = (...args) => {
		moved++
		_write.apply(stream, args)
	}
	inner.push = (...args) => {
		moved++
		return push.apply(stream, args)
	}
	inner.write = (chunk, ...rest) => {
		const encoding = typeof rest[0] === 'string' ? (rest[0] as BufferEncoding) : 'utf8'
		const bytes =
			typeof chunk === 'string' && chunk.length > FRAME ? Buffer.from(chunk, encoding) : chunk
		if (!(bytes instanceof Uint8Array) || bytes.length <= FRAME)
			return write.call(stream, chunk, ...rest)
		let from = 0
		for (; from + FRAME < bytes.length; from += FRAME)
			write.call(stream, bytes.subarray(from, from + FRAME))
		return write.call(
			stream,
			bytes.subarray(from),
			...rest.filter((arg) => typeof arg === 'function'),
		)
	}
	inner.end = (...args) => {
		const callback = args.filter((arg) => typeof arg === 'function')
		const [chunk, ...rest] = args.filter((arg) => typeof arg !== 'function')
		if (chunk != null) inner.write(chunk, ...rest)
		return end.apply(stream, callback)
	}
	return () => {
		// With `respondWithFile`, Node ends the stream and then sends the file by itself: only the
		// bytes of the whole connection can be counted.
		if (inner._final === null) return moved + takenBy(stream.session?.socket as Socket).taken
		const uploads =
			stream.readableFlowing === true && stream.readableLength === 0 && !stream.readableEnded
		// A reset waits too, and an end behind an empty chunk, which has no length.
		const ends = stream.aborted || (stream.writableEnded && !stream.writableFinished)
		const downloads = ends || (stream.writableLength > 0 && stream.writableCorked === 0)
		return uploads || downloads ? moved : undefined
	}
}

type Method = (...args: unknown[]) => unknown

/** The methods of a stream, without their overloads. */
type Internals = Record<'write' | 'end' | 'push' | '_write', Method> & {
	_writev: unknown
	_final: unknown
}
