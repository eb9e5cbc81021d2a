import { createReadStream, mkdtempSync, openSync, writeFileSync } from 'node:fs'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, pipeline, Readable } from 'node:stream'
import { pipeline as pipelinePromise } from 'node:stream/promises'
import express from 'express'
import express4 from 'express4'
import Koa from 'koa'
import Koa2 from 'koa2'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { admission, type Limiter, limit } from '../../adapters/express.js'
import { limit as limitKoa } from '../../adapters/koa.js'
import {
	countClosed,
	get,
	rawClient,
	request,
	until,
	type Work,
	workshop,
} from '../support/clients.js'
import { frameworks, type Handler, listen } from '../support/frameworks.js'
import {
	agentFor,
	type Before,
	carrierOf,
	listenerOf,
	places,
	type Running,
	start,
	watchAccidents,
} from '../support/transports.js'

/*
 * The ends of an exchange that go past the handler: an answer by somebody else, a client that left
 * before, a response that is none of a server's, a connection that belongs to another response.
 */

let accidents: () => unknown[]

beforeEach(() => {
	accidents = watchAccidents()
})

afterEach(() => {
	expect(accidents()).toEqual([])
})

const FILE = join(mkdtempSync(join(tmpdir(), 'endings-')), 'file.txt')
writeFileSync(FILE, 'a file')

const turns = async (count = 5): Promise<void> => {
	for (let i = 0; i < count; i++) await new Promise(setImmediate)
}

const counts = ({ active, queued }: Limiter): { active: number; queued: number } => ({
	active,
	queued,
})

/** All permits are back, each was counted, and `capacity` fresh requests are at work at once. */
async function expectNothingLost(running: Running, work: Work): Promise<void> {
	const { limiter } = running
	await until(() => limiter.active === 0 && limiter.queued === 0)
	const { admitted, completed, abandoned } = limiter.stats()
	expect(completed + abandoned).toBe(admitted)
	const before = work.begun.length
	const fresh = Array.from({ length: limiter.capacity }, (_, i) => running.visit(`/fresh/${i}`))
	await until(() => work.begun.length === before + limiter.capacity)
	expect(limiter.active).toBe(limiter.capacity)
	for (let i = 0; i < limiter.capacity; i++) work.finish(`/fresh/${i}`)
	expect(await Promise.all(fresh.map(({ ended }) => ended))).toEqual(fresh.map(() => 'clean'))
	await until(() => limiter.active === 0)
}

/** Ways in which a middleware in front answers a request that is none of its handler's any more. */
const answers: Record<string, (res: ServerResponse) => void> = {
	'res.end': (res) => res.writeHead(504).end('other'),
	'no body': (res) => void res.writeHead(204).end(),
	'chunks, later': async (res) => {
		res.writeHead(504).write('oth')
		await turns()
		res.end('er')
	},
	'a piped stream': (res) => void Readable.from(['oth', 'er']).pipe(res.writeHead(504)),
	'res.setTimeout': (res) => res.setTimeout(1, () => res.writeHead(504).end('other')),
	'a timer': (res) => void setTimeout(() => res.writeHead(504).end('other'), 1),
}

describe.each(places)('$framework over $transport', (place) => {
	const h2 = place.transport === 'HTTP/2'

	/** Requests to `/other/…` are noted, to be answered by somebody else. */
	function noting(): { arrived: ServerResponse[]; before: Before } {
		const arrived: ServerResponse[] = []
		const before: Before = (req, res, next) => {
			if (req.url?.startsWith('/other')) arrived.push(res)
			return next()
		}
		return { arrived, before }
	}

	test.each(Object.entries(answers))(
		'answered while it waits, by %s: it leaves the queue at once and never runs',
		async (_name, answer) => {
			const work = workshop()
			const { arrived, before } = noting()
			const options = { capacity: 2, maxWait: Number.POSITIVE_INFINITY }
			await using running = await start(place, { before, handler: work.handler, options })
			const agent = agentFor(place.transport, 4)
			const holders = [running.visit('/1'), running.visit('/2')]
			await until(() => work.begun.length === 2)
			const visits = [1, 2, 3].map((i) => running.visit(`/other/${i}`, h2 ? {} : { agent }))
			await until(() => running.limiter.queued === 3)
			for (const res of arrived) answer(res)
			for (const { ended } of visits) expect(await ended).toBe('clean')
			await until(() => running.limiter.queued === 0)
			expect(running.limiter.active).toBe(2)
			expect(work.begun.length).toBe(2)
			work.finish()
			work.finish()
			for (const { ended } of holders) expect(await ended).toBe('clean')
			await until(() => running.limiter.active === 0)
			// The same connections go on.
			const again = running.visit('/again', h2 ? {} : { agent })
			await until(() => work.begun.length === 3)
			work.finish()
			expect(await again.ended).toBe('clean')
			await expectNothingLost(running, work)
			expect(work.begun.filter((path) => path.startsWith('/other'))).toEqual([])
			agent.destroy()
		},
	)

	test.each(['maxWait', 'close'])(
		'answered while it waits, on a connection that goes on: no rejection follows, by %s',
		async (how) => {
			const work = workshop()
			const rejections: unknown[] = []
			const { arrived, before } = noting()
			const options = {
				capacity: 1,
				maxWait: how === 'maxWait' ? 60 : Number.POSITIVE_INFINITY,
				onReject: (rejection: unknown) => rejections.push(rejection),
			}
			await using running = await start(place, { before, handler: work.handler, options })
			const agent = agentFor(place.transport, 1)
			const holder = running.visit('/holder')
			await until(() => work.begun.length === 1)
			const answered = running.visit('/other', h2 ? {} : { agent })
			await until(() => running.limiter.queued === 1)
			arrived[0]?.writeHead(504).end('other')
			expect(await answered.ended).toBe('clean')
			await until(() => running.limiter.queued === 0)
			if (how === 'close') running.limiter.close()
			else await new Promise((resolve) => setTimeout(resolve, 80))
			await turns()
			expect(rejections).toEqual([])
			work.finish()
			expect(await holder.ended).toBe('clean')
			await until(() => running.limiter.active === 0)
			if (how === 'maxWait') await expectNothingLost(running, work)
			agent.destroy()
		},
	)

	test('answered while it waits with the client reset right after: nothing is lost', async () => {
		const work = workshop()
		const { arrived, before } = noting()
		await using running = await start(place, {
			before,
			handler: work.handler,
			options: { capacity: 1 },
		})
		const holder = running.visit('/holder')
		await until(() => work.begun.length === 1)
		const visit = running.visit('/other')
		await until(() => running.limiter.queued === 1)
		arrived[0]?.end('other')
		visit.leave()
		work.finish()
		await holder.ended
		await expectNothingLost(running, work)
		expect(work.begun).not.toContain('/other')
	})

	test('answered by somebody else while its handler works: over, and the handler may go on', async () => {
		const work = workshop(() => {})
		const { arrived, before } = noting()
		await using running = await start(place, {
			before,
			handler: work.handler,
			options: { capacity: 1 },
		})
		const visit = running.visit('/other')
		await until(() => work.begun.length === 1)
		arrived[0]?.writeHead(504).end('other')
		expect(await visit.ended).toBe('clean')
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ admitted: 1, completed: 1, abandoned: 0 })
		work.finish()
	})

	const befores: Record<string, (res: ServerResponse) => unknown> = {
		'and still being sent': (res) => res.end('other'),
		'and sent': (res) =>
			new Promise((resolve) => {
				res.once('finish', resolve)
				res.end('other')
			}),
		'in two parts': async (res) => {
			res.writeHead(504).write('ot')
			await turns(1)
			res.end('her')
		},
	}
	test.each(Object.entries(befores))(
		'answered before the limiter, %s: nothing is asked, nothing runs, nothing is counted',
		async (_name, answer) => {
			const work = workshop()
			const asked = vi.fn()
			const options = {
				capacity: 1,
				key: (of: IncomingMessage | { req: IncomingMessage }) => {
					asked()
					return ('req' in of && of.req ? of.req : (of as IncomingMessage)).url?.startsWith(
						'/fresh',
					)
						? 'key'
						: undefined
				},
				weight: () => {
					asked()
					return 1
				},
			}
			let entered = 0
			const before: Before = async (req, res, next) => {
				if (req.url !== '/other') return next()
				await answer(res)
				const rest = next()
				entered++
				await rest
			}
			await using running = await start(place, { before, handler: work.handler, options })
			const visits = Array.from({ length: 4 }, () => running.visit('/other'))
			await until(() => entered === 4)
			await turns()
			expect(work.begun).toEqual([])
			expect(asked).not.toHaveBeenCalled()
			expect(running.limiter.stats()).toMatchObject({ active: 0, queued: 0, admitted: 0 })
			for (const { ended } of visits) expect(await ended).toBe('clean')
			await expectNothingLost(running, work)
		},
	)

	test('a client that left before the limiter: nothing is asked, nothing runs', async () => {
		const work = workshop()
		const asked: string[] = []
		const urlOf = (of: IncomingMessage | { req: IncomingMessage }): string =>
			('req' in of && of.req ? of.req : (of as IncomingMessage)).url ?? ''
		const options = {
			capacity: 1,
			skip: (of: IncomingMessage) => {
				asked.push(urlOf(of))
				return false
			},
			key: (of: IncomingMessage) => {
				asked.push(urlOf(of))
				return urlOf(of).startsWith('/left') ? undefined : 'key'
			},
			weight: (of: IncomingMessage) => {
				asked.push(urlOf(of))
				return 1
			},
		}
		const held: (() => void)[] = []
		let gone = 0
		const before: Before = async (req, _res, next) => {
			if (!req.url?.startsWith('/left')) return next()
			carrierOf(req).once('close', () => gone++)
			await new Promise<void>((go) => held.push(go))
			return next()
		}
		await using running = await start(place, { before, handler: work.handler, options })
		const visits = [
			running.visit('/left/get'),
			running.visit('/left/post', { method: 'POST', body: 'to follow' }),
			running.visit('/left/posted', { method: 'POST', body: 'all' }),
		]
		await until(() => held.length === 3)
		for (const visit of visits) visit.leave()
		await until(() => gone === 3)
		for (const go of held) go()
		await turns()
		expect(asked).toEqual([])
		expect(work.begun).toEqual([])
		expect(running.limiter.stats()).toMatchObject({ active: 0, queued: 0, admitted: 0 })
		await expectNothingLost(running, work)
	})

	/** Calls the `end` that a response had when it came, as a middleware that has kept it does. */
	const keptEnds = new WeakMap<ServerResponse, () => void>()

	/**
	 * What a handler does that learns nothing of its client's leaving. Its promise settles when all
	 * is begun.
	 */
	const pipes: Record<string, Handler> = {
		'an end kept from before': (_req, res) => keptEnds.get(res)?.(),
		pipe: (_req, res) => void Readable.from(['a', 'b']).pipe(res),
		'pipe of an endless stream': (_req, res) => {
			const source = new Readable({ read: () => source.push(Buffer.alloc(16_384)) })
			source.pipe(res)
		},
		'pipe of a file': (_req, res) => void createReadStream(FILE).pipe(res),
		'pipe of a file that is not there': (_req, res) =>
			void createReadStream(`${FILE}-not`)
				.on('error', () => res.destroy())
				.pipe(res),
		'pipe through a transform': (_req, res) =>
			void createReadStream(FILE).pipe(new PassThrough()).pipe(res),
		pipeline: (_req, res) => pipeline(createReadStream(FILE), res, () => {}),
		'pipeline of stream/promises': (_req, res) =>
			pipelinePromise(Readable.from(['a', 'b']), res).catch(() => {}),
		'writes and an end': (_req, res) => {
			res.write('a')
			res.end('b')
		},
		end: (_req, res) => void res.end('b'),
		destroy: (_req, res) => void res.destroy(),
		throw: () => {
			throw new Error('thrown')
		},
	}
	// Node never settles this promise for a response of HTTP/2 whose stream has closed. In Koa the
	// handler is then not done, and `abandonedTimeout` bounds it.
	if (h2 && place.framework.startsWith('Koa')) delete pipes['pipeline of stream/promises']
	// A stream of HTTP/2 does not show it: `abandonedTimeout` bounds that.
	if (h2) delete pipes['an end kept from before']
	test.each(Object.entries(pipes))(
		'%s after the client has left: the permit comes back then',
		async (_name, pipe) => {
			const work = workshop(async (req, res) => {
				if (req.url === '/left') await pipe(req, res)
				else res.end()
			})
			let gone = false
			const before: Before = (req, res, next) => {
				const { end } = res
				keptEnds.set(res, () => void Reflect.apply(end, res, []))
				if (req.url === '/left') {
					carrierOf(req).once('close', () => {
						gone = true
					})
				}
				return next()
			}
			const options = { capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY }
			await using running = await start(place, { before, handler: work.handler, options })
			const visit = running.visit('/left')
			await until(() => work.begun.length === 1)
			visit.leave()
			await until(() => gone)
			await turns()
			expect(running.limiter.active).toBe(1)
			work.finish()
			await until(() => running.limiter.active === 0)
			expect(running.limiter.stats()).toMatchObject({ admitted: 1, abandoned: 1 })
			await expectNothingLost(running, work)
		},
	)

	/**
	 * Like compression: what the handler ends with is sent piece by piece, and the next piece only
	 * when the client has taken the one before.
	 */
	const endingLater: Before = (req, res, next) => {
		if (!req.url?.startsWith('/other')) return next()
		const { end } = res
		res.end = function (this: ServerResponse) {
			const send = (): void => {
				while (this.write(Buffer.alloc(65_536)));
				this.once('drain', send)
			}
			send()
			return this
		} as typeof end
		return next()
	}

	test('a client leaves when the handler has ended, but a middleware in front has not', async () => {
		const work = workshop()
		const options = { capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY }
		await using running = await start(place, {
			before: endingLater,
			handler: work.handler,
			options,
		})
		const visit = running.visit('/other', { paused: true })
		await until(() => work.begun.length === 1)
		work.finish()
		await until(() => visit.status === 200)
		expect(running.limiter.active).toBe(1)
		visit.leave()
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ admitted: 1, completed: 1 })
		await expectNothingLost(running, work)
	})

	test('answered while it waits, by what a middleware in front ends later: it never runs', async () => {
		const work = workshop()
		const arrived: ServerResponse[] = []
		const before: Before = (req, res, next) =>
			endingLater(req, res, () => {
				if (req.url === '/other') arrived.push(res)
				return next()
			})
		const options = { capacity: 1, maxWait: Number.POSITIVE_INFINITY }
		await using running = await start(place, { before, handler: work.handler, options })
		const holder = running.visit('/1')
		await until(() => work.begun.length === 1)
		running.visit('/other', { paused: true })
		await until(() => running.limiter.queued === 1)
		arrived[0]?.end()
		await until(() => running.limiter.queued === 0)
		work.finish()
		expect(await holder.ended).toBe('clean')
		await expectNothingLost(running, work)
		expect(work.begun).not.toContain('/other')
	})

	// In HTTP/2 this ends neither the stream nor the response.
	test.runIf(!h2)(
		'a handler destroys its request without an answer: its permit comes back',
		async () => {
			const work = workshop((req) => void req.destroy())
			const options = { capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY }
			await using running = await start(place, { handler: work.handler, options })
			const visit = running.visit('/')
			await until(() => work.begun.length === 1)
			work.finish()
			expect(await visit.ended).toBe('cut')
			await until(() => running.limiter.active === 0)
		},
	)
})

describe.each(places.filter(({ transport }) => transport === 'HTTP/2'))(
	'$framework, by res.stream',
	(place) => {
		const streamAnswers: Record<string, (stream: ServerHttp2Stream) => unknown> = {
			respondWithFile: (stream) => stream.respondWithFile(FILE),
			respondWithFD: (stream) => stream.respondWithFD(openSync(FILE, 'r')),
			'respond and end': (stream) => {
				stream.respond({ ':status': 200 })
				stream.end('hello')
			},
			'respond with endStream': (stream) => stream.respond({ ':status': 204 }, { endStream: true }),
			'end alone': (stream) => stream.end('hello'),
			'respond and pipe': (stream) => {
				stream.respond({ ':status': 200 })
				createReadStream(FILE).pipe(stream)
			},
			'respond, and the rest later': async (stream) => {
				stream.respond({ ':status': 200 })
				stream.write('hel')
				await turns()
				stream.end('lo')
			},
			'pushStream beside it': (stream) => {
				stream.pushStream({ ':path': '/pushed' }, (error, pushed) => {
					if (error !== null) return
					pushed.respond({ ':status': 200 })
					pushed.end('pushed')
				})
				stream.respond({ ':status': 200 })
				stream.end('hello')
			},
		}
		test.each(Object.entries(streamAnswers))(
			'%s: the permit comes back with the answer, which is complete',
			async (_name, answer) => {
				const work = workshop()
				const handler: Handler = (req, res) => {
					if (req.url === '/stream')
						return answer((res as unknown as { stream: ServerHttp2Stream }).stream)
					return work.handler(req, res)
				}
				const options = { capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY }
				await using running = await start(place, { handler, options })
				for (const method of ['GET', 'POST']) {
					const visit = running.visit(
						'/stream',
						method === 'POST' ? { method, body: 'read by nobody' } : {},
					)
					expect(await visit.ended).toBe('clean')
					await until(() => running.limiter.active === 0)
				}
				expect(running.limiter.stats()).toMatchObject({ admitted: 2, completed: 2, abandoned: 0 })
				await expectNothingLost(running, work)
			},
		)

		test('an answer that is reset in the middle, and never ended: as by any other handler that never ends', async () => {
			const work = workshop((req, res) => {
				if (req.url !== '/stream') return res.end()
				const { stream } = res as unknown as { stream: ServerHttp2Stream }
				if (!stream.destroyed) {
					stream.respond({ ':status': 200 })
					stream.write('hel')
				}
			})
			const options = { capacity: 1, abandonedTimeout: 50 }
			await using running = await start(place, { handler: work.handler, options })
			const visit = running.visit('/stream')
			await until(() => work.begun.length === 1)
			work.finish()
			await until(() => visit.body === 'hel')
			visit.leave()
			await until(() => running.limiter.active === 0)
			await expectNothingLost(running, work)
		})
	},
)

describe.each(frameworks.filter(({ kind }) => kind === 'koa'))('$name', ({ name }) => {
	test('Promise.race in front answers while a request waits, and while its handler works', async () => {
		const work = workshop()
		const app = name === 'Koa 3' ? new Koa() : (new Koa2() as unknown as Koa)
		const guard = limitKoa({ capacity: 1, maxWait: Number.POSITIVE_INFINITY })
		const timeouts: (() => void)[] = []
		app.use(async (ctx, next) => {
			const timeout = new Promise<'timeout'>((resolve) => {
				if (ctx.path.startsWith('/race')) timeouts.push(() => resolve('timeout'))
			})
			if ((await Promise.race([next(), timeout])) !== 'timeout') return
			ctx.status = 504
			ctx.body = 'too late'
		})
		app.use(guard)
		app.use(async (ctx) => {
			await work.handler(ctx.req, { end: () => {} } as unknown as ServerResponse)
			ctx.body = 'fine'
		})
		const { server, port } = await listen(app.callback())
		const agent = new http.Agent({ keepAlive: true, maxSockets: 3 })
		const holder = request(port, { path: '/race/holder' })
		await until(() => work.begun.length === 1)
		const waiting = [1, 2].map((i) => request(port, { path: `/race/${i}`, agent }))
		await until(() => guard.limiter.queued === 2)
		timeouts[1]?.()
		timeouts[2]?.()
		for (const answer of waiting) expect((await answer).status).toBe(504)
		await until(() => guard.limiter.queued === 0)
		expect(guard.limiter.active).toBe(1)
		timeouts[0]?.()
		expect((await holder).status).toBe(504)
		await until(() => guard.limiter.active === 0)
		const last = request(port, { path: '/last', agent })
		await until(() => work.begun.length === 2)
		work.finish('/last')
		expect(await last).toMatchObject({ status: 200, body: 'fine' })
		expect(work.begun).toEqual(['/race/holder', '/last'])
		work.finishAll()
		agent.destroy()
		server.close()
	})

	test.each(['string', 'stream', 'endless stream'])(
		'a body that is a %s, set after the client has left',
		async (kind) => {
			const work = workshop()
			const app = name === 'Koa 3' ? new Koa() : (new Koa2() as unknown as Koa)
			app.silent = true
			const guard = limitKoa({ capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY })
			app.use(guard)
			app.use(async (ctx) => {
				await work.handler(ctx.req, { end: () => {} } as unknown as ServerResponse)
				const source = new Readable({ read: () => source.push(Buffer.alloc(16_384)) })
				ctx.body = kind === 'string' ? 'text' : kind === 'stream' ? createReadStream(FILE) : source
			})
			const { server, port } = await listen(app.callback())
			const gone = new Promise((resolve) => {
				server.once('connection', (socket) => socket.once('close', resolve))
			})
			const client = await rawClient(port, get())
			await until(() => work.begun.length === 1)
			client.socket.destroy()
			await gone
			expect(guard.limiter.active).toBe(1)
			work.finish()
			await until(() => guard.limiter.active === 0)
			expect(guard.limiter.stats().abandoned).toBe(1)
			server.close()
		},
	)
})

describe.each([
	['Express 5', express],
	['Express 4', express4 as unknown as typeof express],
])('%s', (_name, create) => {
	const sends: Record<string, (app: express.Express) => express.Handler> = {
		sendFile: () => (_req, res) => res.sendFile(FILE),
		'sendFile of a file that is not there': () => (_req, res) => res.sendFile(`${FILE}-not`),
		download: () => (_req, res) => res.download(FILE),
		'download with a callback': () => (_req, res) => res.download(FILE, () => {}),
		static: () => express.static(join(FILE, '..')),
		send: () => (_req, res) => void res.send('text'),
		json: () => (_req, res) => void res.json({}),
		redirect: () => (_req, res) => res.redirect('/'),
		'next(error)': () => (_req, _res, next) => next(new Error('handed on')),
		'next(), to the 404': () => (_req, _res, next) => next(),
	}
	test.each(Object.entries(sends))(
		'%s after the client has left: the permit comes back',
		async (_way, send) => {
			const work = workshop()
			const app = create()
			app.set('env', 'test')
			const guard = limit({ capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY })
			app.use(guard)
			app.use(async (req, _res, next) => {
				await work.handler(req, { end: () => {} } as unknown as ServerResponse)
				next()
			})
			app.use(send(app))
			const { server, port } = await listen(app)
			for (const staying of [false, true]) {
				const gone = new Promise((resolve) => {
					server.once('connection', (socket) => socket.once('close', resolve))
				})
				const client = await rawClient(port, get('/file.txt', 'Connection: close\r\n'))
				await until(() => work.begun.length === (staying ? 2 : 1))
				if (!staying) {
					client.socket.destroy()
					await gone
					await turns()
					expect(guard.limiter.active).toBe(1)
				}
				work.finish()
				await until(() => guard.limiter.active === 0)
				client.socket.destroy()
			}
			expect(guard.limiter.stats()).toMatchObject({ admitted: 2, completed: 1, abandoned: 1 })
			server.close()
		},
	)
})

describe.each(frameworks)('$name, with a response of no server', ({ name }) => {
	/** A request by hand, as adapters for serverless functions make them. */
	function requestOf(socket: unknown, url: string): IncomingMessage {
		const req = new http.IncomingMessage(socket as Socket)
		return Object.assign(req, {
			method: 'GET',
			url,
			headers: { host: 'localhost' },
			httpVersion: '1.1',
			httpVersionMajor: 1,
			httpVersionMinor: 1,
			complete: true,
			_read() {
				req.push(null)
			},
		})
	}

	/**
	 * As serverless-http and @codegenie/serverless-express do: `finish` comes while `writableEnded`
	 * is still false.
	 */
	function serverlessResponse(req: IncomingMessage): ServerResponse {
		const res = new http.ServerResponse(req)
		res.useChunkedEncodingByDefault = false
		res.chunkedEncoding = false
		;(res as unknown as { _header: string })._header = ''
		const nothing = (): void => {}
		res.assignSocket({
			_writableState: {},
			writable: true,
			on: nothing,
			removeListener: nothing,
			destroy: nothing,
			cork: nothing,
			uncork: nothing,
			write(_data: unknown, encoding: unknown, callback: unknown) {
				const done = typeof encoding === 'function' ? encoding : callback
				if (typeof done === 'function') done()
				return true
			},
		} as unknown as Socket)
		return res
	}

	/**
	 * As test tools do: a response that is no `ServerResponse` beneath, and lives by its own events.
	 */
	function detachedResponse(req: IncomingMessage): ServerResponse {
		const res = new http.ServerResponse(req)
		res.end = function end(this: ServerResponse) {
			Object.assign(this, { finished: true })
			process.nextTick(() => this.emit('finish'))
			return this
		} as typeof res.end
		return res
	}

	const sockets: Record<string, () => unknown> = {
		'a stream for a socket': () => Object.assign(new PassThrough(), { encrypted: true }),
		'an object for a socket': () => ({ encrypted: true, readable: true, end() {}, destroy() {} }),
	}
	const responses = { serverless: serverlessResponse, detached: detachedResponse }

	describe.each(Object.entries(sockets))('with %s', (_socket, socket) => {
		test.each(Object.entries(responses))('%s: finished is finished', async (_kind, response) => {
			const work = workshop()
			const options = { capacity: 2, maxWait: Number.POSITIVE_INFINITY }
			const { listener, limiter } = listenerOf(name, { handler: work.handler, options })
			const all = Array.from({ length: 6 }, (_, i) => {
				const req = requestOf(socket(), `/${i}`)
				const res = response(req)
				const finished = new Promise((resolve) => res.once('finish', resolve))
				listener(req, res)
				return finished
			})
			await until(() => work.begun.length === 2)
			expect(counts(limiter)).toEqual({ active: 2, queued: 4 })
			for (let i = 0; i < 6; i++) {
				await until(() => work.begun.length > i)
				work.finish(`/${i}`)
				await all[i]
			}
			await until(() => limiter.active === 0)
			expect(limiter.stats()).toMatchObject({ admitted: 6, completed: 6, abandoned: 0 })
			expect(work.highest()).toBe(2)
		})

		test('answered by somebody else while it waits: it leaves the queue', async () => {
			const work = workshop()
			const { listener, limiter } = listenerOf(name, {
				handler: work.handler,
				options: { capacity: 1 },
			})
			const pairs = ['/first', '/second'].map((url) => {
				const req = requestOf(socket(), url)
				return { req, res: serverlessResponse(req) }
			})
			for (const { req, res } of pairs) listener(req, res)
			await until(() => work.begun.length === 1 && limiter.queued === 1)
			pairs[1]?.res.end('other')
			await until(() => limiter.queued === 0)
			work.finish()
			await until(() => limiter.active === 0)
			await turns()
			expect(work.begun).toEqual(['/first'])
		})
	})
})

describe.each(frameworks)('$name, pipelined', ({ name }) => {
	/** Requests to `/open/…` are answered before the limiter, by `answer`. */
	async function piped(
		capacity: number,
		answer: (req: IncomingMessage, res: ServerResponse) => unknown,
		work: Work,
		skipped = false,
	): Promise<Running> {
		const isOpen = (req: IncomingMessage): boolean => req.url?.startsWith('/open') === true
		const before: Before = (req, res, next) => (isOpen(req) && !skipped ? answer(req, res) : next())
		const handler: Handler = (req, res) => (isOpen(req) ? answer(req, res) : work.handler(req, res))
		const skip = (of: IncomingMessage | { req: IncomingMessage }): boolean =>
			isOpen('req' in of && of.req ? of.req : (of as IncomingMessage))
		const options = { capacity, maxWait: Number.POSITIVE_INFINITY, ...(skipped ? { skip } : {}) }
		return start({ framework: name, transport: 'HTTP/1' }, { before, handler, options })
	}

	/** A request of HTTP/1.0 that asks to keep the connection. */
	const oldGet = (path: string): string => `GET ${path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n`

	test('a response that something destroys before its turn: its handler never runs', async () => {
		const work = workshop()
		let destroy = (): unknown => undefined
		const before: Before = (req, res, next) => {
			if (req.url === '/destroyed') destroy = () => res.destroy()
			return next()
		}
		const options = { capacity: 1 }
		const place = { framework: name, transport: 'HTTP/1' } as const
		await using running = await start(place, { before, handler: work.handler, options })
		const client = await rawClient(running.port, get('/first') + get('/destroyed'))
		await until(() => work.begun.length === 1)
		await turns()
		destroy()
		work.finish('/first')
		await until(() => running.limiter.active === 0)
		await turns()
		expect(work.begun).toEqual(['/first'])
		client.socket.destroy()
		await expectNothingLost(running, work)
	})

	describe.each([false, true])('behind a route without a limit (by skip: %s)', (skipped) => {
		test('an open event stream: no permit and no place until it has ended, and others are served', async () => {
			const work = workshop()
			const streams: ServerResponse[] = []
			const open = (_req: IncomingMessage, res: ServerResponse): void => {
				streams.push(res)
				res.writeHead(200, { 'Content-Type': 'text/event-stream' })
				res.write(':hi\n\n')
			}
			await using running = await piped(3, open, work, skipped)
			const client = await rawClient(running.port, get('/open') + get('/download').repeat(50))
			await until(() => streams.length === 1)
			await turns()
			expect(counts(running.limiter)).toEqual({ active: 0, queued: 0 })
			const others = [1, 2, 3].map((i) => running.visit(`/others/${i}`))
			await until(() => work.begun.length === 3)
			for (let i = 0; i < 3; i++) work.finish()
			for (const { ended } of others) expect(await ended).toBe('clean')
			streams[0]?.end()
			for (let i = 0; i < 50; i++) {
				await until(() => work.begun.length === 4 + i)
				expect(counts(running.limiter)).toEqual({ active: 1, queued: 0 })
				work.finish('/download')
			}
			await until(() => client.text().split('/download').length === 51)
			client.socket.destroy()
			await expectNothingLost(running, work)
		})

		test('an open event stream whose client leaves: what is behind never runs', async () => {
			for (const leave of ['destroy', 'resetAndDestroy', 'end'] as const) {
				const work = workshop()
				let opened = 0
				const open = (_req: IncomingMessage, res: ServerResponse): void => {
					opened++
					res.write(':hi\n\n')
					res.on('close', () => res.end())
				}
				await using running = await piped(1, open, work, skipped)
				const client = await rawClient(running.port, get('/open') + get('/download').repeat(5))
				await until(() => opened === 1)
				await turns()
				client.socket[leave]()
				await client.closed
				await turns()
				expect(work.begun).toEqual([])
				await expectNothingLost(running, work)
			}
		})

		const closings: Record<string, (res: ServerResponse) => unknown> = {
			'Connection: close': (res) => res.setHeader('Connection', 'close').end('last'),
			'shouldKeepAlive = false': (res) => {
				res.shouldKeepAlive = false
				res.end('last')
			},
			'an error after the headers': (res) => {
				res.write('some')
				res.destroy()
			},
			'a socket that is destroyed': (res) => {
				res.write('some')
				res.req.socket.destroy()
			},
			'a socket that is ended': (res) => res.socket?.end(),
		}
		test.each(Object.entries(closings))(
			'%s: never more than the capacity at work',
			async (_name, close) => {
				const work = workshop()
				const open: ServerResponse[] = []
				await using running = await piped(2, (_req, res) => open.push(res), work, skipped)
				for (let round = 0; round < 8; round++) {
					const client = await rawClient(running.port, get('/open') + get('/work'))
					await until(() => open.length === round + 1)
					await turns()
					expect(counts(running.limiter)).toEqual({ active: 0, queued: 0 })
					close(open[round] as ServerResponse)
					await client.closed
				}
				await turns()
				expect(work.begun).toEqual([])
				await expectNothingLost(running, work)
				expect(work.highest()).toBeLessThanOrEqual(2)
			},
		)
	})

	test('behind a limited answer that closes the connection: never more than the capacity at work', async () => {
		const work = workshop(async (req, res) => {
			if (req.url?.startsWith('/fresh')) return res.end()
			if (req.url === '/close') res.setHeader('Connection', 'close')
			res.write('a')
			await turns()
			res.end('b')
		})
		await using running = await piped(2, () => {}, work)
		for (const first of [oldGet('/short'), get('/close'), oldGet('/close')]) {
			for (let round = 0; round < 6; round++) {
				const before = work.begun.length
				const client = await rawClient(running.port, first + get('/work'))
				await until(() => work.begun.length === before + 1)
				await turns()
				expect(counts(running.limiter)).toEqual({ active: 1, queued: 0 })
				work.finish()
				await client.closed
				expect(client.text()).toContain('b')
			}
		}
		await until(() => running.limiter.active === 0)
		expect(work.begun).not.toContain('/work')
		expect(work.highest()).toBeLessThanOrEqual(2)
		await expectNothingLost(running, work)
	})

	test('one packet of 1,000 requests: one at a time, in order, and another client in its turn', async () => {
		const work = workshop()
		let most = 0
		await using running = await piped(3, () => {}, work)
		const packet = Array.from({ length: 1000 }, (_, i) => get(`/${i}`)).join('')
		const client = await rawClient(running.port, packet)
		await until(() => work.begun.length === 1)
		await turns()
		expect(counts(running.limiter)).toEqual({ active: 1, queued: 0 })
		const other = running.visit('/other')
		await until(() => work.begun.length === 2)
		work.finish('/other')
		expect(await other.ended).toBe('clean')
		running.limiter.observe({
			admitted() {
				most = Math.max(most, running.limiter.active + running.limiter.queued)
			},
		})
		work.finishAll()
		await until(() => client.text().split('HTTP/1.1 200').length === 1001)
		expect(client.text().match(/\r\n\/\d+/g)).toEqual(
			Array.from({ length: 1000 }, (_, i) => `\r\n/${i}`),
		)
		expect(most).toBe(1)
		client.socket.destroy()
		await until(() => running.limiter.active === 0)
	})

	test('one packet that is then reset, with the first at work: the rest never runs', async () => {
		const work = workshop()
		await using running = await piped(3, () => {}, work)
		const closed = countClosed(running.server)
		const client = await rawClient(running.port, get('/packet').repeat(100))
		await until(() => work.begun.length === 1)
		client.socket.resetAndDestroy()
		await until(() => closed() === 1)
		work.finish()
		await expectNothingLost(running, work)
		expect(work.begun.filter((path) => path === '/packet').length).toBe(1)
	})

	test('answered by somebody else before its response owns the connection', async () => {
		const work = workshop()
		const behind: ServerResponse[] = []
		const before: Before = (req, res, next) => {
			if (req.url === '/behind') behind.push(res)
			return next()
		}
		await using running = await start(
			{ framework: name, transport: 'HTTP/1' },
			{ before, handler: work.handler, options: { capacity: 1 } },
		)
		const client = await rawClient(running.port, get('/first') + get('/behind') + get('/last'))
		await until(() => work.begun.length === 1 && behind.length === 1)
		behind[0]?.writeHead(504).end('other')
		await turns()
		work.finish()
		await until(() => work.begun.length === 2)
		work.finish()
		await until(() => client.text().includes('/last'))
		expect(work.begun).toEqual(['/first', '/last'])
		expect(client.text()).toContain('HTTP/1.1 504')
		client.socket.destroy()
		await expectNothingLost(running, work)
	})
})

describe.each(frameworks)('$name, WebSockets', ({ name }) => {
	/** Routes upgrades through the app with a response that is never sent, as express-ws does. */
	async function upgrading(options: object): Promise<
		Running & {
			talking: IncomingMessage[]
			open(): Promise<{ socket: Socket; closed: Promise<void> }>
		}
	> {
		const talking: IncomingMessage[] = []
		const plain = workshop()
		plain.finishAll()
		const app = {
			options,
			handler: (req: IncomingMessage, res: ServerResponse): unknown => {
				if (req.headers.upgrade === undefined) return plain.handler(req, res)
				talking.push(req)
				return undefined
			},
		}
		const { listener, limiter } = listenerOf(name, app)
		const { server, port } = await listen(listener)
		server.on('upgrade', (req, socket) => {
			socket.on('error', () => {})
			socket.write(
				'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
			)
			socket.resume()
			socket.on('end', () => socket.end())
			const res = new http.ServerResponse(req)
			res.writeHead = function writeHead(this: ServerResponse, status: number) {
				if (status > 200) {
					;(res as unknown as { _header: string })._header = ''
					socket.end()
				}
				return this
			} as typeof res.writeHead
			listener(req, res)
		})
		const hello = get('/chat', 'Connection: Upgrade\r\nUpgrade: websocket\r\n')
		return {
			port,
			server,
			limiter,
			talking,
			open: () => rawClient(port, hello),
			visit: () => {
				throw new Error('not here')
			},
			async [Symbol.asyncDispose]() {
				server.closeAllConnections()
				server.close()
			},
		}
	}

	test('it holds its permit until it closes, and not longer', async () => {
		const options = { capacity: 2, maxQueue: 0, abandonedTimeout: Number.POSITIVE_INFINITY }
		await using running = await upgrading(options)
		const one = await running.open()
		const two = await running.open()
		await until(() => running.talking.length === 2)
		await turns()
		expect(running.limiter.active).toBe(2)
		const third = await running.open()
		await third.closed
		expect(running.limiter.stats().rejected['queue-full']).toBe(1)
		expect(running.limiter.active).toBe(2)
		one.socket.end()
		await until(() => running.limiter.active === 1)
		two.socket.resetAndDestroy()
		await until(() => running.limiter.active === 0)
		const { admitted, completed, abandoned } = running.limiter.stats()
		expect([admitted, completed + abandoned]).toEqual([2, 2])
		const fourth = await running.open()
		await until(() => running.talking.length === 3)
		fourth.socket.destroy()
		await until(() => running.limiter.active === 0)
	})

	test('it waits its turn, leaves the queue with its client, and lets requests in after it', async () => {
		await using running = await upgrading({
			capacity: 1,
			abandonedTimeout: Number.POSITIVE_INFINITY,
		})
		const one = await running.open()
		await until(() => running.talking.length === 1)
		const two = await running.open()
		await until(() => running.limiter.queued === 1)
		const three = await running.open()
		await until(() => running.limiter.queued === 2)
		const plain = request(running.port)
		await until(() => running.limiter.queued === 3)
		two.socket.destroy()
		await until(() => running.limiter.queued === 2)
		one.socket.destroy()
		await until(() => running.talking.length === 2)
		three.socket.destroy()
		expect((await plain).status).toBe(200)
		await until(() => running.limiter.active === 0)
		expect(running.talking.length).toBe(2)
	})

	test('release() frees its permit early, once', async () => {
		await using running = await upgrading({
			capacity: 1,
			abandonedTimeout: Number.POSITIVE_INFINITY,
		})
		const one = await running.open()
		await until(() => running.talking.length === 1)
		admission(running.talking[0] as IncomingMessage)?.release()
		expect(running.limiter.active).toBe(0)
		const two = await running.open()
		await until(() => running.talking.length === 2)
		one.socket.destroy()
		await one.closed
		await turns()
		expect(running.limiter.active).toBe(1)
		two.socket.destroy()
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats().admitted).toBe(2)
	})
})
