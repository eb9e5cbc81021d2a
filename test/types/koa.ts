// What must compile beside Koa 3 or 2, and what must not.
import { type RejectionReason, requestDeadline, requestStart } from 'inflight-limit'
import { dashboardKoa } from 'inflight-limit/dashboard'
import {
	type Admission,
	admission,
	type ContextLike,
	Limiter,
	type LimitOptions,
	limit,
	type Next,
	type Rejection,
} from 'inflight-limit/koa'
import Koa from 'koa'
import compose from 'koa-compose'
import { type Equal, holds } from './equal.js'

interface State {
	user: string
}
interface Custom {
	log(line: string): void
}

new Koa().use(limit(3)).use(async (ctx, next) => {
	const own = admission(ctx)
	holds<Equal<typeof own, Admission | undefined>>()
	holds<Equal<typeof ctx.path, string>>()
	await next()
})

// Middleware after the limiter keeps the state and the context of the app.
new Koa<State, Custom>().use(limit(3)).use((ctx) => {
	holds<Equal<typeof ctx.state.user, string>>()
	ctx.log(ctx.state.user)
	// @ts-expect-error - no such thing in the state
	ctx.state.tenant
})
const middleware: Koa.Middleware = limit(3)
const typed: Koa.Middleware<State, Custom> = limit(3)
new Koa().use(compose([limit(3), middleware]))
new Koa<State, Custom>().use(compose([limit(3), typed]))

// The user's functions, bare and with Koa's own types.
limit({
	capacity: 3,
	key: (ctx) => {
		holds<Equal<typeof ctx, ContextLike>>()
		return ctx.ip
	},
	skip: (ctx) => ctx.path === '/health' || ctx.req.method === 'OPTIONS',
	async onReject(rejection, ctx, next) {
		holds<Equal<typeof rejection, Rejection>>()
		holds<Equal<typeof rejection.reason, RejectionReason>>()
		holds<Equal<typeof next, Next>>()
		ctx.status = rejection.status
		ctx.set({ ...rejection.headers })
		ctx.body = { reason: rejection.reason }
		await next()
	},
})
limit({
	capacity: 3,
	key: (ctx: Koa.Context) => ctx.get('x-tenant'),
	skip: (ctx: Koa.ParameterizedContext<State, Custom>) => ctx.state.user === 'root',
	weight: (ctx: Koa.Context) => (ctx.method === 'POST' ? 2 : 1),
	onReject(rejection: Rejection, ctx: Koa.Context, next: Koa.Next) {
		if (ctx.accepts('html')) return next()
		throw rejection
	},
})
limit({
	capacity: 3,
	order: 'lifo',
	priority: (ctx) => {
		holds<Equal<typeof ctx, ContextLike>>()
		return ctx.path === '/pay' ? 1 : 0
	},
	lowerShare: 0.1,
	fairBy: (ctx) => ctx.ip,
	deadline: requestDeadline,
})
limit({
	capacity: 3,
	priority: (ctx: Koa.Context) => (ctx.get('x-important') ? 1 : 0),
	fairBy: (ctx: Koa.ParameterizedContext<State, Custom>) => ctx.state.user,
	deadline: (ctx: Koa.Context) => requestStart(ctx) + 2_000,
})
const options: LimitOptions = { capacity: 3, maxQueue: undefined, name: undefined }
limit(options)

// A limiter made once, and the one in a middleware.
const limiter = new Limiter({ capacity: 3, key: (ctx: Koa.Context) => ctx.ip })
holds<Equal<ReturnType<typeof limit>['limiter'], Limiter>>()
new Koa().use(limit(limiter)).use(limit(limit(limiter).limiter))

// @ts-expect-error - a capacity is required
limit()
// @ts-expect-error - a capacity is required
limit({ maxQueue: 1 })
// @ts-expect-error - a capacity is a number
limit('3')
// @ts-expect-error - misspelt
limit({ capacity: 3, maxQueu: 1 })
// @ts-expect-error - a key is not an object
limit({ capacity: 3, key: (ctx) => ctx.req })
// @ts-expect-error - a condition is not a promise
limit({ capacity: 3, skip: async () => true })
// @ts-expect-error - no such order
limit({ capacity: 3, order: 'newest' })
// @ts-expect-error - a priority is a number
limit({ capacity: 3, priority: (ctx) => ctx.path })
limit({ capacity: 3, fairBy: (ctx) => ctx.status })
// @ts-expect-error - a flow is a string or a number
limit({ capacity: 3, fairBy: (ctx) => ctx.req })
// @ts-expect-error - not a context
limit({ capacity: 3, key: (ctx: string) => ctx })
// @ts-expect-error - not a limiter
limit(new Map())
// @ts-expect-error - read-only
limit(3).limiter = limiter

// The live page.
new Koa<State, Custom>().use(dashboardKoa({ limiters: [limiter], path: '/limits' }))
