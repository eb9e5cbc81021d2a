import type { IncomingMessage, ServerResponse } from 'node:http'
import { brotliDecompressSync, gzipSync } from 'node:zlib'
import { checkBoolean, checkMaxPages, checkOptions, checkPath } from '../../src/checks.js'
import { releaseAll } from '../../src/http/exchange.js'
import type { SharedLimiter } from '../../src/http/setup.js'
import { claimNames } from '../limiters.js'
import { assets } from './assets.js'
import { createStream } from './stream.js'

export interface DashboardOptions {
	/** The limiters to show, each with a name of its own. */
	limiters: readonly SharedLimiter[]
	/**
	 * The path of the page, such as `/limits`. Needed in Koa and `node:http`. In Express,
	 * `app.use('/limits', dashboard(…))` removes it from the URL before the page sees it. Default:
	 * `'/'`.
	 */
	path?: string | undefined
	/**
	 * Show the keys that are busiest, that were rejected most and that waited longest. They may be
	 * personal data. Default: `false`.
	 */
	keys?: boolean | undefined
	/** Pages that may be open at once: an integer from 1, or `Infinity`. Default: `50`. */
	maxPages?: number | undefined
}

const OPTIONS = ['limiters', 'path', 'keys', 'maxPages']

/** A dashboard that can be closed. */
interface Closable {
	/**
	 * Ends all open pages, for which `server.close()` would wait, and stops taking samples. Pages
	 * also end when all limiters are closed.
	 */
	close(): void
}

export interface Dashboard extends Closable {
	(req: IncomingMessage, res: ServerResponse, next?: (error?: unknown) => void): void
}

/** The part of the context of Koa 3 or 2 that is used. */
export interface ContextLike {
	readonly req: IncomingMessage
	readonly res: ServerResponse
	readonly originalUrl: string
	respond?: boolean | undefined
}

export interface KoaDashboard extends Closable {
	(ctx: ContextLike, next: () => Promise<unknown>): Promise<void>
}

/**
 * A page that shows limiters now and in the last 15 minutes, for Express 5 and 4, connect and
 * `node:http`. It changes nothing. Put it before the limiters, so that they don't count it, and
 * behind your authentication:
 *
 * ```ts
 * app.use('/limits', requireAdmin, dashboard({ limiters: [guard.limiter] }))
 * app.use(guard)
 * ```
 *
 * From now on a sample of each limiter is taken once a second. The timer does not keep the process
 * alive.
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or
 * unknown.
 * @throws Error - two limiters have the same name.
 */
export function dashboard(options: DashboardOptions): Dashboard {
	const { handle, close } = createPage(options)

	function inflightDashboard(
		req: IncomingMessage & { originalUrl?: string },
		res: ServerResponse,
		next?: () => void,
	): void {
		if (handle(req, res, req.originalUrl ?? req.url)) return
		if (next !== undefined) next()
		else answer(res, 404, 'Not found\n')
	}
	return Object.assign(inflightDashboard, { close })
}

/** The same page for Koa 3 and 2: `app.use(dashboardKoa({ limiters, path: '/limits' }))`. */
export function dashboardKoa(options: DashboardOptions): KoaDashboard {
	const { handle, close } = createPage(options)

	async function inflightDashboard(ctx: ContextLike, next: () => Promise<unknown>): Promise<void> {
		// Koa begins with a 404, which `writeHead` replaces.
		if (handle(ctx.req, ctx.res, ctx.originalUrl)) ctx.respond = false
		else await next()
	}
	return Object.assign(inflightDashboard, { close })
}

/**
 * The browser may only load files of this page, and no other page can frame it. uPlot sets its
 * styles by script, which this allows.
 */
const SECURITY = {
	'Content-Security-Policy':
		"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
	'Cross-Origin-Resource-Policy': 'same-origin',
	'Cross-Origin-Opener-Policy': 'same-origin',
	'Referrer-Policy': 'no-referrer',
	'X-Content-Type-Options': 'nosniff',
}

type Handle = (
	req: IncomingMessage,
	res: ServerResponse,
	originalUrl: string | undefined,
) => boolean

function createPage(options: DashboardOptions): { handle: Handle; close(): void } {
	checkOptions(options, OPTIONS)
	const { limiters, path: given = '/', keys = false, maxPages = 50 } = options
	claimNames({}, limiters)
	const path = checkPath(given).replace(/\/$/, '')
	checkBoolean('keys', keys)
	checkMaxPages(maxPages)

	const stream = createStream(limiters, keys, maxPages)

	function handle(req: IncomingMessage, res: ServerResponse, originalUrl = '/'): boolean {
		const url = req.url ?? '/'
		const pathname = url.split('?', 1)[0] as string
		if (pathname !== path && !pathname.startsWith(`${path}/`)) return false
		const name = pathname.slice(path.length + 1)
		const asset = Object.hasOwn(assets, name) ? assets[name] : undefined
		if (name !== '' && name !== 'events' && asset === undefined) return false

		warnIfLimited(req)
		if (req.method !== 'GET' && req.method !== 'HEAD') {
			res.setHeader('Allow', 'GET, HEAD')
			answer(res, 405, 'Only GET and HEAD are allowed\n')
		} else if (name === 'events') {
			if (req.method === 'HEAD') answer(res, 200, '')
			// A pipelined request, which no browser sends. A response without a socket may end without
			// emitting `close`.
			else if (res.socket === null) answer(res, 400, 'No stream behind another response\n')
			else stream.open(res, SECURITY)
		} else if (name === '') {
			const from = originalUrl.split('?', 1)[0] as string
			// The page's links are relative to it, so its own path must end in a slash.
			if (from.endsWith('/')) send(req, res, assets['index.html'] as Asset, 'no-store')
			else {
				res.setHeader('Location', `./${from.slice(from.lastIndexOf('/') + 1)}/`)
				answer(res, 307, '')
			}
		} else {
			const { hash } = asset as Asset
			const forEver = url.endsWith(`?v=${hash}`)
			send(req, res, asset as Asset, forEver ? 'private, max-age=31536000, immutable' : 'no-cache')
		}
		return true
	}

	return { handle, close: stream.close }
}

type Asset = (typeof assets)[string]

/** Browsers take Brotli only over TLS. */
const unpacked = new Map<Asset, { plain: Buffer; gzip: Buffer }>()

function unpack(asset: Asset): { plain: Buffer; gzip: Buffer } {
	const known = unpacked.get(asset)
	if (known !== undefined) return known
	const plain = brotliDecompressSync(Buffer.from(asset.brotli, 'base64'))
	const both = { plain, gzip: gzipSync(plain) }
	unpacked.set(asset, both)
	return both
}

function send(req: IncomingMessage, res: ServerResponse, asset: Asset, cacheControl: string): void {
	const { plain, gzip } = unpack(asset)
	const takesGzip = /\bgzip\b(?!;q=0)/.test(String(req.headers['accept-encoding'] ?? ''))
	const body = takesGzip ? gzip : plain
	res.writeHead(200, {
		...SECURITY,
		'Content-Type': asset.type,
		'Content-Length': body.length,
		...(takesGzip && { 'Content-Encoding': 'gzip' }),
		Vary: 'Accept-Encoding',
		'Cache-Control': cacheControl,
	})
	res.end(body)
}

function answer(res: ServerResponse, status: number, text: string): void {
	res.writeHead(status, {
		...SECURITY,
		'Content-Type': 'text/plain; charset=utf-8',
		'Cache-Control': 'no-store',
	})
	res.end(text)
}

let warned = false

/**
 * A limiter before the page can reject its requests when the page is needed most. A request for the
 * page gives back the permits that it holds.
 */
function warnIfLimited(req: IncomingMessage): void {
	const limiter = releaseAll(req)
	if (limiter === undefined || warned) return
	warned = true
	process.emitWarning(
		`The dashboard is behind limiter ${JSON.stringify(limiter.name)}, which counts its requests, and queues or rejects them: put the dashboard before it`,
		{ type: 'InflightLimitWarning', code: 'INFLIGHT_DASHBOARD_LIMITED' },
	)
}
