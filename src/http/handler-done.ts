import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'

/*
 * Detects when a handler is done, in the two cases in which the response emits no event for it: the
 * response never gets a socket, or the client has left. In all other cases the events of the
 * response are enough, and its methods are not replaced.
 */

type Endable = Pick<ServerResponse, 'end' | 'destroy'>

/** Calls `listener` when a response is ended or destroyed. */
export function onHandlerEnd(res: Endable, listener: () => void): void {
	const { end } = res
	res.end = function (this: ServerResponse, ...args: Parameters<typeof end>) {
		try {
			return end.apply(this, args)
		} finally {
			listener()
		}
	} as typeof end
	onHandlerDestroy(res, listener)
}

/** Calls `listener` when a response is destroyed. */
export function onHandlerDestroy(res: Endable, listener: () => void): void {
	const { destroy } = res
	res.destroy = function (this: ServerResponse, error) {
		listener()
		return destroy.call(this, error)
	}
}

/** Calls `listener` when nothing more can come of a response whose client has left. */
export function onAbandonedHandlerEnd(
	req: IncomingMessage,
	res: ServerResponse,
	listener: () => void,
): void {
	const { stream } = res as { stream?: ServerHttp2Stream }
	for (const target of stream === undefined ? [res] : [res, stream]) {
		onHandlerEnd(target as Endable, listener)
		// A file or a pipeline that is piped into the response stops now, or has stopped: nothing will
		// end the response.
		target.once('pipe', listener)
		target.once('unpipe', listener)
	}
	// Middleware can have kept the `end` that was there before. In HTTP/1, Node says when it is
	// called.
	if (stream === undefined) res.once('prefinish', listener)
	// Once the client has left, Express does not report that a file is missing. The handler has
	// nothing to send but this file, so it is done.
	const { sendFile } = res as { sendFile?: (...args: unknown[]) => unknown }
	if (sendFile !== undefined) {
		Object.assign(res, {
			sendFile(...args: unknown[]) {
				listener()
				return sendFile.apply(res, args)
			},
		})
	}
	if (res.headersSent && req.socket !== null) {
		// An error that reaches Express's last handler after the headers were sent ends in
		// `req.socket.destroy()`, and in nothing else. Other requests may share the socket, so only
		// this request gets an object with another `destroy`.
		const { socket } = req
		const destroy = (error?: Error): unknown => {
			listener()
			return socket.destroy(error)
		}
		const value = Object.create(socket, { destroy: { value: destroy } })
		Object.defineProperty(req, 'socket', { value, configurable: true, writable: true })
	}
}
