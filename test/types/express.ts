// What must compile beside Express 5 or 4, and what must not.
import express from 'express'
import { type RejectionReason, requestDeadline, requestStart } from 'inflight-limit'
import { dashboard } from 'inflight-limit/dashboard'
import {
	type Admission,
	admission,
	Limiter,
	type LimitOptions,
	limit,
	type Next,
	type Rejection,
	type RequestLike,
} from 'inflight-limit/express'
import { type Equal, holds } from './equal.js'

const app = express()
const router = express.Router()

// Middleware after the limiter keeps the types that the path gives.
app.get('/u/:id', limit(3), (req, res) => {
	holds<Equal<typeof req.params.id, string>>()
	holds<Equal<typeof req.params, { id: string }>>()
	// @ts-expect-error - no such parameter in the path
	req.params.name
	res.status(200).send(req.params.id)
})
app.post('/u/:id/:part', limit({ capacity: 3 }), limit(4), (req, res, next) => {
	holds<Equal<typeof req.params.part, string>>()
	res.json({})
	next()
})
router.delete('/u/:id', limit(3), async (req) => {
	holds<Equal<typeof req.params.id, string>>()
})
app.route('/u/:id').put(limit(3), (req) => {
	holds<Equal<typeof req.params.id, string>>()
})
app.get<{ id: string }, { ok: boolean }>('/typed', limit(3), (req, res) => {
	holds<Equal<typeof req.params.id, string>>()
	res.json({ ok: true })
	// @ts-expect-error - not the body that was promised
	res.json({ ok: 1 })
})

// Everywhere that a handler may stand.
app.use(limit(3))
app.use('/api', limit(3), router)
app.use([limit(3), limit({ capacity: 2 })])
app.all('/', [limit(3)], (_req: express.Request, res: express.Response) => res.end())
router.use(limit(3))
router.param('id', (_req, _res, next) => next())
const handler: express.RequestHandler = limit(3)
const handlers: express.RequestHandler[] = [handler, limit(3)]
app.use(handlers)

// The user's functions, bare and with Express's own types.
limit({
	capacity: 3,
	key: (req) => {
		holds<Equal<typeof req, RequestLike>>()
		return req.ip
	},
	skip: (req) =>
		req.path === '/health' || req.originalUrl === '/health' || req.method === 'OPTIONS',
	weight: (req) => Number(req.headers['x-weight'] ?? 1),
	onReject(rejection, req, res, next) {
		holds<Equal<typeof rejection, Rejection>>()
		holds<Equal<typeof rejection.reason, RejectionReason>>()
		holds<Equal<typeof next, Next>>()
		if (req.url === '/') next(rejection)
		else res.writeHead(rejection.status, rejection.headers).end()
	},
})
limit({
	capacity: 3,
	key: (req: express.Request) => req.get('x-tenant'),
	skip: (req: express.Request) => req.xhr,
	weight: (req: express.Request<{ id: string }>) => req.params.id.length,
	async onReject(
		rejection: Rejection,
		req: express.Request,
		res: express.Response,
		next: express.NextFunction,
	) {
		if (req.accepts('html')) next(rejection)
		else res.status(rejection.status).set(rejection.headers).json({ reason: rejection.reason })
	},
})
limit({
	capacity: 3,
	order: 'adaptive',
	priority: (req) => {
		holds<Equal<typeof req, RequestLike>>()
		return req.method === 'POST' ? 1 : 0
	},
	lowerShare: 0.1,
	fairBy: (req) => req.ip ?? '',
	share: (flow) => {
		holds<Equal<typeof flow, string>>()
		return 2
	},
	deadline: requestDeadline,
})
limit({
	capacity: 3,
	priority: (req: express.Request) => (req.get('x-important') ? 1 : 0),
	fairBy: (req: express.Request<{ id: string }>) => req.params.id,
	deadline: (req: express.Request) => (req.xhr ? requestStart(req) + 2_000 : undefined),
})
const named = {
	key: (req: express.Request) => req.ip,
	onReject: (rejection: Rejection, _req: express.Request, res: express.Response) =>
		res.sendStatus(rejection.status),
}
limit({ capacity: 3, ...named })
const options: LimitOptions = {
	capacity: 3,
	maxQueue: undefined,
	maxWait: undefined,
	order: undefined,
	lowerShare: undefined,
	abandonedTimeout: undefined,
	dryRun: undefined,
	statusCode: undefined,
	name: undefined,
}
limit(options)

// A limiter made once, and the one in a middleware.
const limiter = new Limiter({ capacity: 3, key: (req: express.Request) => req.ip })
holds<Equal<ReturnType<typeof limit>['limiter'], Limiter>>()
app.use(limit(limiter), limit(limit(limiter).limiter))

app.get('/admission', (req) => {
	const own = admission(req)
	holds<Equal<typeof own, Admission | undefined>>()
	own?.weigh(2)
})

// @ts-expect-error - a capacity is required
limit()
// @ts-expect-error - a capacity is required
limit({ maxQueue: 1 })
// @ts-expect-error - a capacity is a number
limit('3')
// @ts-expect-error - a capacity is a number
limit({ capacity: '3' })
// @ts-expect-error - misspelt
limit({ capacity: 3, maxQueu: 1 })
// @ts-expect-error - a key is a string
limit({ capacity: 3, key: (req) => req.headers })
// @ts-expect-error - a weight is a number
limit({ capacity: 3, weight: () => '1' })
// @ts-expect-error - a condition is not a promise
limit({ capacity: 3, skip: async () => true })
// @ts-expect-error - a status is a number
limit({ capacity: 3, statusCode: '503' })
// @ts-expect-error - a dry run is one or is none
limit({ capacity: 3, dryRun: 'yes' })
// @ts-expect-error - no such order
limit({ capacity: 3, order: 'newest' })
// @ts-expect-error - a priority is a number
limit({ capacity: 3, priority: () => 'high' })
// @ts-expect-error - each request belongs to a flow
limit({ capacity: 3, fairBy: (req) => req.ip })
// @ts-expect-error - a share is a number
limit({ capacity: 3, fairBy: (req) => req.ip ?? '', share: () => '2' })
// @ts-expect-error - a deadline is a number
limit({ capacity: 3, deadline: () => new Date() })
// @ts-expect-error - a share is a number
limit({ capacity: 3, lowerShare: '10%' })
// @ts-expect-error - not a request
requestStart('t=1')
// @ts-expect-error - not a function
limit({ capacity: 3, onReject: 503 })
// @ts-expect-error - not a request
limit({ capacity: 3, key: (req: string) => req })
// @ts-expect-error - not a limiter
limit(new Map())
// @ts-expect-error - a limiter has its options already
limit(limiter, { maxQueue: 1 })
// @ts-expect-error - read-only
limit(3).limiter = limiter

// The live page.
app.use('/limits', dashboard({ limiters: [limiter] }))
