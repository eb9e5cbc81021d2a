import type { IncomingMessage, ServerResponse } from 'node:http'
import { checkBoolean, checkMaxPages, checkOptions, checkPath } from '../../src/checks.js'
import { releaseAll } from '../../src/http/exchange.js'
import type { SharedLimiter } from '../../src/http/setup.js'
import { claimNames } from '../limiters.js'
import { assets } from './assets.js'
import { FIELDS, INTERVAL, Samples } from './samples.js'

export interface DashboardOptions {
	/** The limiters to show, each with a name of its own. */
	limiters: readonly SharedLimiter[]
	/**
	 * Where the page is, if nothing before it takes that part of the path away: `/limits` in Koa and `node:http`. Express
	 * takes it away: `app.use('/limits', dashboard(…))`. Default: `'/'`.
	 */
	path?: string | undefined
	/** Show the keys that waited longest. They may be names of persons. Default: `false`. */
	keys?: boolean | undefined
	/** Pages that may be open at once: an integer from 1. Default: `50`. */
	maxPages?: number | undefined
}

const OPTIONS = ['limiters', 'path', 'keys', 'maxPages']

/** What ends a dashboard. */
interface Closable {
	/** Ends all open pages and all looking at the limiters: they would keep `server.close()` from being done. */
	close(): void
}

export interface Dashboard extends Closable {
	(req: IncomingMessage, res: ServerResponse, next?: (error?: unknown) => void): void
}

/** What is needed of the context of Koa 3 or 2. */
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
 * A page that shows limiters as they are now and were in the last 15 minutes, for Express 5 and 4, connect and
 * `node:http`. It only reads. Put it before the limiters, so that they don't count it, and behind your authentication:
 *
 * ```ts
 * app.use('/limits', requireAdmin, dashboard({ limiters: [guard.limiter] }))
 * app.use(guard)
 * ```
 *
 * From now on each limiter is looked at once a second. The timer does not keep the process alive.
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or unknown.
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

/** Nothing but what we serve runs or is loaded, and nobody may frame it. uPlot sets its styles by script, not in markup. */
const SECURITY = {
	'Content-Security-Policy':
		"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
	'Cross-Origin-Resource-Policy': 'same-origin',
	'Cross-Origin-Opener-Policy': 'same-origin',
	'Referrer-Policy': 'no-referrer',
	'X-Content-Type-Options': 'nosniff',
}

/** For how many messages in a row a page may not have taken what it was sent before it is cut off: it then comes again. */
const PATIENCE = 10

/** A page that is open: its stream of events, and for how many messages it has been behind. */
interface Reader {
	res: ServerResponse
	behind: number
}

type Handle = (req: IncomingMessage, res: ServerResponse, originalUrl: string | undefined) => boolean

function createPage(options: DashboardOptions): { handle: Handle; close(): void } {
	checkOptions(options, OPTIONS)
	const { limiters, path: given = '/', keys = false, maxPages = 50 } = options
	claimNames({}, limiters)
	const path = checkPath(given).replace(/\/$/, '')
	checkBoolean('keys', keys)
	checkMaxPages(maxPages)

	const samples = limiters.map((limiter) => new Samples(limiter, keys))
	const readers = new Set<Reader>()
	let closed = false
	let latest = takeSamples()
	// One timer for all pages. It runs when none is open too: who comes to see what went wrong comes after it did.
	const timer = setInterval(() => {
		latest = takeSamples()
		const message = Buffer.from(`data: ${latest}\n\n`)
		for (const reader of readers) {
			if (!reader.res.write(message)) reader.behind++
			if (reader.behind > PATIENCE) {
				readers.delete(reader)
				reader.res.destroy()
			}
		}
	}, INTERVAL).unref()

	/** One more sample of each limiter, as JSON. */
	function takeSamples(): string {
		const now = Date.now()
		return `{"limiters":[${samples.map((each) => each.take(now)).join()}]}`
	}

	/** All that is known, for a page that begins. */
	function history(): string {
		const limiters = samples.map(
			(each) => `{"name":${JSON.stringify(each.limiter.name)},"rows":${each.rows}}`,
		)
		return `{"fields":${JSON.stringify(FIELDS)},"keys":${keys},"limiters":[${limiters.join()}]}`
	}

	function openStream(res: ServerResponse): void {
		// A browser never asks so, and of a response without a socket we would not see the end.
		if (res.socket === null) {
			answer(res, 400, 'No stream behind another response\n')
			return
		}
		const headers = { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store, no-transform' }
		res.writeHead(200, { ...SECURITY, ...headers, 'X-Accel-Buffering': 'no' })
		if (closed || readers.size >= maxPages) {
			// What an `EventSource` is told with another status, it does not tell its page.
			const reason = closed ? 'The page is closed.' : `${maxPages} pages are open, which is the most.`
			res.end(`retry: 10000\nevent: refused\ndata: ${JSON.stringify({ reason })}\n\n`)
			return
		}
		const reader = { res, behind: 0 }
		readers.add(reader)
		res.on('close', () => readers.delete(reader))
		res.on('drain', () => {
			reader.behind = 0
		})
		// Its client can leave while we write.
		res.on('error', () => readers.delete(reader))
		res.write(`retry: 2000\nevent: history\ndata: ${history()}\n\ndata: ${latest}\n\n`)
	}

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
			answer(res, 405, 'Only to be read\n')
		} else if (name === 'events') {
			if (req.method === 'HEAD') answer(res, 200, '')
			else openStream(res)
		} else if (name === '') {
			const from = originalUrl.split('?', 1)[0] as string
			// What the page names is beside it, so its own path must end in a slash.
			if (from.endsWith('/')) send(res, assets['index.html'] as Asset, 'no-store')
			else {
				res.setHeader('Location', `./${from.slice(from.lastIndexOf('/') + 1)}/`)
				answer(res, 307, '')
			}
		} else {
			const { hash } = asset as Asset
			const forEver = url.endsWith(`?v=${hash}`)
			send(res, asset as Asset, forEver ? 'private, max-age=31536000, immutable' : 'no-cache')
		}
		return true
	}

	function close(): void {
		closed = true
		clearInterval(timer)
		for (const each of samples) each.close()
		for (const { res } of readers) res.end()
	}
	return { handle, close }
}

type Asset = (typeof assets)[string]

function send(res: ServerResponse, { type, body }: Asset, cacheControl: string): void {
	const length = String(Buffer.byteLength(body))
	res.writeHead(200, {
		...SECURITY,
		'Content-Type': type,
		'Content-Length': length,
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

/** A limiter before the page counts it, and keeps it out just when one wants to look. At least it holds no permit. */
function warnIfLimited(req: IncomingMessage): void {
	const limiter = releaseAll(req)
	if (limiter === undefined || warned) return
	warned = true
	process.emitWarning(
		`The dashboard is behind limiter ${JSON.stringify(limiter.name)}, which counts its requests, and lets them wait or refuses them: put the dashboard before it`,
		{ type: 'InflightLimitWarning', code: 'INFLIGHT_DASHBOARD_LIMITED' },
	)
}
