// What must compile of the Express entry with no types but Node's, and what must not.
import http from 'node:http'
import { limit, type Middleware, type RequestLike } from 'inflight-limit/express'
import { type Equal, holds } from './equal.js'

const middleware: Middleware = limit({ capacity: 3, key: (req) => req.socket.remoteAddress })

http.createServer((req, res) => {
	middleware(req, res, (error) => {
		holds<Equal<typeof error, unknown>>()
		res.end()
	})
	// @ts-expect-error - somebody must go on
	middleware(req, res)
})

limit({
	capacity: 3,
	key: (req) => {
		holds<Equal<typeof req, RequestLike>>()
		return req.headers['x-tenant']?.toString()
	},
	weight: (req: http.IncomingMessage) => (req.method === 'POST' ? 2 : 1),
	onReject(rejection, _req, res) {
		res.writeHead(rejection.status, rejection.headers).end(rejection.reason)
	},
})
// @ts-expect-error - not a request of node:http
limit({ capacity: 3, skip: (req: URL) => req.href === '' })
