import http, {
	type IncomingMessage,
	type RequestListener,
	type Server,
	type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import connect from 'connect'
import express from 'express'
import express4 from 'express4'
import Koa from 'koa'
import Koa2 from 'koa2'
import * as forExpress from '../../adapters/express.js'
import * as forKoa from '../../adapters/koa.js'
import type { LimiterOptions } from '../../src/limiter/options.js'

/**
 * What stands behind the limiter: ends the response itself, and is done when its promise settles.
 */
export type Handler = (req: IncomingMessage, res: ServerResponse) => unknown

/** The limiter's options that mean the same in every framework. */
export type Options = number | forExpress.Limiter | LimiterOptions<never>

/** An app of one framework: `limit(options)`, then `handler`. */
export interface Framework {
	name: string
	kind: 'express' | 'koa'
	/** The `node:http` listener of an app with one limiter before one handler. */
	app(
		options: Options,
		handler: Handler,
	): { listener: RequestListener; limiter: forExpress.Limiter }
}

function expressLike(name: string, create: () => typeof express.prototype): Framework {
	return {
		name,
		kind: 'express',
		app(options, handler) {
			const app = create()
			const middleware = forExpress.limit(options as number)
			app.use(middleware)
			app.use((req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => {
				// Express 4 and connect know nothing of promises: their users write this themselves.
				Promise.resolve()
					.then(() => handler(req, res))
					.catch(next)
			})
			return { listener: app, limiter: middleware.limiter }
		},
	}
}

function koaLike(name: string, Application: typeof Koa): Framework {
	return {
		name,
		kind: 'koa',
		app(options, handler) {
			const app = new Application()
			app.silent = true
			const middleware = forKoa.limit(options as number)
			app.use(middleware)
			app.use(async (ctx) => {
				// What Koa begins with is a 404.
				ctx.respond = false
				ctx.res.statusCode = 200
				try {
					await handler(ctx.req, ctx.res)
				} catch (error) {
					ctx.respond = true
					throw error
				}
			})
			return { listener: app.callback(), limiter: middleware.limiter }
		},
	}
}

const nodeHttp: Framework = {
	name: 'node:http',
	kind: 'express',
	app(options, handler) {
		const middleware = forExpress.limit(options as number)
		const listener: RequestListener = (req, res) => {
			middleware(req, res, async (error) => {
				try {
					if (error !== undefined) throw error
					await handler(req, res)
				} catch {
					res.statusCode = 500
					res.end('error')
				}
			})
		}
		return { listener, limiter: middleware.limiter }
	},
}

export const frameworks: Framework[] = [
	expressLike('Express 5', express),
	expressLike('Express 4', express4),
	expressLike('connect', connect),
	nodeHttp,
	koaLike('Koa 3', Koa),
	koaLike('Koa 2', Koa2 as unknown as typeof Koa),
]

/** Starts a server on a free port of loopback. */
export async function listen(listener: RequestListener): Promise<{ server: Server; port: number }> {
	const server = http.createServer(listener)
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	return { server, port: (server.address() as AddressInfo).port }
}
