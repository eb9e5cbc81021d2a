import type { IncomingMessage, ServerResponse } from 'node:http'

/*
 * How to see that a handler is done with its response in the two cases in which Node says nothing of it: the response is
 * pipelined behind another, or the client has gone. Everywhere else the response's own events tell, and its methods are
 * left alone.
 */

/** Calls `listener` when a response is ended, or destroyed: then with the error, if there is one. */
export function onHandlerEnd(res: ServerResponse, listener: (error?: unknown) => void): void {
	const { end, destroy } = res
	res.end = function (this: ServerResponse, ...args: Parameters<typeof end>) {
		try {
			return end.apply(this, args)
		} finally {
			listener()
		}
	} as typeof end
	res.destroy = function (this: ServerResponse, error) {
		listener(error)
		return destroy.call(this, error)
	}
}

/** Calls `listener` also when nothing more can come of a response whose client has gone. */
export function onAbandonedHandlerEnd(
	req: IncomingMessage,
	res: ServerResponse,
	listener: (error?: unknown) => void,
): void {
	onHandlerEnd(res, listener)
	// What was piped into the response stops with it, be it a file or a pipeline: nobody will end it.
	res.once('unpipe', () => listener())
	if (res.headersSent && req.socket !== null) {
		// An error that reaches Express's last handler after the headers were sent ends in `req.socket.destroy()`, and in
		// nothing else. The socket may be that of other requests too: only this request's view of it listens.
		const { socket } = req
		const destroy = (error?: Error): unknown => {
			listener()
			return socket.destroy(error)
		}
		const value = Object.create(socket, { destroy: { value: destroy } })
		Object.defineProperty(req, 'socket', { value, configurable: true, writable: true })
	}
}
