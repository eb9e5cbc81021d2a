import { createReadStream, mkdtempSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import express from 'express'
import Koa from 'koa'
import * as forExpress from '../../adapters/express.js'
import * as forKoa from '../../adapters/koa.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import type { Action, Program, Send } from './exchange-model.js'

/*
 * Apps for the test of exchanges: a middleware that can hold a request back and answer it, the
 * limiter, and a handler that does what its program says. They keep to the rule of sane apps:
 * nobody answers what has been answered.
 */

/** What ends every body, so that half of one is known as such. */
export const END = '</>'

const FILE = join(mkdtempSync(join(tmpdir(), 'exchanges-')), 'file.txt')
writeFileSync(FILE, `a file${END}`)

/** One request, and what has become of it. */
export interface Exchange {
	readonly id: string
	readonly send: Send
	readonly limited: boolean
	req: IncomingMessage | undefined
	res: ServerResponse | undefined
	/** The socket in HTTP/1, the stream in HTTP/2. */
	carrier: Carrier | undefined
	stream: ServerHttp2Stream | undefined
	/** A gate before the limiter, and those in the handler. */
	entry: Gate
	gate: Gate
	entered: boolean
	begun: boolean
	/** The handler has done its last thing. */
	done: boolean
	/** Somebody has begun, or decided, to answer. */
	answeredBy: 'handler' | 'other' | undefined
	finished: boolean
	released: boolean
	/** By the app. */
	ended: boolean
	piped: boolean
	destroyed: boolean
	threw: boolean
	/** Its handler leaves the response open for good. */
	hangs: boolean
	/** The app has destroyed its response: the connection of HTTP/1 ends when its turn has come. */
	cut: boolean
	/** The app has destroyed its connection, or its stream. */
	cutSocket: boolean
	winRace: () => void
	race: Promise<void>
	/** Keeps the framework from answering as well. */
	takeOver: () => void
}

type Carrier = NonNullable<IncomingMessage['socket']> | ServerHttp2Stream

/** Stops the requests that come, until it is opened for one, or for good. */
export class Gate {
	#open: boolean
	readonly #waiting: (() => void)[] = []

	constructor(open: boolean) {
		this.#open = open
	}

	pass(): Promise<void> | undefined {
		return this.#open ? undefined : new Promise((resolve) => this.#waiting.push(resolve))
	}

	letOne(): void {
		this.#waiting.shift()?.()
	}

	open(): void {
		this.#open = true
		for (const go of this.#waiting.splice(0)) go()
	}
}

/** What an app tells of its exchanges. */
export interface Watch {
	arrives(req: IncomingMessage, res: ServerResponse): Exchange
	/** It is about to meet the limiter. */
	enters(exchange: Exchange): void
	begins(exchange: Exchange): void
	/** A function of the options was asked about a request. */
	asked(name: string, req: IncomingMessage): void
}

/** How a handler answers by means of its framework. */
interface Means {
	koa: boolean
	/** From now on, the handler does it by the plain response. */
	raw(): void
	send(body: string): void
	sendFile(): void
}

export function appOf(
	program: Program,
	watch: Watch,
): { listener: RequestListener; limiter: forExpress.Limiter } {
	const unlimited = (req: IncomingMessage): boolean => req.url?.startsWith('/open/') === true
	const asking: LimiterOptions<IncomingMessage | { req: IncomingMessage }> = {
		capacity: program.capacity,
		maxQueue: program.maxQueue,
		maxWait: program.maxWait,
		abandonedTimeout: program.abandonedTimeout,
	}
	const plain = (of: IncomingMessage | { req: IncomingMessage }): IncomingMessage =>
		'req' in of && of.req !== undefined ? of.req : (of as IncomingMessage)
	if (program.unlimitedBy !== 'route') {
		asking.weight = (of) => {
			watch.asked('weight', plain(of))
			return 1
		}
	}
	if (program.unlimitedBy === 'skip') {
		asking.skip = (of) => {
			watch.asked('skip', plain(of))
			return unlimited(plain(of))
		}
	}
	if (program.unlimitedBy === 'key') {
		asking.key = (of) => {
			watch.asked('key', plain(of))
			return unlimited(plain(of)) ? undefined : 'key'
		}
	}
	const byRoute = program.unlimitedBy === 'route'
	if (program.framework === 'Koa 3') return koaApp(asking, byRoute ? unlimited : () => false, watch)
	const middleware = forExpress.limit(asking as forExpress.LimitOptions)
	const { limiter } = middleware
	const guard: typeof middleware = Object.assign(
		(req: IncomingMessage, res: ServerResponse, next: forExpress.Next) => {
			if (byRoute && unlimited(req)) return next()
			watch.enters(exchangeOf(req))
			middleware(req, res, next)
		},
		{ limiter },
	)
	if (program.framework === 'Express 5') {
		const app = express()
		app.set('env', 'test')
		app.use(async (req, res, next) => {
			const held = watch.arrives(req, res).entry.pass()
			if (held !== undefined) await held
			next()
		})
		app.use(guard)
		app.use((req, res) =>
			handle(exchangeOf(req), watch, {
				koa: false,
				raw() {},
				send: (body) => res.send(body),
				sendFile: () => res.sendFile(FILE),
			}),
		)
		return { listener: app, limiter }
	}
	const listener: RequestListener = async (req, res) => {
		const exchange = watch.arrives(req, res)
		const held = exchange.entry.pass()
		if (held !== undefined) await held
		guard(req, res, async (error) => {
			try {
				if (error !== undefined) throw error
				await handle(exchange, watch, {
					koa: false,
					raw() {},
					send: (body) => res.end(body),
					sendFile: () => createReadStream(FILE).pipe(res),
				})
			} catch {
				if (res.headersSent) return res.destroy()
				res.statusCode = 500
				res.end(END)
			}
		})
	}
	return { listener, limiter }
}

function koaApp(
	options: LimiterOptions<never>,
	unlimited: (req: IncomingMessage) => boolean,
	watch: Watch,
): { listener: RequestListener; limiter: forExpress.Limiter } {
	const app = new Koa()
	app.silent = true
	const guard = forKoa.limit(options)
	app.use(async (ctx, next) => {
		const exchange = watch.arrives(ctx.req, ctx.res)
		exchange.takeOver = () => {
			ctx.respond = false
		}
		const rest = async (): Promise<void> => {
			const held = exchange.entry.pass()
			if (held !== undefined) await held
			await next()
		}
		let won = false
		const race = exchange.race.then(() => {
			won = ctx.respond !== false && !ctx.res.headersSent
		})
		await Promise.race([rest(), race])
		if (!won) return
		ctx.status = 504
		ctx.set('X-Id', exchange.id)
		ctx.body = `other${END}`
	})
	app.use((ctx, next) => {
		if (unlimited(ctx.req)) return next()
		watch.enters(exchangeOf(ctx.req))
		return guard(ctx, next)
	})
	app.use((ctx) => {
		ctx.status = 200
		return handle(exchangeOf(ctx.req), watch, {
			koa: true,
			raw() {
				ctx.respond = false
			},
			send(body) {
				ctx.body = body
			},
			sendFile() {
				ctx.body = createReadStream(FILE)
			},
		})
	})
	return { listener: app.callback(), limiter: guard.limiter }
}

const EXCHANGE = Symbol('exchange')

export function exchangeOf(req: IncomingMessage & { [EXCHANGE]?: Exchange }): Exchange {
	return req[EXCHANGE] as Exchange
}

export function setExchange(req: IncomingMessage, exchange: Exchange): void {
	;(req as { [EXCHANGE]?: Exchange })[EXCHANGE] = exchange
}

/** Other middleware answers, unless somebody has. */
export function answerByOther(
	exchange: Exchange,
	how: 'end' | 'stream' | 'pipe' | 'timeout' | 'race',
	koa: boolean,
): void {
	const { res, id } = exchange
	if (res === undefined) return
	if (how === 'timeout') {
		res.setTimeout(1, () => answerByOther(exchange, 'end', koa))
		return
	}
	if (exchange.answeredBy !== undefined || exchange.threw || res.headersSent || res.destroyed)
		return
	exchange.answeredBy = 'other'
	if (how === 'race' && koa) {
		exchange.winRace()
		return
	}
	exchange.takeOver()
	res.writeHead(504, { 'X-Id': id })
	if (how === 'stream') {
		res.write('other')
		// In one turn: a response that has only begun may be that of a middleware which keeps the
		// connection alive meanwhile.
		res.end(END)
	} else if (how === 'pipe') {
		exchange.piped = true
		Readable.from(['other', END]).pipe(res)
	} else {
		res.end(`other${END}`)
	}
	exchange.ended = how !== 'pipe'
}

async function handle(exchange: Exchange, watch: Watch, means: Means): Promise<void> {
	watch.begins(exchange)
	try {
		for (const action of exchange.send.handler) await perform(action, exchange, means)
		await perform('end', exchange, means)
	} finally {
		exchange.done = true
	}
}

class HandlerError extends Error {}

function perform(action: Action, exchange: Exchange, means: Means): Promise<unknown> | undefined {
	const req = exchange.req as IncomingMessage
	const res = exchange.res as ServerResponse
	if (action === 'wait') return exchange.gate.pass()
	if (action === 'read') return read(req, exchange)
	if (action === 'release') {
		release(exchange)
		return undefined
	}
	if (action === 'destroy response' || action === 'destroy socket') {
		destroy(exchange, action === 'destroy socket' ? 'socket' : 'response')
		means.raw()
		return undefined
	}
	// The rest is to answer: not what somebody else has answered, and not twice.
	if (exchange.answeredBy === 'other' || exchange.ended || exchange.piped || exchange.hangs)
		return undefined
	if (action === 'throw') {
		exchange.threw = true
		if (res.headersSent) {
			exchange.cut = true
			// Koa leaves such a response open.
			if (means.koa) exchange.hangs = true
		}
		throw new HandlerError('thrown by the handler')
	}
	exchange.answeredBy = 'handler'
	if (!res.headersSent) res.setHeader('X-Id', exchange.id)
	if (action === 'return') {
		means.raw()
		exchange.hangs = true
		return undefined
	}
	if (action === 'write') {
		means.raw()
		// Node destroys a response of HTTP/2 that is written to after its stream has closed.
		if (exchange.stream?.destroyed) exchange.cutSocket = true
		res.write('some')
		return undefined
	}
	const { stream } = exchange
	if (action === 'pipe') {
		exchange.piped = true
		means.raw()
		Readable.from(['pi', `ped${END}`]).pipe(res)
	} else if (action === 'pipeline') {
		exchange.piped = true
		means.raw()
		pipeline(Readable.from(['pipe', `lined${END}`]), res, () => {})
	} else if (action === 'file by framework' && !res.headersSent) {
		exchange.piped = true
		means.sendFile()
	} else if (
		action === 'answer by stream' &&
		stream !== undefined &&
		!res.headersSent &&
		!stream.destroyed
	) {
		exchange.ended = true
		means.raw()
		stream.respond({ ':status': 200, 'X-Id': exchange.id })
		stream.end(`by stream${END}`)
	} else if (action === 'answer by framework' && !res.headersSent) {
		exchange.ended = true
		means.send(`sent${END}`)
	} else if (action === 'end empty' && !res.headersSent) {
		exchange.ended = true
		means.raw()
		res.statusCode = 204
		res.end()
	} else {
		exchange.ended = true
		means.raw()
		res.end(`ended${END}`)
	}
	return undefined
}

export function destroy(exchange: Exchange, what: 'response' | 'socket'): void {
	const { req, res, stream } = exchange
	exchange.cut = true
	if (what === 'response') {
		exchange.destroyed = true
		res?.destroy()
	} else {
		exchange.cutSocket = true
		if (stream !== undefined) stream.destroy()
		else req?.socket.destroy()
	}
}

export function release(exchange: Exchange): void {
	const found = forExpress.admission(exchange.req as IncomingMessage)
	if (found === undefined) return
	exchange.released = true
	found.release()
}

/** Reads the body to its end, or to that of the connection. */
function read(req: IncomingMessage, { carrier }: Exchange): Promise<void> {
	return new Promise((resolve) => {
		if (carrier?.destroyed || req.readableEnded || req.destroyed) return resolve()
		const over = (): void => {
			for (const event of ['end', 'close', 'error']) req.removeListener(event, over)
			carrier?.removeListener('close', over)
			resolve()
		}
		for (const event of ['end', 'close', 'error']) req.on(event, over)
		carrier?.on('close', over)
		req.resume()
	})
}
