import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import { pipeline, Readable } from 'node:stream'
import connect from 'connect'
import express from 'express'
import express4 from 'express4'
import supertest from 'supertest'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { admission, Limiter, type LimitOptions, limit } from '../../adapters/express.js'
import { enterGate } from '../../src/http/exchange.js'
import { enter } from '../../src/limiter/gate.js'
import { get, rawClient, request, until, workshop } from '../support/clients.js'
import { listen } from '../support/frameworks.js'

afterEach(() => {
	vi.restoreAllMocks()
})

type Next = (error?: unknown) => void

test('with room, next is called synchronously, once, and nothing is passed to it', async () => {
	const middleware = limit(1)
	const next = vi.fn()
	const { server, port } = await listen((req, res) => {
		middleware(req, res, next)
		expect(next.mock.calls).toEqual([[]])
		res.end('ok')
	})
	expect((await request(port)).body).toBe('ok')
	expect(middleware.limiter.stats().completed).toBe(1)
	server.close()
})

test('a dry run lets all requests through at once, and tells clients nothing', async () => {
	const middleware = limit({
		capacity: 1,
		maxQueue: 1,
		dryRun: true,
		serverTiming: true,
		rateLimitFields: true,
	})
	const working: ServerResponse[] = []
	const { server, port } = await listen((req, res) => middleware(req, res, () => working.push(res)))
	const answers = [request(port), request(port), request(port)]
	await until(() => working.length === 3)
	for (const res of working) res.end('ok')
	for (const { status, headers } of await Promise.all(answers)) {
		expect(status).toBe(200)
		expect(Object.keys(headers).filter((name) => /ratelimit|server-timing/.test(name))).toEqual([])
	}
	await until(() => middleware.limiter.active === 0)
	expect(middleware.limiter.stats()).toMatchObject({ admitted: 2, rejected: { 'queue-full': 1 } })
	server.close()
})

test('weigh is an error where the limit can’t change a weight', async () => {
	const stay = {
		tag: 'admitted' as const,
		waited: 0,
		queued: 0,
		capacity: 1,
		available: 0,
		leave() {},
	}
	const gate = { ...new Limiter(1), name: 'fleet', capacity: 1, [enter]: () => stay }
	const { server, port } = await listen((req, res) => {
		enterGate(gate, req, req, res)
		expect(() => admission(req)?.weigh(2)).toThrow(
			expect.objectContaining({
				code: 'ERR_INFLIGHT_UNSUPPORTED',
				message: 'weigh must not be called: this limiter cannot change a weight',
			}),
		)
		res.end('ok')
	})
	expect((await request(port)).body).toBe('ok')
	server.close()
})

test('200,000 requests whose handlers end at once drain through one permit without growing the stack', async () => {
	const { POSITIVE_INFINITY } = Number
	const middleware = limit({ capacity: 1, maxQueue: POSITIVE_INFINITY, maxWait: POSITIVE_INFINITY })
	const exchanges = Array.from({ length: 200_000 }, () => {
		const req = new http.IncomingMessage({
			prependListener() {},
			destroyed: false,
			writableLength: 0,
		} as never)
		return { req, res: new http.ServerResponse(req) }
	})
	let served = 0
	for (const { req, res } of exchanges) {
		middleware(req, res, () => {
			served++
			// A response without a socket is over when its handler has ended it.
			if (served > 1) res.end()
		})
	}
	expect(middleware.limiter.queued).toBe(199_999)
	exchanges[0]?.res.end()
	await middleware.limiter.onIdle()
	expect(served).toBe(200_000)
})

test.each(['ended', 'finished'])(
	'a response that has %s before the limiter is reached takes no permit, and no handler runs',
	async (when) => {
		const key = vi.fn()
		const middleware = limit({ capacity: 1, key })
		const next = vi.fn()
		const { server, port } = await listen((req, res) => {
			res.end('early')
			if (when === 'ended') middleware(req, res, next)
			else res.on('finish', () => middleware(req, res, next))
		})
		await request(port)
		await until(() => middleware.limiter.stats().rejected.aborted === 1)
		expect(middleware.limiter.stats()).toMatchObject({ active: 0, admitted: 0 })
		expect(next).not.toHaveBeenCalled()
		expect(key).not.toHaveBeenCalled()
		server.close()
	},
)

test('a handler that has answered enters no other limiter', async () => {
	const one = limit(1)
	const other = limit(1)
	const next = vi.fn()
	const { server, port } = await listen((req, res) => {
		one(req, res, () => {
			res.end('ended')
			other(req, res, next)
			one(req, res, next)
		})
	})
	expect((await request(port)).body).toBe('ended')
	expect(other.limiter.stats()).toMatchObject({ active: 0, admitted: 0, rejected: { aborted: 1 } })
	expect(next).not.toHaveBeenCalled()
	server.close()
})

test('onReject of node:http that rejects reaches next', async () => {
	const middleware = limit({ capacity: 1, onReject: () => Promise.reject(new Error('mine')) })
	middleware.limiter.close()
	const { server, port } = await listen((req, res) => {
		middleware(req, res, (error) => res.end(String(error)))
	})
	expect((await request(port)).body).toBe('Error: mine')
	server.close()
})

describe.each([
	['Express 5', express],
	['Express 4', express4],
])('%s', (_name, create) => {
	test('next(error), answered by the app’s own error handler', async () => {
		const app = create()
		const guard = limit(1)
		app.use(guard)
		app.get('/', (_req, _res, next: Next) => next(new Error('mine')))
		app.use((error: Error, _req: IncomingMessage, res: ServerResponse, _next: Next) =>
			res.end(error.message),
		)
		for (let i = 0; i < 3; i++) await supertest(app).get('/').expect(200, 'mine')
		expect(guard.limiter.stats()).toMatchObject({ active: 0, completed: 3 })
	})

	test('the same limiter at app, router and route, and in a sub-app, takes one permit', async () => {
		const guard = limit({ capacity: 1, maxQueue: 0 })
		const sub = create()
		sub.use(guard, limit(guard.limiter))
		sub.get('/', guard, (req, res) => {
			res.json({ active: guard.limiter.active, waited: admission(req)?.waited })
		})
		const router = create.Router()
		router.use(guard)
		router.use('/sub', sub)
		const app = create()
		app.use(guard)
		app.use('/router', guard, router)
		await supertest(app).get('/router/sub').expect(200, { active: 1, waited: 0 })
		expect(guard.limiter.stats()).toMatchObject({ active: 0, admitted: 1 })
	})

	test('different limiters on one request’s way each take a permit; admission is that of the last', async () => {
		const outer = limit({ capacity: 2, name: 'outer' })
		const inner = limit({ capacity: 1, name: 'inner' })
		const work = workshop()
		const waits: (number | undefined)[] = []
		const requests: IncomingMessage[] = []
		const app = create()
		app.use(outer, (req, _res, next) => {
			requests.push(req)
			next()
		})
		app.use(inner, (req, res) => {
			waits.push(admission(req)?.waited)
			return void work.handler(req, res)
		})
		const { server, port } = await listen(app)
		const answers = ['/1', '/2', '/3'].map((path) => request(port, { path }))
		await until(
			() => work.begun.length === 1 && inner.limiter.queued === 1 && outer.limiter.queued === 1,
		)
		// The second waits in the inner limiter: what it has so far is its admission by the outer one.
		expect(requests.map((req) => admission(req)?.waited)).toEqual([0, 0])
		for (let i = 0; i < 3; i++) {
			await until(() => work.begun.length === i + 1)
			work.finish()
		}
		for (const { status } of await Promise.all(answers)) expect(status).toBe(200)
		expect(work.highest()).toBe(1)
		expect(waits[0]).toBe(0)
		expect(waits[1]).toBeGreaterThan(0)
		await until(() => outer.limiter.active === 0 && inner.limiter.active === 0)
		server.close()
	})

	test('a client that leaves while it waits in a second limiter gives back the permit of the first', async () => {
		const outer = limit(2)
		const inner = limit({ capacity: 1, maxQueue: 1 })
		const work = workshop()
		const app = create()
		app.use(outer, inner)
		app.use((req, res) => void work.handler(req, res))
		const { server, port } = await listen(app)
		const first = request(port)
		await until(() => work.begun.length === 1)
		const leaver = await rawClient(port, get('/leaver'))
		await until(() => inner.limiter.queued === 1)
		leaver.socket.destroy()
		await until(() => outer.limiter.active === 1)
		expect(inner.limiter.queued).toBe(0)
		work.finish()
		await first
		await until(() => outer.limiter.active === 0)
		server.close()
	})

	test('a request that a second limiter rejects gives back the permit of the first', async () => {
		const outer = limit(5)
		const inner = limit({ capacity: 1, maxQueue: 0 })
		const work = workshop()
		const app = create()
		app.use(outer, inner)
		app.use((req, res) => void work.handler(req, res))
		const { server, port } = await listen(app)
		const first = request(port)
		await until(() => work.begun.length === 1)
		expect((await request(port)).status).toBe(503)
		await until(() => outer.limiter.active === 1)
		work.finish()
		await first
		server.close()
	})

	test.each(['next', 'throw'])(
		'client gone in mid-stream, then an error reaches Express by %s: the permit comes back',
		async (how) => {
			vi.spyOn(console, 'error').mockImplementation(() => {})
			const guard = limit({ capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY })
			const work = workshop((req, res) => {
				const { next } = req as IncomingMessage & { next: Next }
				expect(res.headersSent).toBe(true)
				if (how === 'next') next(new Error('mine'))
				else throw new Error('mine')
			})
			const app = create()
			app.use(guard)
			app.get('/', (req, res, next: Next) => {
				res.write('headers are sent')
				Promise.resolve(work.handler(Object.assign(req, { next }), res)).catch(next)
			})
			const { server, port } = await listen(app)
			let closed = false
			server.once('connection', (socket) => {
				socket.once('close', () => {
					closed = true
				})
			})
			const client = await rawClient(port, get())
			await until(() => work.begun.length === 1)
			client.socket.destroy()
			await until(() => closed)
			expect(guard.limiter.active).toBe(1)
			work.finish()
			await until(() => guard.limiter.active === 0)
			expect(guard.limiter.stats().abandoned).toBe(1)
			server.close()
		},
	)

	test.each(['next', 'throw', 'destroy'])(
		'an error in mid-stream whose client is still there, by %s: the permit comes back with the connection',
		async (how) => {
			vi.spyOn(console, 'error').mockImplementation(() => {})
			const guard = limit({ capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY })
			const app = create()
			app.use(guard)
			app.get('/', (req, res, next: Next) => {
				res.write('headers are sent')
				if (how === 'throw') throw new Error('mine')
				if (how === 'destroy') req.socket.destroy()
				else next(new Error('mine'))
			})
			const { server, port } = await listen(app)
			for (let i = 1; i <= 3; i++) {
				const client = await rawClient(port, get())
				await client.closed
				await until(() => guard.limiter.active === 0)
				expect(guard.limiter.stats()).toMatchObject({ completed: i, abandoned: 0 })
			}
			server.close()
		},
	)

	test.each([
		'malformed bytes',
		'a timeout of the server',
		'a pipelined request that fails and is not limited',
	])('a connection closed because of %s, in mid-stream: the handler still counts', async (how) => {
		vi.spyOn(console, 'error').mockImplementation(() => {})
		const guard = limit({ capacity: 2, abandonedTimeout: Number.POSITIVE_INFINITY })
		const work = workshop((_req, res) => res.end())
		const app = create()
		const fail = (_req: IncomingMessage, res: ServerResponse, next: Next): void => {
			res.write('headers are sent')
			next(new Error('mine'))
		}
		if (how.endsWith('not limited')) app.get('/fail', fail)
		app.use(guard)
		app.get('/fail', fail)
		app.get('/', (req, res) => {
			res.write('headers are sent')
			// Not before the request is here, so that none is too late.
			if (how.startsWith('a timeout')) req.socket.setTimeout(20)
			void work.handler(req, res)
		})
		const { server, port } = await listen(app)
		server.on('clientError', (_error, socket) => socket.destroy())
		const client = await rawClient(port, get())
		if (how.startsWith('malformed')) client.socket.write('\0\0\0\r\n\r\n')
		if (how.startsWith('a pipelined')) client.socket.write(get('/fail'))
		await client.closed
		await until(() => work.begun.length === 1)
		await new Promise((resolve) => setTimeout(resolve, 20))
		expect(guard.limiter.active).toBeGreaterThan(0)
		work.finish()
		server.close()
	})

	test.each(['end', 'destroy', 'pipeline'])(
		'client gone, then the handler’s %s: the permit comes back',
		async (how) => {
			const guard = limit({ capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY })
			const work = workshop((_req, res) => {
				if (how === 'end') res.end('late')
				else if (how === 'destroy') res.destroy()
				else pipeline(Readable.from(['late']), res, () => res.end())
			})
			const app = create()
			app.use(guard)
			app.get(
				'/',
				(req, res, next: Next) => void Promise.resolve(work.handler(req, res)).catch(next),
			)
			const { server, port } = await listen(app)
			let closed = false
			server.once('connection', (socket) => {
				socket.once('close', () => {
					closed = true
				})
			})
			const client = await rawClient(port, get())
			await until(() => work.begun.length === 1)
			client.socket.destroy()
			await until(() => closed)
			expect(guard.limiter.active).toBe(1)
			work.finish()
			await until(() => guard.limiter.active === 0)
			expect(guard.limiter.stats().abandoned).toBe(1)
			server.close()
		},
	)

	test('a download that its client breaks off gives its permit back', async () => {
		const guard = limit({ capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY })
		const app = create()
		app.use(guard)
		app.get('/', (_req, res) => {
			new Readable({
				read() {
					this.push(Buffer.alloc(65_536))
				},
			}).pipe(res)
		})
		const { server, port } = await listen(app)
		const client = await rawClient(port, get())
		await until(() => client.text().length > 500_000)
		expect(guard.limiter.active).toBe(1)
		client.socket.destroy()
		await until(() => guard.limiter.active === 0)
		server.close()
	})

	describe('onReject', () => {
		function rejecting(onReject: NonNullable<LimitOptions['onReject']>) {
			const app = create()
			const guard = limit({ capacity: 1, onReject })
			guard.limiter.close()
			app.use((_req, res, next) => {
				res.setHeader('X-Before', 'kept')
				next()
			})
			app.use(guard)
			app.use((_req, res) => void res.end('handler'))
			return supertest(app).get('/')
		}

		test('answers instead of the default answer', async () => {
			const answer = await rejecting((rejection, _req, res) => {
				res.statusCode = 418
				res.end(`${rejection.reason} ${rejection.retryAfter}`)
			})
			expect(answer).toMatchObject({ status: 418, text: 'closed 1' })
		})

		test('can let the request through', async () => {
			await rejecting((_rejection, _req, _res, next) => next()).expect(200, 'handler')
		})

		test('next(rejection) leaves it to the error handling, which answers 503 and Retry-After', async () => {
			vi.spyOn(console, 'error').mockImplementation(() => {})
			const answer = await rejecting((rejection, _req, _res, next) => next(rejection))
			expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
		})

		test('an error of its own is the request’s', async () => {
			vi.spyOn(console, 'error').mockImplementation(() => {})
			const fail = (): never => {
				throw new Error('mine')
			}
			await rejecting(fail).expect(500)
			await rejecting(async () => fail()).expect(500)
		})
	})

	test('headers set before the limiter are kept in a rejection', async () => {
		const guard = limit({ capacity: 1, statusCode: 507 })
		guard.limiter.close()
		const app = create()
		app.use((_req, res, next) => {
			res.setHeader('Access-Control-Allow-Origin', '*')
			next()
		}, guard)
		const { status, headers, body } = await supertest(app).get('/')
		expect(status).toBe(507)
		expect(headers['access-control-allow-origin']).toBe('*')
		expect(body).toMatchObject({
			type: 'about:blank',
			title: 'Insufficient Storage',
			status: 507,
			reason: 'closed',
		})
	})

	test('a status that nobody has named', async () => {
		const guard = limit({ capacity: 1, statusCode: 599 })
		guard.limiter.close()
		const app = create()
		app.use(guard)
		expect((await supertest(app).get('/')).body).toMatchObject({ title: 'Rejected', status: 599 })
	})

	test('when headers were sent before the limiter, a rejection goes to the error handling', async () => {
		const guard = limit(1)
		guard.limiter.close()
		const errors: string[] = []
		const app = create()
		app.use((_req, res, next) => {
			res.write('begun ')
			next()
		}, guard)
		app.use((error: { code: string }, _req: IncomingMessage, res: ServerResponse, _next: Next) => {
			errors.push(error.code)
			res.end('ended')
		})
		await supertest(app).get('/').expect(200, 'begun ended')
		expect(errors).toEqual(['ERR_INFLIGHT_REJECTED'])
	})
})

test('a request made by hand, with no socket, gets in and gives its permit back', () => {
	const guard = limit(1)
	const req = new http.IncomingMessage(null as never)
	const res = new http.ServerResponse(req)
	const next = vi.fn()
	guard(req, res, next)
	expect(next.mock.calls).toEqual([[]])
	expect(guard.limiter.active).toBe(1)
	res.end('ok')
	expect(guard.limiter.stats()).toMatchObject({ active: 0, completed: 1 })
})

test('a response made by hand that emits nothing gives its permit back when it is ended', () => {
	const guard = limit(1)
	const nothing = () => {}
	const emitter = {
		on: nothing,
		removeListener: nothing,
		prependListener: nothing,
		listeners: () => [],
	}
	for (let i = 0; i < 3; i++) {
		const req = { headers: {}, socket: undefined }
		const res = {
			...emitter,
			statusCode: 200,
			writableEnded: false,
			end: nothing,
			destroy: nothing,
		}
		const next = vi.fn()
		guard(req as never, res as never, next)
		expect(next).toHaveBeenCalledOnce()
		expect(guard.limiter.active).toBe(1)
		res.end()
		expect(guard.limiter.stats()).toMatchObject({ active: 0, completed: i + 1 })
	}
})

test('a rejection is sent where `writeHead` returns nothing, as for a WebSocket of express-ws', async () => {
	const guard = limit(1)
	guard.limiter.close()
	const req = new http.IncomingMessage(null as never)
	const res = new http.ServerResponse(req)
	const statuses: number[] = []
	res.writeHead = ((status: number) => void statuses.push(status)) as never
	const next = vi.fn()
	guard(req, res, next)
	await Promise.resolve()
	expect(statuses[0]).toBe(503)
	expect(next).not.toHaveBeenCalled()
})

test('connect and a limiter made beforehand', async () => {
	const limiter = new Limiter({ capacity: 1, name: 'shared' })
	const app = connect()
	app.use(limit(limiter))
	app.use((_req, res) => res.end(String(limiter.active)))
	await supertest(app).get('/').expect(200, '1')
	expect(limit(limiter).limiter).toBe(limiter)
})
