import type http from 'node:http'
import { pipeline, Readable } from 'node:stream'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import {
	countClosed,
	expectNothingLost,
	get,
	rawClient,
	request,
	serve,
	until,
	workshop,
} from '../support/clients.js'
import { frameworks } from '../support/frameworks.js'

/** What must never happen, whatever clients do. */
const accidents: unknown[] = []
const onAccident = (what: unknown): number => accidents.push(what)

beforeEach(() => {
	accidents.length = 0
	for (const event of ['unhandledRejection', 'uncaughtException', 'warning'])
		process.on(event, onAccident)
})

afterEach(() => {
	vi.useRealTimers()
	for (const event of ['unhandledRejection', 'uncaughtException', 'warning'])
		process.off(event, onAccident)
	expect(accidents).toEqual([])
})

const UPLOAD = 'POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n'

/** Ways to leave. */
const exits = {
	FIN: (socket: import('node:net').Socket) => socket.end(),
	RST: (socket: import('node:net').Socket) => socket.resetAndDestroy(),
	'closing both ways': (socket: import('node:net').Socket) => socket.destroy(),
}

describe.each(frameworks)('$name', (framework) => {
	describe.each(Object.entries(exits))('clients that leave by %s', (_exit, leave) => {
		test('while waiting: their handler never runs, and they leave the queue at once', async () => {
			const work = workshop()
			await using running = await serve(framework, 2, work.handler)
			const holders = [request(running.port, { path: '/1' }), request(running.port, { path: '/2' })]
			await until(() => work.begun.length === 2)
			const leavers = await Promise.all(
				[1, 2, 3].map(() => rawClient(running.port, get('/leaver'))),
			)
			await until(() => running.limiter.queued === 3)
			for (const { socket } of leavers) leave(socket)
			await until(() => running.limiter.queued === 0)
			expect(running.limiter.stats().rejected.aborted).toBe(3)
			work.finish()
			work.finish()
			await Promise.all(holders)
			await expectNothingLost(running, work)
			expect(work.begun).not.toContain('/leaver')
			for (const { text } of leavers) expect(text()).toBe('')
		})

		test('while at work: the work still counts, until the handler is done', async () => {
			const work = workshop()
			await using running = await serve(framework, 2, work.handler)
			const closed = countClosed(running.server)
			const leavers = [
				await rawClient(running.port, get('/1')),
				await rawClient(running.port, get('/2')),
			]
			await until(() => work.begun.length === 2)
			for (const { socket } of leavers) leave(socket)
			await until(() => closed() === 2)
			// They try again, as clients do.
			const again = [
				request(running.port, { path: '/again/1' }),
				request(running.port, { path: '/again/2' }),
			]
			await until(() => running.limiter.queued === 2)
			expect(work.begun).toEqual(['/1', '/2'])
			expect(running.limiter.active).toBe(2)
			work.finish('/1')
			await until(() => work.begun.length === 3)
			work.finish('/2')
			await until(() => work.begun.length === 4)
			work.finish()
			work.finish()
			await Promise.all(again)
			await expectNothingLost(running, work)
			expect(running.limiter.stats().abandoned).toBe(2)
		})

		test('while the response streams', async () => {
			let ended = 0
			const work = workshop((req, res) => {
				if (req.url !== '/stream') return res.end()
				const source = new Readable({ read: () => source.push(Buffer.alloc(16_384)) })
				pipeline(source, res, () => ended++)
			})
			await using running = await serve(framework, 1, work.handler)
			const leaver = await rawClient(running.port, get('/stream'))
			await until(() => work.begun.length === 1)
			work.finish()
			await until(() => leaver.text().length > 100_000)
			leave(leaver.socket)
			leaver.socket.destroy()
			await until(() => ended === 1)
			await expectNothingLost(running, work)
		})

		test('in the middle of an upload, waiting or at work', async () => {
			const work = workshop(async (req, res) => {
				try {
					for await (const _ of req);
				} finally {
					res.end()
				}
			})
			await using running = await serve(framework, 1, work.handler)
			const atWork = await rawClient(running.port, `${UPLOAD}some`)
			await until(() => work.begun.length === 1)
			const waiting = await rawClient(running.port, `${UPLOAD}some`)
			await until(() => running.limiter.queued === 1)
			leave(waiting.socket)
			await until(() => running.limiter.queued === 0)
			leave(atWork.socket)
			work.finish()
			await expectNothingLost(running, work)
			expect(work.begun[0]).toBe('/upload')
			expect(work.begun[1]).toMatch('/fresh')
		})
	})

	test.each([1, 3])(
		'pipelined requests on one connection that is then reset, capacity %i: one at a time, and all permits come back',
		async (capacity) => {
			const work = workshop()
			await using running = await serve(framework, capacity, work.handler)
			const closed = countClosed(running.server)
			const client = await rawClient(running.port, get('/pipelined').repeat(10))
			await until(() => work.begun.length === 1)
			expect(running.limiter).toMatchObject({ active: 1, queued: 0 })
			client.socket.resetAndDestroy()
			await until(() => closed() === 1)
			expect(running.limiter).toMatchObject({ active: 1, queued: 0 })
			work.finish()
			await expectNothingLost(running, work)
			expect(work.begun.filter((path) => path === '/pipelined').length).toBe(1)
		},
	)

	test('pipelined uploads, their bodies read or not, on a connection that is then reset', async () => {
		for (const read of [true, false]) {
			const work = workshop()
			await using running = await serve(framework, 3, async (req, res) => {
				if (read) for await (const _ of req);
				await work.handler(req, res)
			})
			const closed = countClosed(running.server)
			const upload = 'POST /pipelined HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello'
			const client = await rawClient(running.port, upload.repeat(10))
			await until(() => work.begun.length === 1)
			client.socket.resetAndDestroy()
			await until(() => closed() === 1)
			work.finish()
			await expectNothingLost(running, work)
			expect(work.begun.filter((path) => path === '/pipelined').length).toBe(1)
		}
	})

	test('a hundred pipelined requests draw no warning and are served in order', async () => {
		const work = workshop()
		await using running = await serve(framework, 3, (req, res) => {
			if (req.url?.startsWith('/fresh')) return work.handler(req, res)
			return res.end(`<${req.url}>`)
		})
		const requests = Array.from({ length: 100 }, (_, i) => get(`/${i}`)).join('')
		const client = await rawClient(running.port, requests)
		await until(() => client.text().includes('</99>'))
		expect(client.text().match(/<\/\d+>/g)).toEqual(
			Array.from({ length: 100 }, (_, i) => `</${i}>`),
		)
		await expectNothingLost(running, work)
		client.socket.destroy()
	})

	test('requests that are pipelined behind a slow response hold no permit, and no place in the queue', async () => {
		const work = workshop()
		const slow = workshop()
		const asked: (string | undefined)[] = []
		const skip = (of: { req?: http.IncomingMessage; url?: string }): boolean => {
			const { url } = (of.req ?? of) as http.IncomingMessage
			asked.push(url)
			return url === '/slow'
		}
		await using running = await serve(framework, { capacity: 3, skip }, (req, res) =>
			(req.url === '/slow' ? slow : work).handler(req, res),
		)
		const client = await rawClient(running.port, get('/slow') + get('/quick').repeat(3))
		await until(() => slow.begun.length === 1)
		const other = request(running.port, { path: '/other' })
		await until(() => work.begun.length === 1)
		expect(running.limiter).toMatchObject({ active: 1, queued: 0 })
		expect(asked).toEqual(['/slow', '/other'])
		slow.finish()
		for (let i = 1; i <= 3; i++) {
			await until(() => work.begun.length === 1 + i)
			expect(running.limiter).toMatchObject({ active: 2, queued: 0 })
			work.finish('/quick')
		}
		await until(() => client.text().split('/quick').length === 4)
		work.finish('/other')
		await other
		client.socket.destroy()
		await expectNothingLost(running, work)
	})

	test('a client that never reads its response is cut off after stallTimeout', async () => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
		const real = (): Promise<void> => new Promise(setImmediate)
		const untilReal = async (what: () => boolean): Promise<void> => {
			while (!what()) await real()
		}
		for (const streams of [false, true]) {
			let begun = 0
			let pending = (): number => 0
			await using running = await serve(framework, 1, (req, res) => {
				begun++
				pending = () => req.socket.writableLength
				if (req.url === '/end') return res.end('end')
				if (!streams) return res.end(Buffer.alloc(64 << 20))
				const source = new Readable({ read: () => source.push(Buffer.alloc(65_536)) })
				return pipeline(source, res, () => {})
			})
			const client = await rawClient(running.port, get())
			client.socket.pause()
			await untilReal(() => begun === 1 && pending() > 0)
			for (let i = 0; i < 200; i++) await real()
			vi.advanceTimersByTime(59_999)
			expect(running.limiter.active).toBe(1)
			vi.advanceTimersByTime(15_001)
			await untilReal(() => running.limiter.active === 0)
			expect(running.limiter.stats().abandoned).toBe(1)
			const last = request(running.port, { path: '/end' })
			await untilReal(() => begun === 2)
			expect((await last).status).toBe(200)
			client.socket.destroy()
		}
	})

	test('a client that reads slowly is left alone, within one large chunk too', async () => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
		const real = (): Promise<void> => new Promise(setImmediate)
		const size = 16 << 20
		let pending = (): number => 0
		await using running = await serve(framework, 1, (req, res) => {
			pending = () => req.socket.writableLength
			res.end(Buffer.alloc(size))
		})
		const client = await rawClient(running.port, get())
		client.socket.pause()
		while (pending() === 0) await real()
		let received = 0
		client.socket.removeAllListeners('data')
		client.socket.on('data', (chunk) => {
			received += chunk.length
		})
		while (received < size) {
			const before = received
			client.socket.resume()
			while (received < Math.min(size, before + (4 << 20))) await real()
			client.socket.pause()
			for (let i = 0; i < 50; i++) await real()
			vi.advanceTimersByTime(30_000)
		}
		expect(client.socket.destroyed).toBe(false)
		while (running.limiter.active > 0) await real()
		client.socket.destroy()
	})

	test('half-closed: a client that has only ended its side is served when the server allows it', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, work.handler)
		;(running.server as http.Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true
		const first = request(running.port, { path: '/first' })
		await until(() => work.begun.length === 1)
		const client = await rawClient(running.port, get('/half'), { allowHalfOpen: true })
		await until(() => running.limiter.queued === 1)
		client.socket.end()
		await new Promise(setImmediate)
		work.finish()
		await first
		await until(() => work.begun.length === 2)
		work.finish()
		await until(() => client.text().includes('/half'))
		await expectNothingLost(running, work)
	})

	test('a connection that only the server has ended: its client cannot hold a permit, or a place, by it', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, work.handler)
		// As in Node's documentation.
		running.server.on('clientError', (_error, socket) =>
			socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
		)
		const first = await rawClient(running.port, get('/first'), { allowHalfOpen: true })
		await until(() => work.begun.length === 1)
		const waiting = await rawClient(running.port, get('/waiting'), { allowHalfOpen: true })
		await until(() => running.limiter.queued === 1)
		waiting.socket.write('\0\0\0\r\n\r\n')
		await until(() => running.limiter.queued === 0)
		first.socket.write('\0\0\0\r\n\r\n')
		await until(() => first.text().includes('400'))
		// The work still counts.
		expect(running.limiter.active).toBe(1)
		work.finish()
		await until(() => running.limiter.active === 0)
		expect([first.socket.closed, waiting.socket.closed]).toEqual([false, false])
		for (const { socket } of [first, waiting]) socket.destroy()
		await expectNothingLost(running, work)
		expect(work.begun).not.toContain('/waiting')
	})

	test('server.closeAllConnections() loses nothing', async () => {
		const work = workshop()
		await using running = await serve(framework, 2, work.handler)
		const clients = await Promise.all(
			Array.from({ length: 6 }, () => rawClient(running.port, get('/cut'))),
		)
		await until(() => work.begun.length === 2 && running.limiter.queued === 4)
		running.server.closeAllConnections()
		await Promise.all(clients.map(({ closed }) => closed))
		await until(() => running.limiter.queued === 0)
		expect(running.limiter.active).toBe(2)
		work.finish()
		work.finish()
		await expectNothingLost(running, work)
		expect(work.begun.filter((path) => path === '/cut').length).toBe(2)
	})

	test('a handler that never ends is waited for as long as abandonedTimeout, once its client has left', async () => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
		const real = (): Promise<void> => new Promise(setImmediate)
		let begun = 0
		await using running = await serve(
			framework,
			{ capacity: 1, abandonedTimeout: 5000 },
			async (req, res) => {
				begun++
				if (req.url === '/never') await new Promise(() => {})
				res.end()
			},
		)
		const client = await rawClient(running.port, get('/never'))
		while (begun === 0) await real()
		vi.advanceTimersByTime(20_000)
		expect(running.limiter.active).toBe(1)
		client.socket.destroy()
		while (vi.getTimerCount() === 0 || !client.socket.closed) await real()
		for (let i = 0; i < 20; i++) await real()
		vi.advanceTimersByTime(4999)
		expect(running.limiter.active).toBe(1)
		vi.advanceTimersByTime(1)
		expect(running.limiter.active).toBe(0)
		expect(running.limiter.stats().abandoned).toBe(1)
		const next = request(running.port)
		while (begun === 1) await real()
		expect((await next).status).toBe(200)
	})

	test('abandonedTimeout 0 gives the permit back when the client leaves; Infinity never does', async () => {
		for (const abandonedTimeout of [0, Number.POSITIVE_INFINITY]) {
			const work = workshop()
			await using running = await serve(framework, { capacity: 1, abandonedTimeout }, work.handler)
			let closed = false
			running.server.once('connection', (socket) => {
				socket.once('close', () => {
					closed = true
				})
			})
			const client = await rawClient(running.port, get('/left'))
			await until(() => work.begun.length === 1)
			client.socket.destroy()
			await until(() => closed)
			if (abandonedTimeout === 0) {
				await until(() => running.limiter.active === 0)
				expect(running.limiter.stats().abandoned).toBe(1)
			}
			work.finish()
			await expectNothingLost(running, work)
			expect(running.limiter.stats().abandoned).toBe(1)
		}
	})

	test('a client that has left before the limiter is reached takes no permit', async () => {
		const work = workshop()
		const { listener, limiter } = framework.app(1, work.handler)
		const arrived: (() => void)[] = []
		await using running = await serve(
			{
				...framework,
				app: () => ({
					limiter,
					listener(req, res) {
						if (req.url !== '/early') return listener(req, res)
						arrived.push(() => listener(req, res))
						req.socket.once('close', () => arrived.push(() => {}))
					},
				}),
			},
			1,
			work.handler,
		)
		const client = await rawClient(running.port, get('/early'))
		await until(() => arrived.length === 1)
		client.socket.destroy()
		await until(() => arrived.length === 2)
		arrived[0]?.()
		await new Promise(setImmediate)
		expect(work.begun).toEqual([])
		expect(limiter.stats()).toMatchObject({ active: 0, admitted: 0, rejected: { aborted: 1 } })
		await expectNothingLost(running, work)
	})

	test('clients that leave in the very turn in which they would be admitted are not served', async () => {
		const work = workshop()
		const sockets: import('node:net').Socket[] = []
		await using running = await serve(framework, 1, (req, res) => {
			if (req.url === '/first') sockets.push(req.socket)
			return work.handler(req, res)
		})
		running.server.on('connection', (socket) => sockets.push(socket))
		const first = await rawClient(running.port, get('/first'))
		await until(() => work.begun.length === 1)
		const second = await rawClient(running.port, get('/second'))
		await until(() => running.limiter.queued === 1)
		// The server's sides of both, destroyed in one turn: the closing of the first hands its permit
		// to the second.
		work.finish()
		for (const socket of sockets) socket.destroy()
		await Promise.all([first.closed, second.closed])
		await expectNothingLost(running, work)
		expect(work.begun).not.toContain('/second')
	})
})
