import type { IncomingMessage, ServerResponse } from 'node:http'

/**
 * Calls `listener` when the handler ends or destroys its response, or when its framework gives up on it.
 *
 * For the two cases in which Node says nothing of it: the client has gone, or the response is pipelined behind another.
 * Everywhere else the response's own events tell, and its methods are left alone.
 */
export function onHandlerEnd(req: IncomingMessage, res: ServerResponse, listener: () => void): void {
	const { end, destroy } = res
	res.end = function (this: ServerResponse, ...args: Parameters<typeof end>) {
		try {
			return end.apply(this, args)
		} finally {
			listener()
		}
	} as typeof end
	res.destroy = function (this: ServerResponse, ...args) {
		listener()
		return destroy.apply(this, args)
	}
	if (res.headersSent && req.socket !== null) {
		// An error that reaches Express's last handler after the headers were sent ends in `req.socket.destroy()`, and in
		// nothing else. The socket may be that of other requests too: only this request's view of it listens.
		const { socket } = req
		req.socket = Object.create(socket, {
			destroy: {
				value: (error?: Error) => {
					listener()
					return socket.destroy(error)
				},
			},
		})
	}
}
