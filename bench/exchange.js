import http from 'node:http'
import { Duplex } from 'node:stream'

/** A socket as the server's own code sees one, without the kernel. */
export function fakeSocket() {
	return new Duplex({
		read() {},
		write(_chunk, _encoding, callback) {
			callback()
		},
	})
}

/**
 * One exchange over real `http` objects: from the middleware to the `finish` of the response.
 *
 * @param {any} socket
 * @param {import('./middlewares.js').Middleware} middleware
 * @param {(res: http.ServerResponse) => void} handler
 * @returns {Promise<http.ServerResponse>}
 */
export function exchange(socket, middleware, handler) {
	const req = new http.IncomingMessage(socket)
	const res = new http.ServerResponse(req)
	res.assignSocket(socket)
	return new Promise((resolve) => {
		res.on('finish', () => {
			res.detachSocket(socket)
			resolve(res)
		})
		middleware(req, res, () => handler(res))
	})
}
