import http from 'node:http'
import { hostname } from 'node:os'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import express from 'express'
import express4 from 'express4'
import Koa from 'koa'
import Koa2 from 'koa2'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import {
	type DashboardOptions,
	dashboard,
	dashboardKoa,
} from '../../../adapters/dashboard/index.js'
import { limit } from '../../../adapters/express.js'
import { limit as limitKoa } from '../../../adapters/koa.js'
import { adaptive } from '../../../src/adaptive/index.js'
import { enter, type Stay } from '../../../src/limiter/gate.js'
import { Limiter } from '../../../src/limiter/limiter.js'
import { type Answer, get, rawClient, request, until } from '../../support/clients.js'
import { listen } from '../../support/frameworks.js'
import { settle } from '../../support/gate.js'

const present = new AbortController().signal

const ends: (() => unknown)[] = []

afterEach(() => {
	for (const end of ends.splice(0)) end()
	vi.useRealTimers()
})

/** Starts a server with a page, both of which end with the test. */
async function start(listener: http.RequestListener, page?: { close(): void }): Promise<number> {
	const { server, port } = await listen(listener)
	ends.push(() => {
		page?.close()
		server.closeAllConnections()
		server.close()
	})
	return port
}

/** One event of a stream. */
interface Event {
	event: string
	// biome-ignore lint/suspicious/noExplicitAny: what a test makes of it
	data: any
}

/** Opens a page's stream. `events` grows. */
async function open(
	port: number,
	path = '/limits/events',
): Promise<{
	events: Event[]
	headers: http.IncomingHttpHeaders
	client: http.ClientRequest
	ended: () => boolean
}> {
	const client = http.get({ host: '127.0.0.1', port, path, agent: false })
	client.on('error', () => {})
	const res = await new Promise<http.IncomingMessage>((resolve) => client.once('response', resolve))
	const events: Event[] = []
	let text = ''
	let ended = false
	res.on('end', () => {
		ended = true
	})
	res.on('error', () => {})
	res.on('data', (chunk) => {
		text += chunk
		const complete = text.split('\n\n')
		text = complete.pop() ?? ''
		for (const block of complete) {
			const event = /^event: (.*)$/m.exec(block)?.[1] ?? 'message'
			events.push({ event, data: JSON.parse(/^data: (.*)$/m.exec(block)?.[1] ?? 'null') })
		}
	})
	ends.push(() => client.destroy())
	return { events, headers: res.headers, client, ended: () => ended }
}

/** All samples that a page was sent of its first limiter, by the names of their fields. */
function samplesOf(events: Event[]): Record<string, unknown>[] {
	const [begin] = events as [Event]
	const earlier = events.find(({ event }) => event === 'earlier')
	const live = events.filter(({ event }) => event === 'message').map(({ data }) => data)
	const rowsOf = ({ data }: Event): unknown[][] => {
		let before: unknown[] = []
		// 0 stands for a sample that is the same as the one before.
		return data.limiters[0].rows.map((row: unknown[] | 0) => {
			before = row === 0 ? before : row
			return before
		})
	}
	const rows = [...(earlier ? rowsOf(earlier) : []), ...rowsOf(begin)]
	const times = [
		...(earlier?.data.times ?? []),
		...begin.data.times,
		...live.map(({ time }) => time),
	]
	for (const { limiters } of live)
		rows.push(limiters[0][0] === 0 ? (rows.at(-1) as unknown[]) : limiters[0][0])
	expect(times).toHaveLength(rows.length)
	return rows.map((row, i) => ({
		time: times[i],
		...Object.fromEntries(begin.data.fields.map((name: string, n: number) => [name, row[n]])),
	}))
}

async function begun({ events }: { events: Event[] }): Promise<Event> {
	await until(() => events.length > 0)
	return events[0] as Event
}

const limiters = [new Limiter(1)]

describe.each([
	[
		'Express 5',
		(options: DashboardOptions) => {
			const page = dashboard(options)
			return {
				page,
				listener: express()
					.use('/limits', page)
					.use((_req, res) => void res.send('the app')),
			}
		},
	],
	[
		'Express 4',
		(options: DashboardOptions) => {
			const page = dashboard(options)
			return {
				page,
				listener: express4()
					.use('/limits', page)
					.use((_req, res) => void res.send('the app')),
			}
		},
	],
	[
		'node:http',
		(options: DashboardOptions) => {
			const page = dashboard({ ...options, path: '/limits' })
			return {
				page,
				listener: (req: http.IncomingMessage, res: http.ServerResponse) =>
					page(req, res, () => res.end('the app')),
			}
		},
	],
	...[Koa, Koa2 as unknown as typeof Koa].map(
		(Application, i) =>
			[
				`Koa ${3 - i}`,
				(options: DashboardOptions) => {
					const page = dashboardKoa({ ...options, path: '/limits/' })
					const app = new Application().use(page).use((ctx) => {
						ctx.body = 'the app'
					})
					return { page, listener: app.callback() }
				},
			] as const,
	),
] as const)('%s', (_name, make) => {
	test('serves the page, what belongs to it, and nothing else', async () => {
		const { page, listener } = make({ limiters })
		const port = await start(listener as http.RequestListener, page)
		const ask = (path: string): Promise<Answer> => request(port, { path })

		expect(await ask('/limits')).toMatchObject({ status: 307, headers: { location: './limits/' } })
		const html = await ask('/limits/')
		expect(html.status).toBe(200)
		expect(html.headers['content-type']).toBe('text/html; charset=utf-8')
		expect(html.headers['cache-control']).toBe('no-store')
		expect(html.headers['content-security-policy']).toContain(
			"default-src 'none'; script-src 'self'",
		)
		expect(html.headers['content-security-policy']).not.toMatch(/unsafe|\*|https?:/)
		expect(html.body).not.toMatch(/<script>|<style|style=|\son\w+=|https?:/)

		const linked = Array.from(
			html.body.matchAll(/(?:src|href)="([^"]+)"/g),
			([, to]) => to as string,
		)
		expect(linked.map((to) => to.split('?')[0])).toEqual(['icon.svg', 'page.css', 'page.js'])
		for (const to of linked) {
			const asset = await ask(`/limits/${to}`)
			expect([to, asset.status]).toEqual([to, 200])
			expect(asset.headers['cache-control']).toBe('private, max-age=31536000, immutable')
			expect(asset.headers['x-content-type-options']).toBe('nosniff')
			const stale = await ask(`/limits/${to.replace(/v=.*/, 'v=old')}`)
			expect([stale.status, stale.headers['cache-control']]).toEqual([200, 'no-cache'])
		}
		const script = await ask(`/limits/${linked[2]}`)
		expect(script.body).toMatch(
			/uplot [\d.]+\n\n[\s\S]+MIT License[\s\S]+preact [\d.]+\n\n[\s\S]+MIT License/,
		)
		// It loads nothing else.
		expect(script.body).not.toMatch(/\bimport\b/)

		for (const path of [
			'/',
			'/limitsx',
			'/limits/other',
			'/limits/constructor',
			'/limits/../limits/x',
		]) {
			expect((await ask(path)).body).toBe('the app')
		}
		const posted = await request(port, { path: '/limits/', method: 'POST' })
		expect(posted).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } })
		expect(await request(port, { path: '/limits/', method: 'HEAD' })).toMatchObject({
			status: 200,
			body: '',
		})
		expect(await request(port, { path: '/limits/events', method: 'HEAD' })).toMatchObject({
			status: 200,
		})
	})

	test('sends what was, then what is', async () => {
		const limiter = new Limiter({ capacity: 3, name: 'reports' })
		const { page, listener } = make({ limiters: [limiter] })
		const port = await start(listener as http.RequestListener, page)
		;(limiter[enter]({}, present) as Stay).leave('abandoned')
		limiter[enter]({}, present)
		const { events, headers } = await open(port)
		expect(headers['content-type']).toBe('text/event-stream')
		expect(headers['cache-control']).toBe('no-store, no-transform')
		await until(() => events.length >= 2)
		expect(events.map(({ event }) => event)).toEqual(['begin', 'message'])
		expect(events[0]?.data).toMatchObject({
			process: {
				host: hostname(),
				pid: process.pid,
				node: process.version,
				id: expect.any(String),
			},
			keys: false,
			limiters: [
				{
					name: 'reports',
					settings: { capacity: 'given', keyed: false, maxWait: 10_000, order: 'fifo' },
					rows: [expect.any(Array)],
				},
			],
		})
		const [[, totals]] = (events[1] as Event).data.limiters
		const { waits, holds } = limiter.stats()
		for (const [name, { p50, p90, p99, max }] of Object.entries({ waits, holds })) {
			expect([name, totals[name]]).toEqual([
				name,
				[p50, p90, p99, max].map((ms) => expect.closeTo(ms, 1)),
			])
		}
		expect(samplesOf(events).at(-1)).toMatchObject({
			capacity: 3,
			active: 1,
			queued: 0,
			maxQueue: 1000,
			keys: 0,
			admitted: 2,
			completed: 0,
			abandoned: 1,
			'queue-full': 0,
			waitP50: 0,
			holdP99: expect.any(Number),
			more: 0,
		})
	})
})

test('without anything behind it, other paths are not found', async () => {
	const page = dashboard({ limiters, path: '/limits' })
	const port = await start((req, res) => page(req, res), page)
	expect(await request(port, { path: '/other' })).toMatchObject({
		status: 404,
		body: 'Not found\n',
	})
	expect(await request(port, { path: '/limits?x=1' })).toMatchObject({ status: 307 })
})

test('a redirect leads nowhere else', async () => {
	const page = dashboard({ limiters })
	const port = await start(express().use('/:any', page) as http.RequestListener, page)
	for (const [path, location] of [
		['/https:evil', './https:evil/'],
		['//evil.example', './evil.example/'],
	]) {
		const { headers } = await request(port, { path: path as string })
		expect(headers.location ?? location).toBe(location)
	}
})

test('a page put before a limiter is not counted by it, however full that is', async () => {
	const guard = limit({ capacity: 1, maxQueue: 0 })
	guard.limiter[enter]({}, present)
	const page = dashboard({ limiters: [guard.limiter] })
	const app = express()
		.use('/limits', page)
		.use(guard)
		.use((_req, res) => void res.end())
	const port = await start(app, page)
	expect((await request(port, { path: '/limits/' })).status).toBe(200)
	const { events } = await open(port)
	await until(() => events.length > 0)
	expect((await request(port)).status).toBe(503)
	expect(guard.limiter.stats()).toMatchObject({
		active: 1,
		admitted: 1,
		rejected: { 'queue-full': 1 },
	})
})

test('one put behind limiters gives their permits back at once, and says once that it is in the wrong place', async () => {
	const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
	const outer = limit({ capacity: 1, name: 'outer' })
	const inner = limit({ capacity: 1, name: 'inner' })
	const page = dashboard({ limiters: [outer.limiter, inner.limiter] })
	const port = await start(express().use(outer, inner).use('/limits', page), page)
	const pages = [await open(port), await open(port), await open(port)]
	await until(() => pages.every(({ events }) => events.length > 0))
	expect([outer.limiter.active, inner.limiter.active]).toEqual([0, 0])

	const koa = limitKoa({ capacity: 1, name: 'koa' })
	const koaPage = dashboardKoa({ limiters: [koa.limiter], path: '/limits' })
	const koaPort = await start(new Koa().use(koa).use(koaPage).callback(), koaPage)
	await open(koaPort)
	await open(koaPort)
	expect(koa.limiter.active).toBe(0)
	expect(warn.mock.calls).toEqual([
		[
			expect.stringContaining('behind limiter "inner"'),
			expect.objectContaining({ code: 'INFLIGHT_DASHBOARD_LIMITED' }),
		],
	])
	warn.mockRestore()
})

test('more pages than may be open are rejected, and told so; one that closes makes room', async () => {
	const page = dashboard({ limiters, maxPages: 2 })
	const port = await start(express().use('/limits', page), page)
	const first = await open(port)
	const second = await open(port)
	await until(() => second.events.length > 0)
	const third = await open(port)
	await until(() => third.ended())
	expect(third.events).toEqual([
		{ event: 'rejected', data: { reason: '2 pages are open, which is the most.' } },
	])
	first.client.destroy()
	await vi.waitFor(async () => {
		const next = await open(port)
		await until(() => next.events.length > 0)
		expect(next.events[0]?.event).toBe('begin')
		next.client.destroy()
	})
})

test('a client that pipelines streams takes no place for those that it will never read', async () => {
	const page = dashboard({ limiters, maxPages: 2 })
	const port = await start(express().use('/limits', page), page)
	const { socket } = await rawClient(port, get('/limits/events').repeat(5))
	await until(() => socket.bytesRead > 0)
	socket.resetAndDestroy()
	await vi.waitFor(async () => {
		const pages = [await open(port), await open(port)]
		await until(() => pages.every(({ events }) => events.length > 0))
		for (const { client } of pages) client.destroy()
		expect(pages.map(({ events }) => events[0]?.event)).toEqual(['begin', 'begin'])
	})
})

test('a page that does not read is cut off, and others are not', async () => {
	vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] })
	const many = Array.from(
		{ length: 200 },
		(_, i) => new Limiter({ capacity: 1, name: `limiter ${i}` }),
	)
	const page = dashboard({ limiters: many })
	const { server, port } = await listen(express().use('/limits', page))
	ends.push(() => {
		page.close()
		server.closeAllConnections()
		server.close()
	})
	const connections = (): Promise<number> => promisify(server.getConnections.bind(server))()
	const reader = await open(port)
	const { socket } = await rawClient(port, get('/limits/events'))
	socket.pause()
	await begun(reader)
	// What the kernel takes for it is not bounded by us: so many that it is full at some time.
	expect(await connections()).toBe(2)
	for (let i = 0; i < 400 && (await connections()) === 2; i++) {
		const before = reader.events.length
		// What has not changed takes hardly any room.
		for (const limiter of many) (limiter[enter]({}, present) as Stay).leave('ok')
		vi.advanceTimersByTime(1000)
		await until(() => reader.events.length > before)
	}
	expect(await connections()).toBe(1)
	expect(reader.ended()).toBe(false)
})

describe('the samples', () => {
	beforeEach(() => {
		vi.useFakeTimers({
			toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout', 'Date', 'performance'],
		})
	})

	/** What a page is sent of some seconds, in each of which something happens. */
	async function rowsOf(
		limiter: Limiter,
		options: Partial<DashboardOptions>,
		between: (second: number) => void,
		seconds: number,
	): Promise<Record<string, unknown>[]> {
		const page = dashboard({ limiters: [limiter], ...options })
		const port = await start(express().use('/limits', page), page)
		for (let second = 0; second < seconds; second++) {
			between(second)
			vi.advanceTimersByTime(1000)
		}
		const { events } = await open(port)
		await until(() => events.length > (seconds > 61 ? 1 : 0))
		return samplesOf(events)
	}

	test('are of one second each, and of the last 15 minutes', async () => {
		const limiter = new Limiter({ capacity: 5, name: 'reports' })
		const rows = await rowsOf(
			limiter,
			{},
			(second) => {
				const stay = limiter[enter]({}, present) as Stay
				vi.advanceTimersByTime(0)
				if (second % 2 === 0) stay.leave('ok')
				else limiter.resize(5 + second)
			},
			1000,
		)
		expect(rows).toHaveLength(900)
		const times = rows.map(({ time }) => Number(time))
		expect((times.at(-1) as number) - (times[0] as number)).toBe(899_000)
		expect(rows.at(-1)).toMatchObject({
			admitted: 1000,
			completed: 500,
			active: 500,
			capacity: 1004,
		})
		expect(rows.at(-2)).toMatchObject({ admitted: 999, waitP50: 0 })
		// Nothing was over in the last second, and that of the one before was over at once.
		expect(rows.at(-1)?.holdP50).toBeNull()
		expect(rows.at(-2)?.holdP50).toBe(0)
	})

	test('tell the percentiles of their own second', async () => {
		const limiter = new Limiter({ capacity: 100, name: 'reports' })
		const rows = await rowsOf(
			limiter,
			{},
			(second) => {
				const stays = Array.from({ length: 10 }, () => limiter[enter]({}, present) as Stay)
				vi.advanceTimersByTime(10 * (second + 1))
				for (const stay of stays) stay.leave('ok')
			},
			3,
		)
		expect(rows.map(({ holdP50 }) => holdP50)).toEqual(
			[null, 10, 20, 30].map((ms) => ms && expect.closeTo(ms, 0)),
		)
	})

	test('are the same string for a limiter without requests, which is sent as 0', async () => {
		const page = dashboard({ limiters: [new Limiter(1)] })
		const port = await start(express().use('/limits', page), page)
		vi.advanceTimersByTime(100_000)
		const reader = await open(port)
		await until(() => reader.events.length > 1)
		const [begin, earlier] = reader.events
		expect(begin?.data.limiters[0].rows).toEqual([expect.any(Array), ...Array(60).fill(0)])
		expect(earlier?.data.limiters[0].rows).toEqual([expect.any(Array), ...Array(39).fill(0)])
		vi.advanceTimersByTime(1000)
		await until(() => reader.events.length > 2)
		expect(reader.events[2]?.data.limiters).toEqual([[0, 0]])
	})

	const byKey = (capacity: number): Limiter =>
		new Limiter({ capacity, maxQueue: 1, key: (request) => (request as { key: string }).key })

	/** What is told of keys in one second, with and without the option. */
	async function keysOf(
		own: Limiter,
		run: () => void | Promise<void>,
	): Promise<[asked: Event, not: Event]> {
		const pages = [dashboard({ limiters: [own], keys: true }), dashboard({ limiters: [own] })]
		const app = express()
			.use('/asked', pages[0] as never)
			.use('/not', pages[1] as never)
		const port = await start(app)
		ends.push(...pages.map((page) => page.close))
		await run()
		vi.advanceTimersByTime(1000)
		return [
			await begun(await open(port, '/asked/events')),
			await begun(await open(port, '/not/events')),
		]
	}

	function moreOf({ data }: Event): Record<string, [string, number][]>[] {
		return data.limiters[0].rows
			.map((row: unknown[] | 0) => (row === 0 ? 0 : row.at(-1)))
			.filter((more: object | 0) => more !== 0)
	}

	test('tell the keys that waited longest only when asked to, each second the longest five', async () => {
		const own = byKey(1)
		const [asked, not] = await keysOf(own, async () => {
			for (let i = 1; i <= 8; i++) {
				const key = `key ${i}`
				const first = own[enter]({ key }, present) as Stay
				const second = settle(own[enter]({ key }, present))
				vi.advanceTimersByTime(i * 10)
				first.leave('ok')
				;(await second)?.leave('ok')
			}
		})
		const longest = moreOf(asked).flatMap((more) => more.longest ?? [])
		expect(longest.map(([key]) => key)).toEqual(['key 8', 'key 7', 'key 6', 'key 5', 'key 4'])
		expect(JSON.stringify(not)).not.toContain('key 8')
	})

	test('tell the keys that were rejected most, and those busiest now', async () => {
		const own = byKey(2)
		const [asked, not] = await keysOf(own, () => {
			for (let i = 1; i <= 8; i++) {
				for (let n = 0; n < 2 + i; n++) own[enter]({ key: `key ${i}` }, present)
			}
		})
		// Each has two at work and, from three on, one that waits; the others are rejected.
		expect(moreOf(asked).flatMap((more) => more.rejected ?? [])).toEqual([
			['key 8', 7],
			['key 7', 6],
			['key 6', 5],
			['key 5', 4],
			['key 4', 3],
		])
		const { totals, rows } = asked.data.limiters[0]
		expect(totals.busiest).toHaveLength(5)
		expect(totals.busiest[0].slice(1)).toEqual([2, 1, 2])
		const { fields } = asked.data
		expect([rows.at(-1)[fields.indexOf('keys')], rows.at(-1)[fields.indexOf('saturated')]]).toEqual(
			[8, 8],
		)
		expect(JSON.stringify(not)).not.toContain('key 8')
	})

	test('cut long keys, and tell them apart', async () => {
		const own = byKey(1)
		const keys = ['1', '2'].map((middle) => `${'x'.repeat(1000)}${middle}${'y'.repeat(1000)}`)
		const [asked] = await keysOf(own, () => {
			for (const key of keys) for (let n = 0; n < 3; n++) own[enter]({ key }, present)
		})
		const told = moreOf(asked).flatMap((more) => more.rejected ?? [])
		expect(told.map(([, number]) => number)).toEqual([1, 1])
		expect(new Set(told.map(([key]) => key)).size).toBe(2)
		for (const [key] of told) expect(key).toMatch(/^x{90}…y{50} \(2001 characters, [0-9a-f]{8}\)$/)
	})

	test('tell how a limiter is set, what was left behind, and why a capacity was found', async () => {
		const found = new Limiter({
			capacity: adaptive(),
			order: 'lifo',
			priority: () => 1,
			name: 'found',
		})
		const [row] = (
			await rowsOf(
				found,
				{},
				() => {
					const stays = [1, 2].map(() => found[enter]({}, present) as Stay)
					stays[0]?.abandon?.()
					stays[0]?.abandon?.()
					stays[1]?.abandon?.()
					stays[1]?.leave('abandoned')
				},
				1,
			)
		).slice(-1)
		expect(row).toMatchObject({
			active: 1,
			abandoned: 1,
			leftBehind: 1,
			maxQueue: 20,
			more: { why: 'begins', loop: { overloaded: false } },
		})
	})

	test('tell of a dry run what it would do, and that it is one', async () => {
		const dry = new Limiter({ capacity: 1, dryRun: true, name: 'trial' })
		const page = dashboard({ limiters: [dry] })
		const port = await start(express().use('/limits', page), page)
		const stay = dry[enter]({}, present) as Stay
		stay.abandon?.()
		vi.advanceTimersByTime(1000)
		const { events } = await open(port)
		const { data } = await begun({ events })
		expect(data.limiters[0].settings).toMatchObject({ capacity: 'given', dryRun: true })
		expect(samplesOf(events).at(-1)).toMatchObject({ active: 1, leftBehind: 1 })
	})
})

test('files are sent compressed to those that take them so', async () => {
	const page = dashboard({ limiters })
	const port = await start(express().use('/limits', page), page)
	const ask = async (encodings: string): Promise<[string | undefined, string]> => {
		const { headers, buffer } = await new Promise<{
			headers: http.IncomingHttpHeaders
			buffer: Buffer
		}>((resolve) => {
			http.get(
				{ port, path: '/limits/icon.svg', headers: { 'accept-encoding': encodings } },
				async (res) => {
					const chunks = await res.toArray()
					resolve({ headers: res.headers, buffer: Buffer.concat(chunks) })
				},
			)
		})
		expect(headers.vary).toBe('Accept-Encoding')
		expect(headers['content-length']).toBe(String(buffer.length))
		const encoding = headers['content-encoding']
		return [encoding, (encoding === 'gzip' ? gunzipSync(buffer) : buffer).toString()]
	}
	const [, plain] = await ask('identity')
	expect(plain).toMatch(/^<svg/)
	expect(await ask('gzip, br')).toEqual(['gzip', plain])
	expect(await ask('gzip;q=0, br')).toEqual([undefined, plain])
	expect(await ask('')).toEqual([undefined, plain])
})

test('a server ends with its pages open, once all limiters are closed', async () => {
	const [one, two] = [
		new Limiter({ capacity: 1, name: 'one' }),
		new Limiter({ capacity: 1, name: 'two' }),
	]
	const page = dashboard({ limiters: [one, two] })
	const { server, port } = await listen(express().use('/limits', page))
	ends.push(page.close)
	const reader = await open(port)
	await begun(reader)
	one.close()
	// One that is still open has something to show.
	await until(() => reader.events.length > 2)
	expect(reader.ended()).toBe(false)

	two.close()
	const over = new Promise<void>((resolve) => server.close(() => resolve()))
	await until(() => reader.ended())
	await over
	expect(reader.events.at(-1)).toEqual({
		event: 'rejected',
		data: { reason: 'All limiters are closed.' },
	})
})

test('a server ends also with a page that does not read', async () => {
	vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'] })
	const many = Array.from(
		{ length: 2_000 },
		(_, i) => new Limiter({ capacity: 1, name: `limiter ${i}` }),
	)
	const page = dashboard({ limiters: many })
	const responses: http.ServerResponse[] = []
	const { server, port } = await listen((req, res) => {
		responses.push(res)
		page(req, res)
	})
	ends.push(page.close, () => server.closeAllConnections())
	const { socket } = await rawClient(port, get('/events'))
	socket.pause()
	await until(() => responses.length === 1)
	const [response] = responses as [http.ServerResponse]
	// Until the kernel takes no more for it.
	for (let i = 0; i < 400 && response.writableLength === 0; i++) {
		for (const limiter of many) (limiter[enter]({}, present) as Stay).leave('ok')
		vi.advanceTimersByTime(1000)
		await new Promise((resolve) => setImmediate(resolve))
	}
	expect(response.destroyed).toBe(false)

	for (const limiter of many) limiter.close()
	const over = new Promise<void>((resolve) => server.close(() => resolve()))
	vi.advanceTimersByTime(1000)
	await over
})

test('close ends the pages, rejects new ones, and leaves the limiters alone', async () => {
	const limiter = new Limiter(1)
	const page = dashboard({ limiters: [limiter] })
	const port = await start(express().use('/limits', page), page)
	const first = await open(port)
	await until(() => first.events.length > 0)
	page.close()
	await until(() => first.ended())
	expect(first.events.at(-1)).toEqual({
		event: 'rejected',
		data: { reason: 'The page is closed.' },
	})
	const late = await open(port)
	await until(() => late.ended())
	expect(late.events).toEqual([{ event: 'rejected', data: { reason: 'The page is closed.' } }])
	page.close()
})

test.each([
	[{}, TypeError, 'limiters must be an array'],
	[{ limiters: [limit(1)] }, TypeError, 'limiters[0] must be a Limiter'],
	[{ limiters: [new Limiter(1), new Limiter(1)] }, Error, 'another limiter named "default"'],
	[
		{ limiters, key: true },
		TypeError,
		'unknown option "key"; allowed are limiters, path, keys, maxPages',
	],
	[{ limiters, keys: 1 }, TypeError, 'keys must be true or false; got 1'],
	[
		{ limiters, path: 'limits' },
		RangeError,
		'path must be a path that begins with /; got "limits"',
	],
	[{ limiters, path: 1 }, TypeError, 'path must be a path that begins with /; got 1'],
	[{ limiters, maxPages: 0 }, RangeError, 'maxPages must be an integer from 1, or Infinity; got 0'],
])('wrong options throw: %j', (options, type, message) => {
	for (const make of [dashboard, dashboardKoa]) {
		expect(() => make(options as DashboardOptions)).toThrow(type)
		expect(() => make(options as DashboardOptions)).toThrow(message)
	}
})
