import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'

/*
 * When a handler is done with its response, in the cases in which Node says nothing of it: the
 * response never gets a socket, or the client has left. In all other cases the response's own
 * events say it, and its methods stay as they are.
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
export function onAbandonedHandlerEnd(req: IncomingMessage, res: ServerResponse, listener: () => void): void {
	const { stream } = res as { stream?: ServerHttp2Stream }
	for (const target of stream === undefined ? [res] : [res, stream]) {
		onHandlerEnd(target as Endable, listener)
		// A file or a pipeline that is piped into the response stops there, or has stopped: nobody will
		// end the response.
		target.once('pipe', listener)
		target.once('unpipe', listener)
	}
	// Express tells nobody that a file is not there once the client has left. Nothing but a file is
	// to come, so the handler is done.
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
		// `req.socket.destroy()`, and in nothing else. The socket may be that of other requests too:
		// only this request's view of it listens.
		const { socket } = req
		const destroy = (error?: Error): unknown => {
			listener()
			return socket.destroy(error)
		}
		const value = Object.create(socket, { destroy: { value: destroy } })
		Object.defineProperty(req, 'socket', { value, configurable: true, writable: true })
	}
}
