import type http from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import axe from 'axe-core'
import express from 'express'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { dashboard } from '../../../adapters/dashboard/index.js'
import { limit } from '../../../adapters/express.js'
import type { Limiter } from '../../../src/limiter/limiter.js'
import { get, rawClient, request, until, workshop } from '../../support/clients.js'
import { listen } from '../../support/frameworks.js'
import { programOrSkip } from '../../support/programs.js'

const executablePath = programOrSkip(['chromium', 'chromium-browser', 'google-chrome'], 'chromium')

/** What a test starts, to be ended with it. */
const ends: (() => unknown)[] = []

afterEach(async () => {
	for (const end of ends.splice(0).reverse()) await end()
})

/** A real server with two limiters and the page, and a load on it. */
async function start(): Promise<{
	port: number
	server: http.Server
	reports: Limiter
	tenants: Limiter
	work: ReturnType<typeof workshop>
	cut: () => void
}> {
	const work = workshop()
	const reports = limit({ capacity: 3, maxQueue: 4, name: 'reports' })
	const tenants = limit({
		capacity: 1,
		name: '<b>per tenant</b>',
		key: (req) => req.headers['x-tenant'] as string,
	})
	const page = dashboard({ limiters: [reports.limiter, tenants.limiter], keys: true })
	const app = express()
		.use('/limits', page)
		.use('/report', reports, (req, res) => void work.handler(req, res))
		.use('/tenant', tenants, (req, res) => void work.handler(req, res))
	const { server, port } = await listen(app)
	const sockets = new Set<Socket>()
	server.on('connection', (socket) => {
		sockets.add(socket)
		socket.on('close', () => sockets.delete(socket))
	})
	const cut = (): void => {
		for (const socket of sockets) socket.destroy()
	}
	ends.push(() => {
		page.close()
		cut()
		server.close()
	})
	return { port, server, reports: reports.limiter, tenants: tenants.limiter, work, cut }
}

describe.skipIf(executablePath === undefined)('in Chromium', () => {
	let browser: Browser
	/** What the page complained of in its console, a breach of its policy included. */
	const complaints: string[] = []

	beforeAll(async () => {
		browser = await chromium.launch({
			executablePath: executablePath as string,
			args: [
				'--no-sandbox',
				'--disable-gpu',
				'--disable-quic',
				'--no-first-run',
				'--disable-background-networking',
				'--disable-component-update',
				'--disable-sync',
			],
		})
	}, 60_000)

	afterAll(() => browser.close())

	async function visit(port: number, options: BrowserContextOptions = {}): Promise<Page> {
		complaints.length = 0
		const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
		ends.push(() => context.close())
		const page = await context.newPage()
		page.on('console', (message) => {
			if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
		})
		page.on('pageerror', (error) => complaints.push(error.message))
		await page.goto(`http://127.0.0.1:${port}/limits`)
		await page.waitForSelector('#status[data-state="live"]')
		return page
	}

	/** The figures of the table's row of a limiter, by group and column. */
	function figures(page: Page, limiter: string): Promise<Record<string, string>> {
		return page
			.locator(`tr[data-limiter="${limiter}"] td[data-figure]`)
			.evaluateAll((cells: { dataset: { figure: string }; textContent: string }[]) =>
				Object.fromEntries(cells.map(({ dataset, textContent }) => [dataset.figure, textContent])),
			)
	}

	function tile(page: Page, limiter: string, name: string): Promise<string | null> {
		return page
			.getByRole('region', { name: limiter, exact: true })
			.locator(`[data-figure="${name}"]`)
			.textContent()
	}

	test('under load, the numbers are those of the limiter', async () => {
		const { port, reports, work } = await start()
		const page = await visit(port)
		const ask = (path: string): Promise<unknown> => request(port, { path }).catch(() => undefined)
		const asked = [ask('/report/1'), ask('/report/2'), ask('/report/3')]
		await until(() => work.begun.length === 3)
		const { socket } = await rawClient(port, get('/report'))
		await until(() => reports.queued === 1)
		socket.destroy()
		await until(() => reports.stats().rejected.aborted === 1)
		for (let i = 4; i <= 7; i++) asked.push(ask(`/report/${i}`))
		await until(() => reports.queued === 4)
		for (let i = 0; i < 9; i++) asked.push(ask('/report/rejected'))
		await until(() => reports.stats().rejected['queue-full'] === 9)

		/** Once the page has had its second, each figure is the limiter's own. */
		const same = (): Promise<void> =>
			vi.waitFor(
				async () => {
					const stats = reports.stats()
					const shown = await figures(page, 'reports')
					const ms = (text: string | undefined): number =>
						Number.parseFloat(text ?? '') * (text?.endsWith(' s') ? 1000 : 1)
					expect(shown).toMatchObject({
						'Now.capacity': String(stats.capacity),
						'Now.active': String(stats.active),
						'Now.queued': String(stats.queued),
						'Now.keys': '0',
						'Since the start.admitted': String(stats.admitted),
						'Since the start.completed': String(stats.completed),
						'Since the start.abandoned': String(stats.abandoned),
						'Since the start.queue-full': String(stats.rejected['queue-full']),
						'Since the start.aborted': String(stats.rejected.aborted),
						'window.admitted': String(stats.admitted),
						'window.completed': String(stats.completed),
						'window.queue-full': String(stats.rejected['queue-full']),
					})
					for (const [name, value] of [
						['waits.p50', stats.waits.p50],
						['waits.p99', stats.waits.p99],
						['holds.p50', stats.holds.p50],
						['holds.p99', stats.holds.p99],
					] as const) {
						expect(Math.abs(ms(shown[`Since the start.${name}`]) - value)).toBeLessThanOrEqual(
							0.05 * value + 0.06,
						)
					}
				},
				{ timeout: 8000, interval: 100 },
			)
		await same()
		expect(await tile(page, 'reports', 'active')).toBe('3 of 3')
		expect(await tile(page, 'reports', 'queued')).toBe('4')
		expect(await tile(page, 'reports', 'rejected')).toBe('9 in the last minute')
		expect(await tile(page, 'reports', 'left')).toBe('1 in the last minute')

		reports.resize(5)
		await same()
		expect(await tile(page, 'reports', 'active')).toBe('5 of 5')
		work.finishAll()
		await Promise.all(asked)
		for (let i = 0; i < 300; i++) await Promise.all([ask('/report'), ask('/report'), ask('/report')])
		await same()
		expect(reports.stats().completed).toBe(907)
		expect(await tile(page, 'reports', 'active')).toBe('0 of 5')
		// The page's own requests are not counted, and its security policy allows all that it does.
		expect(complaints).toEqual([])
	})

	test('a lost connection is shown, and comes back by itself with what was missed', async () => {
		const { port, server, reports, work, cut } = await start()
		const page = await visit(port)
		await new Promise<void>((resolve) => {
			server.close(() => resolve())
			cut()
		})
		await page.waitForSelector('#status[data-state="lost"]')
		expect(await page.locator('#status').textContent()).toBe('Connection lost. Trying again…')
		// Old values have their time beside them, not the word "now".
		expect(await page.locator('.readout').first().textContent()).toMatch(/^\d\d:\d\d:\d\d/)
		await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
		const asked = request(port, { path: '/report' }).catch(() => undefined)
		await until(() => work.begun.length === 1)
		await page.waitForSelector('#status[data-state="live"]', { timeout: 15_000 })
		await vi.waitFor(async () => expect(await tile(page, 'reports', 'active')).toBe('1 of 3'), {
			timeout: 5000,
		})
		expect(reports.active).toBe(1)
		work.finishAll()
		await asked
	})

	test('a connection on which nothing comes is lost too', async () => {
		const { port } = await start()
		// As a network does that drops all packets: it stays open and says nothing.
		const proxy = net.createServer((socket) => {
			const upstream = net.connect(port, '127.0.0.1')
			pairs.push([socket, upstream])
			socket.pipe(upstream)
			if (!silent) upstream.pipe(socket)
			for (const each of [socket, upstream]) each.on('error', () => {})
			socket.on('close', () => upstream.destroy())
		})
		const pairs: [Socket, Socket][] = []
		let silent = false
		await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
		ends.push(() => {
			for (const [socket] of pairs) socket.destroy()
			proxy.close()
		})
		const page = await visit((proxy.address() as AddressInfo).port)
		silent = true
		for (const [socket, upstream] of pairs) upstream.unpipe(socket)
		await page.waitForSelector('#status[data-state="lost"]', { timeout: 15_000 })
		silent = false
		await page.waitForSelector('#status[data-state="live"]', { timeout: 15_000 })
	})

	test('the read-out tells each moment, by pointer and by keyboard', async () => {
		const { port, work, reports } = await start()
		const page = await visit(port)
		void request(port, { path: '/report/1' }).catch(() => undefined)
		await until(() => work.begun.length === 1)
		await vi.waitFor(async () => expect(await tile(page, 'reports', 'active')).toBe('1 of 3'), {
			timeout: 5000,
		})
		const slider = page.getByRole('slider', { name: 'Load of reports: move through time' })
		const readout = page.locator('.limiter').first().locator('.readout').first()
		expect(await readout.textContent()).toMatch(/^nowat work 1waiting 0capacity 3$/)

		await slider.focus()
		await page.keyboard.press('Home')
		expect(await slider.getAttribute('aria-valuetext')).toMatch(
			/^\d\d:\d\d:\d\d: at work 0, waiting 0, capacity 3$/,
		)
		expect(await readout.textContent()).toMatch(/^\d\d:\d\d:\d\dat work 0waiting 0capacity 3$/)
		await page.keyboard.press('End')
		expect(await slider.getAttribute('aria-valuetext')).toMatch(/at work 1, waiting 0/)
		await page.keyboard.press('Escape')
		expect(await readout.textContent()).toMatch(/^now/)

		const box = await slider.boundingBox()
		if (box === null) throw new Error('the chart is not there')
		await page.mouse.move(box.x + box.width - 26, box.y + 60)
		await vi.waitFor(async () => expect(await readout.textContent()).toMatch(/^\d\d:\d\d:\d\dat work 1/), {
			timeout: 5000,
		})
		await page.mouse.move(5, 5)
		await vi.waitFor(async () => expect(await readout.textContent()).toMatch(/^now/), { timeout: 5000 })

		// The window, by keyboard alone.
		await page.getByRole('radio', { name: '1 min' }).focus()
		await page.keyboard.press('ArrowRight')
		await page.keyboard.press('ArrowRight')
		expect(await page.getByRole('radio', { name: '15 min' }).isChecked()).toBe(true)
		expect(await page.locator('[data-group="window"]').textContent()).toBe('Last 15 min')
		expect(await tile(page, 'reports', 'abandoned')).toBe('0 in the last 15 min')
		expect(reports.active).toBe(1)
		work.finishAll()
	})

	test('keys are shown as text, for limiters that have some', async () => {
		const { port, tenants, work } = await start()
		const page = await visit(port)
		const tenant = '<img src=x onerror=alert(1)>'
		const asked = [1, 2].map(() => request(port, { path: '/tenant', headers: { 'x-tenant': tenant } }))
		await until(() => tenants.queued === 1)
		await vi.waitFor(
			async () => expect(await tile(page, '<b>per tenant</b>', 'active')).toBe('1, 1 for each key'),
			{ timeout: 5000 },
		)
		work.finishAll()
		await Promise.all(asked)
		const list = page.locator('.limiter').nth(1).locator('.longest')
		await vi.waitFor(async () => expect(await list.textContent()).toContain(`${tenant} – `), {
			timeout: 5000,
		})
		expect(await page.locator('.limiter').first().locator('.longest').isVisible()).toBe(false)
		expect(await page.locator('img').count()).toBe(0)
		expect(complaints).toEqual([])
	})

	test.each([
		['light', { colorScheme: 'light' }],
		['dark', { colorScheme: 'dark' }],
		['narrow', { viewport: { width: 360, height: 740 }, hasTouch: true }],
		['narrow and dark', { viewport: { width: 360, height: 740 }, colorScheme: 'dark' }],
	] as const)('axe finds no violation: %s', async (_name, options) => {
		const { port, work, cut, server } = await start()
		const left = await rawClient(port, 'GET /report HTTP/1.1\r\nHost: localhost\r\n\r\n')
		await until(() => work.begun.length === 1)
		left.socket.destroy()
		for (let i = 0; i < 9; i++) void request(port, { path: '/report' }).catch(() => undefined)
		void request(port, { path: '/tenant', headers: { 'x-tenant': 'ada' } }).catch(() => undefined)
		const page = await visit(port, options)
		await vi.waitFor(async () => expect(await tile(page, 'reports', 'rejected')).toMatch(/^[1-9]/), {
			timeout: 5000,
		})
		const violations = async (): Promise<unknown[]> => {
			await page.evaluate(axe.source)
			const found = await page.evaluate(() =>
				(
					globalThis as never as {
						axe: {
							run(): Promise<{
								violations: { id: string; nodes: { html: string; failureSummary: string }[] }[]
							}>
						}
					}
				).axe.run(),
			)
			return found.violations.map(({ id, nodes }) => [
				id,
				nodes.map(({ html, failureSummary }) => [html, failureSummary]),
			])
		}
		expect(await violations()).toEqual([])
		// Nothing is wider than the page, but what scrolls by itself.
		expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true)
		server.close()
		cut()
		await page.waitForSelector('#status[data-state="lost"]')
		expect(await violations()).toEqual([])
	})

	test('with no limiter to show, it says so', async () => {
		const page = dashboard({ limiters: [] })
		const { server, port } = await listen(express().use('/limits', page))
		ends.push(() => {
			page.close()
			server.closeAllConnections()
			server.close()
		})
		const shown = await visit(port)
		expect(await shown.locator('main').textContent()).toContain('There are no limiters to show.')
	})
})
