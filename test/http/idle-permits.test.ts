import type { ServerResponse } from 'node:http'
import express from 'express'
import Koa from 'koa'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { admission, limit } from '../../adapters/express.js'
import { limit as limitKoa } from '../../adapters/koa.js'
import { request, until } from '../support/clients.js'
import { listen } from '../support/frameworks.js'

/*
 * Two limits on the way of one request. Each test lets requests come in order, lets one wait for a
 * second, and looks for the warning.
 */

beforeEach(() => {
	vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
	vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})
afterEach(() => {
	vi.useRealTimers()
	vi.restoreAllMocks()
})

const key = (req: { headers: Record<string, unknown> }) => String(req.headers.user)
const warnings = () => vi.mocked(process.emitWarning).mock.calls

/** An app, whose requests are at work until `finish` is called. */
async function serve(build: (app: express.Express) => void) {
	const app = express()
	const working: ServerResponse[] = []
	build(app)
	app.use((_req, res) => {
		working.push(res)
	})
	const { server, port } = await listen(app)
	const answers: Promise<unknown>[] = []
	return {
		working,
		/** Sends a request, and waits until `arrived`. */
		async send(user: string, arrived: () => boolean, path = '/', signal?: AbortSignal) {
			const url = `http://127.0.0.1:${port}${path}`
			const headers = { user, connection: 'close' }
			answers.push(fetch(url, { headers, ...(signal && { signal }) }).catch(() => {}))
			await until(arrived)
		},
		/** Lets one request finish, the oldest or this one, and waits until another one is at work. */
		async finish(at = 0) {
			working.splice(at, 1)[0]?.end()
			const before = working.length
			await until(() => working.length > before)
		},
		async end() {
			while (working.length > 0) {
				for (const res of working.splice(0)) res.end()
				await new Promise(setImmediate)
			}
			await Promise.race([Promise.all(answers), until(() => working.length > 0)])
			if (working.length > 0) await this.end()
			server.close()
		},
	}
}

test('warns once if requests hold the permits of a wide limiter while they wait for a narrow one', async () => {
	const inAll = limit({ capacity: 4, name: 'in-all' })
	const oneEach = limit({ capacity: 1, key, name: 'one-each' })
	const { send, finish, working, end } = await serve((app) => app.use(inAll, oneEach))
	const { limiter } = inAll

	await send('ada', () => working.length === 1)
	for (const count of [1, 2, 3]) await send('ada', () => oneEach.limiter.queued === count)
	await send('bob', () => limiter.queued === 1)
	await send('eve', () => limiter.queued === 2)
	vi.advanceTimersByTime(1_000)
	expect(warnings()).toEqual([])
	await finish()
	await until(() => warnings().length > 0)
	await end()
	expect(warnings()).toEqual([
		[
			'Requests hold the permits of limiter "in-all" while they wait for limiter "one-each", and others wait for "in-all": put "one-each" before "in-all", or give it a short queue',
			{ type: 'InflightLimitWarning', code: 'INFLIGHT_IDLE_PERMITS' },
		],
	])
})

test('warns if the requests of one route hold the permits of the app, in Koa too', async () => {
	const app = new Koa()
	const whole = limitKoa({ capacity: 3, name: 'app' })
	const reports = limitKoa({ capacity: 1, name: 'reports' })
	const working: (() => void)[] = []
	app.use(whole)
	app.use((ctx, next) => (ctx.path === '/reports' ? reports(ctx, next) : next()))
	app.use(async (ctx) => {
		await new Promise<void>((resolve) => working.push(resolve))
		ctx.body = 'done'
	})
	const { server, port } = await listen(app.callback())
	const answers = [request(port, { path: '/reports' })]
	await until(() => working.length === 1)
	answers.push(request(port, { path: '/reports' }), request(port, { path: '/reports' }))
	await until(() => reports.limiter.queued === 2)
	answers.push(request(port))
	await until(() => whole.limiter.queued === 1)
	vi.advanceTimersByTime(1_000)
	for (let finished = 0; finished < 4; finished++) {
		await until(() => working.length > 0)
		working.shift()?.()
	}
	await Promise.all(answers)
	expect(warnings()).toMatchObject([[{}, { code: 'INFLIGHT_IDLE_PERMITS' }]])
	server.close()
})

test('does not warn if the narrow limiter comes first', async () => {
	const oneEach = limit({ capacity: 1, key, name: 'one-each' })
	const inAll = limit({ capacity: 2, name: 'in-all' })
	const { send, finish, working, end } = await serve((app) => app.use(oneEach, inAll))
	await send('ada', () => working.length === 1)
	await send('bob', () => working.length === 2)
	for (const count of [1, 2, 3]) await send(`user ${count}`, () => inAll.limiter.queued === count)
	await send('ada', () => oneEach.limiter.queued === 1)
	vi.advanceTimersByTime(2_000)
	await finish()
	await end()
	expect(warnings()).toEqual([])
})

test('does not warn if the limiter of one route comes first', async () => {
	const reports = limit({ capacity: 3, name: 'reports' })
	const whole = limit({ capacity: 4, name: 'app' })
	const { send, finish, working, end } = await serve((app) => {
		app.use('/reports', reports).use(whole)
	})
	for (const count of [1, 2, 3, 4]) await send('ada', () => working.length === count)
	for (const count of [1, 2, 3]) {
		await send('bob', () => whole.limiter.queued === count, '/reports')
	}
	await send('bob', () => reports.limiter.queued === 1, '/reports')
	vi.advanceTimersByTime(2_000)
	await finish()
	// The first report: the last one is admitted by the limiter of reports, while another waits.
	await finish(3)
	await end()
	expect(warnings()).toEqual([])
})

test('does not count requests that gave their permits back before they wait', async () => {
	const whole = limit({ capacity: 3, name: 'app' })
	const reports = limit({ capacity: 1, name: 'reports' })
	const { send, finish, working, end } = await serve((app) => {
		app.use(whole)
		app.use('/reports', (req, _res, next) => {
			admission(req)?.release()
			next()
		})
		app.use('/reports', reports)
	})
	await send('ada', () => working.length === 1, '/reports')
	for (const count of [1, 2]) {
		await send('ada', () => reports.limiter.queued === count, '/reports')
	}
	for (const count of [2, 3, 4]) await send('ada', () => working.length === count)
	await send('bob', () => whole.limiter.queued === 1)
	vi.advanceTimersByTime(2_000)
	await finish(1)
	await end()
	expect(warnings()).toEqual([])
})

test('does not warn if each user has a limit that is wider than that for all', async () => {
	const perUser = limit({ capacity: 3, key, name: 'per-user' })
	const inAll = limit({ capacity: 1, name: 'in-all' })
	const { send, finish, working, end } = await serve((app) => app.use(perUser, inAll))
	await send('ada', () => working.length === 1)
	for (const count of [1, 2]) await send('ada', () => inAll.limiter.queued === count)
	await send('ada', () => perUser.limiter.queued === 1)
	vi.advanceTimersByTime(2_000)
	await finish()
	await end()
	expect(warnings()).toEqual([])
})

test('does not warn if nobody has waited for long', async () => {
	const inAll = limit({ capacity: 4, name: 'in-all' })
	const oneEach = limit({ capacity: 1, key, name: 'one-each' })
	const { send, finish, working, end } = await serve((app) => app.use(inAll, oneEach))
	await send('ada', () => working.length === 1)
	for (const count of [1, 2, 3]) await send('ada', () => oneEach.limiter.queued === count)
	await send('bob', () => inAll.limiter.queued === 1)
	vi.advanceTimersByTime(500)
	await finish()
	await end()
	expect(warnings()).toEqual([])
})

test('does not warn if the narrow limiter has a short queue', async () => {
	const whole = limit({ capacity: 5, name: 'app' })
	const reports = limit({ capacity: 1, maxQueue: 1, name: 'reports' })
	const { send, finish, working, end } = await serve((app) => {
		app.use(whole).use('/reports', reports)
	})
	await send('ada', () => working.length === 1, '/reports')
	await send('ada', () => reports.limiter.queued === 1, '/reports')
	for (const count of [2, 3, 4]) await send('ada', () => working.length === count)
	await send('bob', () => whole.limiter.queued === 1)
	vi.advanceTimersByTime(2_000)
	// Not the report, so that the other report still waits.
	await finish(1)
	await end()
	expect(warnings()).toEqual([])
})

test('does not count requests that wait no more: admitted, or left', async () => {
	const whole = limit({ capacity: 3, name: 'app' })
	const reports = limit({ capacity: 1, name: 'reports' })
	const { send, finish, working, end } = await serve((app) => {
		app.use(whole).use('/reports', reports)
	})
	const leaver = new AbortController()
	await send('ada', () => working.length === 1, '/reports')
	await send('ada', () => reports.limiter.queued === 1, '/reports')
	await send('ada', () => reports.limiter.queued === 2, '/reports', leaver.signal)
	leaver.abort()
	await until(() => reports.limiter.queued === 1)
	await finish()
	// All three are at work now.
	for (const count of [2, 3]) await send('ada', () => working.length === count)
	await send('bob', () => whole.limiter.queued === 1)
	vi.advanceTimersByTime(2_000)
	await finish()
	await end()
	expect(warnings()).toEqual([])
})
