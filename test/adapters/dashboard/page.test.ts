import type http from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import axe from 'axe-core'
import express from 'express'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { dashboard } from '../../../adapters/dashboard/index.js'
import { limit } from '../../../adapters/express.js'
import { Limiter } from '../../../src/limiter/limiter.js'
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

	/** @param hash - what the address remembers: by default, both limiters are open. */
	async function visit(
		port: number,
		options: BrowserContextOptions = {},
		hash = '#open=reports&open=<b>per tenant</b>',
	): Promise<Page> {
		complaints.length = 0
		const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
		ends.push(() => context.close())
		const page = await context.newPage()
		page.on('console', (message) => {
			if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
		})
		page.on('pageerror', (error) => complaints.push(error.message))
		await page.goto(`http://127.0.0.1:${port}/limits/${hash}`)
		await page.waitForSelector('#status[data-state="live"]')
		return page
	}

	/** What is written in a limiter's row, or in its panel, by name. */
	async function figures(page: Page, limiter: string): Promise<Record<string, string>> {
		const cells = page
			.locator('tr')
			.filter({ has: page.getByRole('button', { name: limiter, exact: true }) })
			.locator('td[data-figure]')
		const inPanel = page
			.getByRole('region', { name: limiter, exact: true })
			.locator('[data-figure]')
		const read = (
			elements: { dataset: { figure: string }; textContent: string }[],
			prefix: string,
		): Record<string, string> =>
			Object.fromEntries(
				elements.map(({ dataset, textContent }) => [
					prefix + dataset.figure,
					textContent.replaceAll(/\s+/g, ' ').trim(),
				]),
			)
		return { ...(await inPanel.evaluateAll(read, '')), ...(await cells.evaluateAll(read, 'row.')) }
	}

	/** The names in the rows, from the top. */
	function names(page: Page): Promise<string[]> {
		return page.locator('tr.limiter .open').allTextContents()
	}

	/** Waits until the page shows this of a limiter. */
	function shows(page: Page, limiter: string, expected: Record<string, unknown>): Promise<void> {
		return vi.waitFor(async () => expect(await figures(page, limiter)).toMatchObject(expected), {
			timeout: 8000,
			interval: 100,
		})
	}

	test('under load, the numbers are those of the limiter', async () => {
		const { port, reports, work } = await start()
		const page = await visit(port)
		await page.locator('summary').first().click()
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
						'row.active': `${stats.active} of ${stats.capacity}`,
						'row.queued': `${stats.queued} of 4`,
						active: `${stats.active} of ${stats.capacity}`,
						queued: `${stats.queued} of 4`,
						'start.admitted': String(stats.admitted),
						'start.completed': String(stats.completed),
						'start.abandoned': String(stats.abandoned),
						'start.queue-full': String(stats.rejected['queue-full']),
						'start.aborted': String(stats.rejected.aborted),
						'window.admitted': String(stats.admitted),
						'window.completed': String(stats.completed),
						'window.queue-full': String(stats.rejected['queue-full']),
					})
					for (const kind of ['waits', 'holds'] as const) {
						for (const part of ['p50', 'p90', 'p99', 'max'] as const) {
							const value = stats[kind][part]
							expect(Math.abs(ms(shown[`${kind}.${part}`]) - value)).toBeLessThanOrEqual(
								0.05 * value + 0.06,
							)
						}
					}
				},
				{ timeout: 8000, interval: 100 },
			)
		await same()
		await shows(page, 'reports', {
			rejected: '9 in the last minute',
			left: '1 in the last minute',
			'row.rejected': expect.stringContaining('queue-full'),
		})
		// A client that left was not rejected.
		expect((await figures(page, 'reports'))['row.rejected']).not.toContain('+')
		expect(await page.locator('tr.limiter').first().getAttribute('data-trouble')).toBe('rejecting')
		expect(await page.locator('.why').first().textContent()).toContain('The queue is full: 4 of 4')
		expect(await page.title()).toBe('1 rejecting – Limits')

		reports.resize(5)
		await same()
		expect(await figures(page, 'reports')).toMatchObject({ active: '5 of 5' })
		work.finishAll()
		await Promise.all(asked)
		for (let i = 0; i < 300; i++)
			await Promise.all([ask('/report'), ask('/report'), ask('/report')])
		await same()
		expect(reports.stats().completed).toBe(907)
		expect(await figures(page, 'reports')).toMatchObject({ active: '0 of 5' })
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
		expect(await page.locator('#status').textContent()).toMatch(
			/^Connection lost\. All figures are those of \d\d:\d\d:\d\d\. Trying again…$/,
		)
		// Old values have their time beside them, not the word "now".
		expect(await page.locator('.readout').first().textContent()).toMatch(/^\d\d:\d\d:\d\d/)
		await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
		const asked = request(port, { path: '/report' }).catch(() => undefined)
		await until(() => work.begun.length === 1)
		await page.waitForSelector('#status[data-state="live"]', { timeout: 15_000 })
		await shows(page, 'reports', { active: '1 of 3' })
		expect(reports.active).toBe(1)
		// It is the same process.
		expect(await page.locator('.changed').count()).toBe(0)
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

	test('the read-out tells each moment, by pointer and by keyboard, in all charts', async () => {
		const { port, work, reports } = await start()
		const page = await visit(port)
		void request(port, { path: '/report/1' }).catch(() => undefined)
		await until(() => work.begun.length === 1)
		await shows(page, 'reports', { active: '1 of 3' })
		const slider = page.getByRole('slider', { name: 'Load of reports: move through time' })
		const panel = page.getByRole('region', { name: 'reports', exact: true })
		const readout = panel.locator('.readout').first()
		expect(await readout.textContent()).toMatch(/^nowwaiting 0at work 1capacity 3$/)

		await slider.focus()
		await page.keyboard.press('Home')
		await vi.waitFor(async () =>
			expect(await slider.getAttribute('aria-valuetext')).toMatch(
				/^\d\d:\d\d:\d\d: waiting 0, at work 0, capacity 3$/,
			),
		)
		expect(await readout.textContent()).toMatch(/^\d\d:\d\d:\d\dwaiting 0at work 0capacity 3$/)
		await page.keyboard.press('End')
		await vi.waitFor(async () =>
			expect(await slider.getAttribute('aria-valuetext')).toMatch(/waiting 0, at work 1/),
		)
		await page.keyboard.press('Escape')
		await vi.waitFor(async () => expect(await readout.textContent()).toMatch(/^now/))

		const box = await slider.boundingBox()
		if (box === null) throw new Error('the chart is not there')
		await page.mouse.move(box.x + box.width - 26, box.y + 60)
		await vi.waitFor(async () =>
			expect(await readout.textContent()).toMatch(/^\d\d:\d\d:\d\dwaiting 0at work 1/),
		)
		// While the pointer rests and time goes on, all charts stay at the same moment.
		const begun = await readout.textContent()
		await vi.waitFor(async () => expect(await readout.textContent()).not.toBe(begun), {
			timeout: 5000,
		})
		const times = await page.locator('.readout .time').allTextContents()
		expect(new Set(times).size).toBe(1)
		const lines = await panel
			.locator('.u-cursor-x')
			.evaluateAll(
				(all: { getBoundingClientRect(): { left: number }; closest(of: string): never }[]) =>
					all.map((line) => {
						const over = line.closest('.u-over') as { getBoundingClientRect(): { left: number } }
						return line.getBoundingClientRect().left - over.getBoundingClientRect().left
					}),
			)
		expect(lines).toHaveLength(4)
		for (const left of lines) expect(Math.abs(left - (lines[0] as number))).toBeLessThan(7)
		await page.mouse.move(5, 5)
		await vi.waitFor(async () => expect(await readout.textContent()).toMatch(/^now/), {
			timeout: 5000,
		})

		// The window, by keyboard alone.
		await page.getByRole('radio', { name: '1 min' }).focus()
		await page.keyboard.press('ArrowRight')
		await page.keyboard.press('ArrowRight')
		expect(await page.getByRole('radio', { name: '15 min' }).isChecked()).toBe(true)
		await shows(page, 'reports', { left: '0 in the last 15 min' })
		expect(reports.active).toBe(1)
		work.finishAll()
	})

	test('it can be paused, and zoomed into, for all charts at once', async () => {
		const { port, work } = await start()
		const page = await visit(port)
		const slider = page.getByRole('slider', { name: 'Load of reports: move through time' })
		await page.getByRole('button', { name: 'Pause' }).click()
		const asked = request(port, { path: '/report/1' }).catch(() => undefined)
		await until(() => work.begun.length === 1)
		const paused = page.getByRole('button', { name: /^Paused at/ })
		// The second that follows is taken, but not shown.
		const busy = await page.locator('#process').textContent()
		await vi.waitFor(
			async () => expect(await page.locator('#process').textContent()).not.toBe(busy),
			{
				timeout: 5000,
			},
		)
		expect(await figures(page, 'reports')).toMatchObject({ active: '0 of 3' })
		await paused.click()
		await shows(page, 'reports', { active: '1 of 3' })

		await slider.scrollIntoViewIfNeeded()
		const box = await slider.boundingBox()
		if (box === null) throw new Error('the chart is not there')
		await page.mouse.move(box.x + box.width / 2, box.y + 60)
		await page.mouse.down()
		await page.mouse.move(box.x + box.width - 30, box.y + 60, { steps: 5 })
		await page.mouse.up()
		await paused.waitFor()
		await shows(page, 'reports', { left: '0 in the time shown' })
		await paused.click()
		await shows(page, 'reports', { left: '0 in the last minute' })
		await slider.focus()
		await page.keyboard.press('+')
		await paused.waitFor()
		work.finishAll()
		await asked
	})

	test('keys are shown as text, for limiters that have some', async () => {
		const { port, tenants, work } = await start()
		const page = await visit(port)
		const tenant = '<img src=x onerror=alert(1)>'
		const long = (end: string): string =>
			`tenant-with-a-long-name/${'x'.repeat(40)}/and-an-end-of-its-own-${end}`
		const ask = (key: string): Promise<unknown> =>
			request(port, { path: '/tenant', headers: { 'x-tenant': key } }).catch(() => undefined)
		const asked = [tenant, tenant, long('1'), long('1'), long('2'), long('2')].map(ask)
		await until(() => tenants.queued === 3)
		// No capacity is shown of all keys together.
		await shows(page, '<b>per tenant</b>', {
			active: '3 in 3 keys',
			'row.active': '3 in 3 keys',
			keys: '3 of 3 in use, 1 permit each',
		})
		const panel = page.getByRole('region', { name: '<b>per tenant</b>', exact: true })
		expect(await panel.locator('.readout').first().textContent()).not.toContain('capacity')
		const [busiest, , longest] = await panel.locator('.lists > div').all()
		expect(await busiest?.locator('li').allTextContents()).toContain(
			`${tenant} 1 of 1 at work, 1 waiting`,
		)
		// Long keys differ, and are shown as a whole on demand.
		expect(await busiest?.locator('li').allTextContents()).toEqual(
			expect.arrayContaining([
				expect.stringMatching(/^tenant-with-a-long-n….*of-its-own-1/),
				expect.stringMatching(/own-2/),
			]),
		)
		await busiest?.getByRole('button', { name: 'Show the whole key' }).first().click()
		await vi.waitFor(async () => expect(await busiest?.textContent()).toContain('x'.repeat(40)))
		work.finishAll()
		await Promise.all(asked)
		await vi.waitFor(async () => expect(await longest?.textContent()).toContain(tenant), {
			timeout: 5000,
		})
		expect(await page.locator('.key bdi, bdi.key').count()).toBeGreaterThan(0)
		expect(await page.locator('img').count()).toBe(0)
		expect(complaints).toEqual([])
	})

	/** A server with many limiters, of which some are in trouble. */
	async function startMany(
		number: number,
	): Promise<{ port: number; all: Limiter[]; page: { close(): void } }> {
		const all = Array.from(
			{ length: number },
			(_, i) => new Limiter({ capacity: 2, maxQueue: 1, name: `route ${i}` }),
		)
		const page = dashboard({ limiters: all })
		const { server, port } = await listen(express().use('/limits', page))
		ends.push(() => {
			page.close()
			server.closeAllConnections()
			server.close()
		})
		return { port, all, page }
	}

	/** Lets a limiter reject some. Its permits are given back by `ends`. */
	function fill(limiter: Limiter | undefined, requests: number): void {
		for (let i = 0; i < requests; i++) {
			const entered = limiter?.run(() => new Promise<void>((resolve) => ends.push(resolve)))
			entered?.catch(() => undefined)
		}
	}

	test('of sixty limiters the worst is first and open; they can be found, filtered and sorted, by keyboard alone', async () => {
		const { port, all } = await startMany(60)
		fill(all[41], 9)
		fill(all[17], 2)
		const page = await visit(port, {}, '')
		await vi.waitFor(
			async () => expect((await names(page)).slice(0, 2)).toEqual(['route 41', 'route 17']),
			{
				timeout: 15_000,
			},
		)
		expect(await names(page)).toHaveLength(60)
		await page.reload()
		const table = page.locator('#limiters')
		const worst = table.getByRole('button', { name: 'route 41', exact: true })
		await worst.waitFor()
		expect(await worst.getAttribute('aria-expanded')).toBe('true')
		expect(await page.locator('.panel').count()).toBe(1)
		expect(await page.locator('tr.limiter').nth(1).getAttribute('data-trouble')).toBe('saturated')

		await page.keyboard.press('/')
		await page.keyboard.type('route 3')
		await vi.waitFor(async () => expect(await names(page)).toHaveLength(11))
		await page.keyboard.press('Tab')
		await page.keyboard.press('ControlOrMeta+A')
		await page.getByRole('searchbox').fill('')
		const rejecting = page.getByRole('button', { name: '1 rejecting' })
		await rejecting.focus()
		await page.keyboard.press('Enter')
		await vi.waitFor(async () => expect(await names(page)).toEqual(['route 41']))
		await page.keyboard.press('Enter')
		await vi.waitFor(async () => expect(await names(page)).toHaveLength(60))

		await page.getByRole('button', { name: 'Limiter', exact: true }).focus()
		await page.keyboard.press('Enter')
		await page.keyboard.press('Enter')
		await vi.waitFor(async () => expect((await names(page))[0]).toBe('route 9'))
		expect(
			await page.getByRole('columnheader', { name: 'Limiter' }).getAttribute('aria-sort'),
		).toBe('descending')
		await page.locator('.open').first().focus()
		await page.keyboard.press('ArrowDown')
		await page.keyboard.press('Enter')
		await vi.waitFor(async () => expect(await page.locator('.panel').count()).toBe(2))

		// The address remembers all of it.
		await page.reload()
		await page.locator('.panel').first().waitFor()
		expect((await names(page)).slice(0, 2)).toEqual(['route 9', 'route 8'])
		expect(await page.locator('.open[aria-expanded="true"]').allTextContents()).toEqual([
			'route 8',
			'route 41',
		])
		// What is not in view is not drawn.
		const drawn = page.locator('.plot canvas')
		await vi.waitFor(async () => expect(await drawn.count()).toBeGreaterThan(0))
		expect(await drawn.count()).toBeLessThanOrEqual(4)
		expect(complaints).toEqual([])
	})

	test('the worst is named above the table, whatever that is sorted by, and is a press away', async () => {
		const { port, all } = await startMany(60)
		const page = await visit(port, {}, '#sort=name')
		const worst = page.locator('#worst')
		expect(await worst.textContent()).toBe('No limiter is in trouble.')
		fill(all[41], 9)
		await vi.waitFor(
			async () =>
				expect(await worst.textContent()).toMatch(
					/^Worst: route 41, rejecting since \d\d:\d\d:\d\d \(\d+ s\)\. The queue is full: 1 of 1 places are taken\.$/,
				),
			{ timeout: 8000 },
		)
		expect((await names(page))[0]).toBe('route 0')
		const row = page.locator('#limiters').getByRole('button', { name: 'route 41', exact: true })
		await page.getByRole('searchbox').fill('route 5')
		await worst.getByRole('button').focus()
		await page.keyboard.press('Enter')
		await vi.waitFor(async () => {
			expect(await row.getAttribute('aria-expanded')).toBe('true')
			expect(
				await row.evaluate((element: { matches(of: string): boolean }) =>
					element.matches(':focus'),
				),
			).toBe(true)
		})
		expect(complaints).toEqual([])
	})

	test('each word has an explanation, by pointer, by focus and by touch', async () => {
		const { port } = await start()
		const page = await visit(port, { hasTouch: true })
		const tip = page.locator('#tip')
		const abandoned = page.getByRole('button', { name: 'Abandoned', exact: true }).first()
		await abandoned.hover()
		expect(await tip.textContent()).toContain('the handler is still at work')
		await page.keyboard.press('Escape')
		expect(await tip.isVisible()).toBe(false)
		await page.getByRole('button', { name: 'Hold', exact: true }).first().focus()
		expect(await tip.textContent()).toContain('How long requests held their permits')
		await page.mouse.move(5, 5)
		await page.getByRole('button', { name: 'Wait', exact: true }).first().tap()
		expect(await tip.textContent()).toContain('had waited before their handlers began')
		expect(await abandoned.getAttribute('aria-describedby')).toBe('tip-abandoned')
		await page.locator('summary').first().click()
		await page.getByRole('button', { name: 'Rejected: evicted' }).first().focus()
		expect(await tip.textContent()).toContain('a request with a better right')
	})

	test('it tells which process answers, and when it is another one', async () => {
		const { port, all, page: first } = await startMany(2)
		const page = await visit(port, {}, '')
		expect(await page.locator('#process').textContent()).toContain(
			`pid ${process.pid} · Node.js ${process.versions.node}`,
		)
		// As a process that was restarted: it is another page, and the counts begin anew.
		first.close()
		const second = dashboard({ limiters: all })
		const { server, port: other } = await listen(express().use('/limits', second))
		ends.push(() => {
			second.close()
			server.closeAllConnections()
			server.close()
		})
		await page.route('**/events', (route) =>
			route.continue({ url: `http://127.0.0.1:${other}/limits/events` }),
		)
		await page.waitForSelector('.changed', { timeout: 30_000 })
		expect(await page.locator('.changed').textContent()).toContain(`pid ${process.pid}`)
		await page.getByRole('button', { name: 'Close' }).click()
		await vi.waitFor(async () => expect(await page.locator('.changed').count()).toBe(0))
	})

	test.each([
		['light', { colorScheme: 'light' }],
		['dark', { colorScheme: 'dark' }],
		['narrow', { viewport: { width: 360, height: 740 }, hasTouch: true }],
		['narrow and dark', { viewport: { width: 360, height: 740 }, colorScheme: 'dark' }],
		['forced colours', { forcedColors: 'active', colorScheme: 'dark' }],
		['reduced motion', { reducedMotion: 'reduce' }],
	] as const)('axe finds no violation: %s', async (_name, options) => {
		const { port, work, cut, server } = await start()
		const left = await rawClient(port, 'GET /report HTTP/1.1\r\nHost: localhost\r\n\r\n')
		await until(() => work.begun.length === 1)
		left.socket.destroy()
		for (let i = 0; i < 9; i++) void request(port, { path: '/report' }).catch(() => undefined)
		void request(port, { path: '/tenant', headers: { 'x-tenant': 'ada' } }).catch(() => undefined)
		const page = await visit(port, options)
		await shows(page, 'reports', { rejected: expect.stringMatching(/^[1-9]/) })
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
		// Nothing is wider than the page, and nothing moves.
		expect(await page.evaluate('document.getAnimations().length')).toBe(0)
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
		const shown = await visit(port, {}, '')
		expect(await shown.locator('main').textContent()).toContain('There are no limiters to show.')
	})
})
