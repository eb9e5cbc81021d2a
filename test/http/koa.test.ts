import { Readable } from 'node:stream'
import express from 'express'
import Koa from 'koa'
import Koa2 from 'koa2'
import supertest from 'supertest'
import { describe, expect, test, vi } from 'vitest'
import * as forExpress from '../../adapters/express.js'
import { admission, limit, type Rejection } from '../../adapters/koa.js'
import { get, rawClient, request, until, workshop } from '../support/clients.js'
import { listen } from '../support/frameworks.js'

describe.each([
	['Koa 3', Koa],
	['Koa 2', Koa2 as unknown as typeof Koa],
])('%s', (_name, Application) => {
	test('with room, the rest of the chain begins synchronously', async () => {
		const guard = limit(1)
		const app = new Application()
		app.use((ctx, next) => {
			let begun = false
			const done = guard(ctx, async () => {
				begun = true
				await next()
			})
			expect(begun).toBe(true)
			return done
		})
		app.use((ctx) => {
			ctx.body = { waited: admission(ctx)?.waited, same: admission(ctx) === admission(ctx.req) }
		})
		await supertest(app.callback()).get('/').expect(200, { waited: 0, same: true })
		expect(guard.limiter.stats().completed).toBe(1)
	})

	test('a body that is a stream counts until its response has finished', async () => {
		const guard = limit(1)
		const source = new Readable({ read() {} })
		const app = new Application()
		app.use(guard)
		app.use((ctx) => {
			ctx.body = source
		})
		const { server, port } = await listen(app.callback())
		const answer = request(port)
		source.push('one ')
		await until(() => guard.limiter.active === 1)
		source.push('two')
		source.push(null)
		expect((await answer).body).toBe('one two')
		await until(() => guard.limiter.active === 0)
		server.close()
	})

	test('client gone while its body streams: over at once, as the chain has settled', async () => {
		const guard = limit({ capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY })
		const app = new Application()
		app.silent = true
		app.use(guard)
		app.use((ctx) => {
			ctx.body = new Readable({
				read() {
					this.push(Buffer.alloc(65_536))
				},
			})
		})
		const { server, port } = await listen(app.callback())
		const client = await rawClient(port, get())
		await until(() => client.text().length > 100_000)
		client.socket.destroy()
		await until(() => guard.limiter.active === 0)
		expect(guard.limiter.stats()).toMatchObject({ completed: 1, abandoned: 0 })
		server.close()
	})

	test('client gone: the permit comes back when the chain settles, however it does, and not before', async () => {
		const guard = limit({ capacity: 2, abandonedTimeout: Number.POSITIVE_INFINITY })
		const work = workshop((req) => {
			if (req.url === '/throws') throw new Error('mine')
		})
		const app = new Application()
		app.silent = true
		app.use(guard)
		app.use((ctx) => work.handler(ctx.req, ctx.res) as Promise<void>)
		const { server, port } = await listen(app.callback())
		let closed = 0
		server.on('connection', (socket) => socket.once('close', () => closed++))
		const clients = [await rawClient(port, get('/returns')), await rawClient(port, get('/throws'))]
		await until(() => work.begun.length === 2)
		for (const { socket } of clients) socket.destroy()
		await until(() => closed === 2)
		expect(guard.limiter.active).toBe(2)
		work.finish()
		await until(() => guard.limiter.active === 1)
		work.finish()
		await until(() => guard.limiter.active === 0)
		expect(guard.limiter.stats().abandoned).toBe(2)
		server.close()
	})

	test('the same limiter met twice takes one permit', async () => {
		const guard = limit({ capacity: 1, maxQueue: 0 })
		const app = new Application()
		app.use(guard)
		app.use(limit(guard.limiter))
		app.use((ctx) => {
			ctx.body = String(guard.limiter.active)
		})
		await supertest(app.callback()).get('/').expect(200, '1')
		expect(guard.limiter.stats()).toMatchObject({ active: 0, admitted: 1 })
	})

	test('a rejection is seen by the middleware in front, with its headers kept', async () => {
		const guard = limit(1)
		guard.limiter.close()
		const seen: unknown[] = []
		const app = new Application()
		app.use(async (ctx, next) => {
			ctx.set('X-Before', 'kept')
			await next()
			seen.push(ctx.status, ctx.type)
		})
		app.use(guard)
		const { status, headers } = await supertest(app.callback()).get('/')
		expect(status).toBe(503)
		expect(headers).toMatchObject({
			'x-before': 'kept',
			'content-type': 'application/problem+json',
			'retry-after': '1',
		})
		expect(seen).toEqual([503, 'application/problem+json'])
	})

	test('onReject answers, lets through, or leaves it to Koa by throwing', async () => {
		const log = vi.spyOn(console, 'error').mockImplementation(() => {})
		const app = new Application()
		const guard = limit({
			capacity: 1,
			async onReject(rejection: Rejection, ctx, next) {
				if (ctx.path === '/throw') throw rejection
				if (ctx.path === '/through') return next()
				ctx.status = 418
				ctx.body = rejection.reason
			},
		})
		guard.limiter.close()
		app.use(guard)
		app.use((ctx) => {
			ctx.body = 'handler'
		})
		const agent = supertest(app.callback())
		await agent.get('/').expect(418, 'closed')
		await agent.get('/through').expect(200, 'handler')
		await agent.get('/throw').expect(503).expect('Retry-After', '1')
		expect(log).not.toHaveBeenCalled()
		log.mockRestore()
	})

	test('inside an Express app: each of the limiters counts, a shared one once', async () => {
		const shared = forExpress.limit({ capacity: 1, maxQueue: 0 })
		const own = limit(1)
		const work = workshop()
		const inner = new Application()
		inner.use(limit(shared.limiter))
		inner.use(own)
		inner.use(async (ctx) => {
			ctx.respond = false
			ctx.res.statusCode = 200
			await work.handler(ctx.req, ctx.res)
		})
		const app = express()
		app.use(shared)
		app.use(inner.callback())
		const { server, port } = await listen(app)
		const first = request(port)
		await until(() => work.begun.length === 1)
		expect(shared.limiter.active).toBe(1)
		expect(own.limiter.active).toBe(1)
		const client = { leave: () => first.catch(() => {}) }
		work.finish()
		await client.leave()

		const leaver = await rawClient(port, get('/leaver'))
		await until(() => work.begun.length === 2)
		leaver.socket.destroy()
		work.finish()
		await until(() => shared.limiter.active === 0 && own.limiter.active === 0)
		server.close()
	})
})
