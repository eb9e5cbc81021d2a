import http, {
	type IncomingHttpHeaders,
	type IncomingMessage,
	type ServerResponse,
} from 'node:http'
import http2, { type ClientHttp2Stream, type ServerHttp2Stream } from 'node:http2'
import https from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ConnectionOptions, TlsOptions } from 'node:tls'
import connect from 'connect'
import express from 'express'
import express4 from 'express4'
import Koa from 'koa'
import Koa2 from 'koa2'
import { vi } from 'vitest'
import * as forExpress from '../../adapters/express.js'
import * as forKoa from '../../adapters/koa.js'
import { frameworks, type Handler } from './frameworks.js'

/*
 * Servers of every framework over HTTP/1, HTTPS and HTTP/2, with a middleware of the test's before
 * the limiter; and one kind of client for all of them.
 */

export type Transport = 'HTTP/1' | 'HTTPS' | 'HTTP/2'

export interface Place {
	framework: (typeof frameworks)[0]['name']
	transport: Transport
}

/** Express 4 and 5 put the prototypes of HTTP/1 on their requests, and so cannot serve HTTP/2's. */
export const places: Place[] = frameworks.flatMap(({ name }) => {
	const transports: Transport[] = ['HTTP/1', 'HTTPS']
	if (!name.startsWith('Express')) transports.push('HTTP/2')
	return transports.map((transport) => ({ framework: name, transport }))
})

/** Middleware before the limiter. What it returns is awaited in Koa. */
export type Before = (req: IncomingMessage, res: ServerResponse, next: () => unknown) => unknown

export interface App {
	before?: Before
	/** Ends the response itself, and is done when its promise settles. */
	handler: Handler
	/** The limiter's options that mean the same in every framework. */
	options: object
}

export function listenerOf(
	framework: string,
	{ before = (_req, _res, next) => next(), handler, options }: App,
): { listener: (req: IncomingMessage, res: ServerResponse) => void; limiter: forExpress.Limiter } {
	if (framework === 'Koa 3' || framework === 'Koa 2') {
		const app = framework === 'Koa 3' ? new Koa() : (new Koa2() as unknown as Koa)
		app.silent = true
		const guard = forKoa.limit(options as forKoa.LimitOptions)
		app.use((ctx, next) => {
			// Until the rest has its turn, the response is whose it has been given to.
			ctx.respond = false
			return before(ctx.req, ctx.res, () => {
				ctx.respond = true
				return next()
			}) as Promise<unknown>
		})
		app.use(guard)
		app.use(async (ctx) => {
			ctx.respond = false
			ctx.res.statusCode = 200
			await handler(ctx.req, ctx.res)
		})
		return { listener: app.callback(), limiter: guard.limiter }
	}
	const guard = forExpress.limit(options as forExpress.LimitOptions)
	const { limiter } = guard
	const run = async (
		req: IncomingMessage,
		res: ServerResponse,
		next: (error?: unknown) => void,
	): Promise<void> => {
		try {
			await handler(req, res)
		} catch (error) {
			next(error)
		}
	}
	if (framework === 'node:http') {
		const listener = (req: IncomingMessage, res: ServerResponse): void => {
			const failed = (): void => {
				res.statusCode = 500
				res.end('error')
			}
			before(req, res, () =>
				guard(req, res, (error) => (error === undefined ? run(req, res, failed) : failed())),
			)
		}
		return { listener, limiter }
	}
	const create = { 'Express 5': express, 'Express 4': express4, connect }[
		framework
	] as () => express.Express
	const app = create()
	app.use((req, res, next) => void before(req, res, next))
	app.use(guard)
	app.use(run)
	return { listener: app, limiter }
}

const PSK = Buffer.alloc(32, 7)

/** Keys that are agreed beforehand need no certificate. */
const TLS = { ciphers: 'PSK-AES128-GCM-SHA256', maxVersion: 'TLSv1.2' as const }
const SERVER_TLS: TlsOptions = { ...TLS, pskCallback: () => PSK }
const CLIENT_TLS: ConnectionOptions = {
	...TLS,
	pskCallback: () => ({ psk: PSK, identity: 'client' }),
	checkServerIdentity: () => undefined,
}

/** Keeps up to `maxSockets` connections of HTTP/1 or HTTPS. */
export function agentFor(transport: Transport, maxSockets: number): https.Agent {
	return new (transport === 'HTTPS' ? https : http).Agent({
		keepAlive: true,
		maxSockets,
	}) as https.Agent
}

/** A client's view of one exchange. */
interface Visit {
	status: number | undefined
	headers: IncomingHttpHeaders
	body: string
	/** How it has ended: in good order, or not. */
	end: 'clean' | 'cut' | undefined
	/** Resolves with its end. */
	ended: Promise<'clean' | 'cut'>
	stream: Duplex | http.ClientRequest
	/** Reads nothing until it is resumed. */
	pause(): void
	/** Reads at least so many bytes of the body, then nothing again. */
	read(bytes: number): Promise<void>
	resume(): void
	leave(): void
}

interface VisitOptions {
	method?: string
	/** The body, or that one follows, by `stream`. */
	body?: string | 'to follow'
	agent?: https.Agent
	/** Begin without reading. */
	paused?: boolean
}

export interface Running {
	port: number
	limiter: forExpress.Limiter
	server: Server
	/** A request, on a connection of its own in HTTP/1. */
	visit(path: string, options?: VisitOptions): Visit
	[Symbol.asyncDispose](): Promise<void>
}

export async function start({ framework, transport }: Place, app: App): Promise<Running> {
	const { listener, limiter } = listenerOf(framework, app)
	const h2 = transport === 'HTTP/2'
	const server: Server = h2
		? http2.createServer(listener as unknown as Parameters<typeof http2.createServer>[1])
		: transport === 'HTTPS'
			? https.createServer(SERVER_TLS, listener)
			: http.createServer(listener)
	const sockets = new Set<Duplex>()
	server.on('connection', (socket: Duplex) => {
		sockets.add(socket)
		socket.once('close', () => sockets.delete(socket))
	})
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const { port } = server.address() as AddressInfo
	const session = h2 ? http2.connect(`http://127.0.0.1:${port}`) : undefined
	session?.on('error', () => {})
	return {
		port,
		limiter,
		server,
		visit(path, options = {}) {
			if (session === undefined) return visitHttp1(port, transport, path, options)
			return visitHttp2(session, path, options)
		},
		async [Symbol.asyncDispose]() {
			session?.destroy()
			for (const socket of sockets) socket.destroy()
			await new Promise((resolve) => server.close(resolve))
		},
	}
}

function visitOf(
	stream: Visit['stream'],
	leave: () => void,
): { visit: Visit; over(end: 'clean' | 'cut'): void } {
	let resolve: (end: 'clean' | 'cut') => void = () => {}
	let incoming: IncomingMessage | ClientHttp2Stream | undefined
	let mayRead = Number.POSITIVE_INFINITY
	let wake = (): void => {}
	const visit: Visit & { take(from: IncomingMessage | ClientHttp2Stream): void } = {
		status: undefined,
		headers: {},
		body: '',
		end: undefined,
		ended: new Promise((done) => {
			resolve = done
		}),
		stream,
		take(from) {
			incoming = from
			if (mayRead <= 0) from.pause()
			from.on('data', (chunk: Buffer) => {
				visit.body += chunk.toString('latin1')
				mayRead -= chunk.length
				if (mayRead > 0) return
				from.pause()
				wake()
			})
			if (mayRead <= 0) from.pause()
		},
		pause() {
			mayRead = 0
			incoming?.pause()
		},
		async read(bytes) {
			mayRead = bytes
			const enough = new Promise<void>((done) => {
				wake = done
			})
			incoming?.resume()
			await Promise.race([enough, visit.ended])
		},
		resume() {
			mayRead = Number.POSITIVE_INFINITY
			incoming?.resume()
		},
		leave,
	}
	return {
		visit,
		over(end) {
			visit.end ??= end
			resolve(visit.end)
		},
	}
}

function visitHttp1(
	port: number,
	transport: Transport,
	path: string,
	options: VisitOptions,
): Visit {
	const { method = 'GET', body, agent = false, paused = false } = options
	const request = (transport === 'HTTPS' ? https : http).request({
		host: '127.0.0.1',
		port,
		method,
		path,
		agent,
		...(transport === 'HTTPS' ? CLIENT_TLS : {}),
	})
	const { visit, over } = visitOf(request, () => request.destroy())
	if (paused) visit.pause()
	request.on('response', (res) => {
		visit.status = res.statusCode
		visit.headers = res.headers
		res.on('end', () => over(res.complete ? 'clean' : 'cut'))
		res.on('error', () => over('cut'))
		res.on('close', () => over('cut'))
		;(visit as Visit & { take(from: IncomingMessage): void }).take(res)
	})
	request.on('error', () => over('cut'))
	if (body === 'to follow') request.flushHeaders()
	else request.end(body)
	return visit
}

function visitHttp2(session: http2.ClientHttp2Session, path: string, options: VisitOptions): Visit {
	const { method = 'GET', body, paused = false } = options
	const stream = session.request(
		{ ':path': path, ':method': method },
		{ endStream: body === undefined },
	)
	const { visit, over } = visitOf(stream, () => stream.close(http2.constants.NGHTTP2_CANCEL))
	if (paused) visit.pause()
	let ended = false
	stream.on('response', ({ ':status': status, ...headers }) => {
		visit.status = status
		visit.headers = headers as IncomingHttpHeaders
		;(visit as Visit & { take(from: ClientHttp2Stream): void }).take(stream)
	})
	stream.on('error', () => over('cut'))
	stream.on('aborted', () => over('cut'))
	stream.on('end', () => {
		ended = true
		if (!stream.writableEnded) stream.end()
	})
	stream.on('close', () => over(ended && stream.rstCode === 0 ? 'clean' : 'cut'))
	if (body !== undefined && body !== 'to follow') stream.end(body)
	return visit
}

/** The carrier of a request, at the server: its socket in HTTP/1, its stream in HTTP/2. */
export function carrierOf(req: IncomingMessage): IncomingMessage['socket'] | ServerHttp2Stream {
	return (req as { stream?: ServerHttp2Stream }).stream ?? req.socket
}

/** Resolves when it is so, by the real clock also where a test has faked it. */
export async function eventually(
	what: () => boolean,
	message = 'it did not come to be',
): Promise<void> {
	const begun = process.hrtime.bigint()
	while (!what()) {
		if (process.hrtime.bigint() - begun > 10_000_000_000n) throw new Error(message)
		await new Promise((resolve) => setImmediate(resolve))
	}
}

const setTimeoutReal = globalThis.setTimeout
export const sleep = (ms: number): Promise<void> =>
	new Promise((resolve) => setTimeoutReal(resolve, ms))

/** What must never happen. To be called before each test; what it returns, after it. */
export function watchAccidents(): () => unknown[] {
	vi.spyOn(console, 'error').mockImplementation(() => {})
	const accidents: unknown[] = []
	const see = (what: unknown): void => {
		// Node says once that HTTP/2 has no status messages, which finalhandler sets.
		if ((what as Error | undefined)?.name !== 'UnsupportedWarning') accidents.push(what)
	}
	const events = ['unhandledRejection', 'uncaughtException', 'warning']
	for (const event of events) process.on(event, see)
	return () => {
		for (const event of events) process.off(event, see)
		vi.restoreAllMocks()
		return accidents
	}
}
