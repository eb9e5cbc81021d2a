import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import http2, { type ServerHttp2Stream } from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { rawClient, until, workshop } from '../support/clients.js'
import type { Handler } from '../support/frameworks.js'
import {
	eventually,
	type Place,
	places,
	sleep,
	start,
	watchAccidents,
} from '../support/transports.js'

/*
 * Clients that take nothing, and clients that take little. What counts is what they take of the
 * bytes that wait for them, by whichever way these were written.
 */

let accidents: () => unknown[]

beforeAll(() => {
	accidents = watchAccidents()
})

afterAll(() => {
	expect(accidents()).toEqual([])
})

/** In ms. Steady clients take something in each tenth of it. */
const STALL = 400

/** More than the kernel takes for a client that does not read. */
const LARGE = 16 << 20

/** Writes whether anybody takes it or not, until the response closes. */
function tick(res: Writable, bytes: number): void {
	const ticks = setInterval(() => res.write(Buffer.alloc(bytes)), STALL / 20)
	res.on('close', () => {
		clearInterval(ticks)
		res.end()
	})
}

/** Ways to send more than a client takes that does not read. */
const sends: Record<string, Handler> = {
	'one large end(buffer)': (_req, res) => res.end(Buffer.alloc(LARGE)),
	'one large write, and the end later': (_req, res) => {
		res.write(Buffer.alloc(LARGE))
		res.on('close', () => res.end())
	},
	'one large write, and small ones all the time': (_req, res) => {
		res.write(Buffer.alloc(LARGE))
		tick(res, 12)
	},
	'medium writes all the time': (_req, res) => tick(res, 1 << 20),
	'a piped stream': (_req, res) => {
		const source = new Readable({ read: () => source.push(Buffer.alloc(65_536)) })
		source.pipe(res)
	},
	'a pipeline': (_req, res) => {
		const source = new Readable({ read: () => source.push(Buffer.alloc(65_536)) })
		return pipeline(source, res).catch(() => {})
	},
	'writes that heed drain': async (_req, res) => {
		let open = true
		let wake = (): void => {}
		res.on('drain', () => wake())
		res.on('close', () => {
			open = false
			wake()
		})
		while (open) {
			if (res.write(Buffer.alloc(65_536))) continue
			await new Promise<void>((resolve) => {
				wake = resolve
			})
		}
		res.end()
	},
}

/** Below the frameworks all is the same, but for how a handler is seen to be done. */
const some = places.filter(
	({ framework, transport }) =>
		framework === 'node:http' ||
		framework === 'Koa 3' ||
		(framework === 'Express 5' && transport === 'HTTP/1'),
)

const untilOver = { capacity: 1, maxQueue: 0, abandonedTimeout: Number.POSITIVE_INFINITY }

describe.for(some)('$framework over $transport', { concurrent: true }, (place: Place) => {
	const h2 = place.transport === 'HTTP/2'

	test.each(Object.entries(sends))(
		'%s: a client that reads nothing is cut off',
		async (_name, send) => {
			let begun = 0
			const handler: Handler = (req, res) => {
				begun++
				return req.url === '/after' ? res.end('after') : send(req, res)
			}
			const options = { ...untilOver, stallTimeout: STALL }
			await using running = await start(place, { handler, options })
			const asked = performance.now()
			let held = 0
			running.limiter.observe({
				released() {
					held = performance.now() - asked
				},
			})
			const visit = running.visit('/', { paused: true })
			await until(() => begun === 1 && running.limiter.active === 0)
			expect(held).toBeGreaterThan(STALL / 2)
			expect(running.limiter.stats()).toMatchObject({ admitted: 1, completed: 0, abandoned: 1 })
			visit.resume()
			expect(await visit.ended).toBe('cut')
			const after = running.visit('/after')
			expect(await after.ended).toBe('clean')
		},
	)

	const steady = ['one large end(buffer)', 'a piped stream', 'writes that heed drain', 'a pipeline']
	test.each(steady)('%s: a client that reads slowly is left alone', async (name) => {
		const options = { ...untilOver, stallTimeout: STALL }
		await using running = await start(place, { handler: sends[name] as Handler, options })
		const readSlowly = async () => {
			const { abandoned } = running.limiter.stats()
			const begun = performance.now()
			const visit = running.visit('/', { paused: true })
			await until(() => visit.status === 200)
			for (let last = begun; ; ) {
				await sleep(STALL / 20)
				const now = performance.now()
				// On a busy machine, this client itself may have stalled, in its last read too.
				if (now - last > 0.75 * STALL) {
					visit.leave()
					await until(() => running.limiter.active === 0)
					return undefined
				}
				expect(visit.end).toBeUndefined()
				if (now - begun > 4 * STALL) break
				// At a steady pace: the kernel tells the server only of large pieces that were read.
				await visit.read((now - last) * (h2 ? 2_000 : 5_000))
				last = now
			}
			expect(running.limiter.stats()).toMatchObject({ active: 1, abandoned })
			return { visit, abandoned }
		}
		let steadyVisit = await readSlowly()
		while (steadyVisit === undefined) steadyVisit = await readSlowly()
		const { visit, abandoned } = steadyVisit
		if (name === 'one large end(buffer)') {
			visit.resume()
			expect(await visit.ended).toBe('clean')
			expect(visit.body.length).toBe(LARGE)
			await until(() => running.limiter.active === 0)
			expect(running.limiter.stats().abandoned).toBe(abandoned)
		}
	})

	test('small writes to a client that reads them are no reason, at any pace', async () => {
		const handler: Handler = async (_req, res) => {
			for (let i = 0; i < 6; i++) {
				res.write(`data: ${i}\n\n`)
				await sleep(STALL / 2)
			}
			await sleep(2 * STALL)
			res.end('over')
		}
		const options = { ...untilOver, stallTimeout: STALL }
		await using running = await start(place, { handler, options })
		const visit = running.visit('/')
		expect(await visit.ended).toBe('clean')
		expect(visit.body).toContain('over')
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ completed: 1, abandoned: 0 })
	})

	test('a handler that works for long, with nothing to send, is no stalled client', async () => {
		const handler: Handler = async (_req, res) => {
			await sleep(3 * STALL)
			res.end('worked')
		}
		const options = { ...untilOver, stallTimeout: STALL }
		await using running = await start(place, { handler, options })
		const plain = running.visit('/')
		expect(await plain.ended).toBe('clean')
		await until(() => running.limiter.active === 0)
		const upload = running.visit('/', { method: 'POST', body: 'all of it' })
		expect(await upload.ended).toBe('clean')
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ completed: 2, abandoned: 0 })
	})

	test('an upload that the handler does not read for long is not the client’s fault', async () => {
		let bytes = 0
		const handler: Handler = async (req, res) => {
			await sleep(3 * STALL)
			for await (const chunk of req) bytes += chunk.length
			res.end('read')
		}
		const options = { ...untilOver, stallTimeout: STALL }
		await using running = await start(place, { handler, options })
		const upload = running.visit('/', { method: 'POST', body: 'x'.repeat(4 << 20) })
		expect(await upload.ended).toBe('clean')
		expect(bytes).toBe(4 << 20)
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ completed: 1, abandoned: 0 })
	})

	test('an upload that comes slowly is left alone', async () => {
		let bytes = 0
		const handler: Handler = async (req, res) => {
			for await (const chunk of req) bytes += chunk.length
			res.end('thanks')
		}
		const options = { ...untilOver, stallTimeout: STALL }
		await using running = await start(place, { handler, options })
		const upload = running.visit('/', { method: 'POST', body: 'to follow' })
		for (let i = 0; i < 10; i++) {
			upload.stream.write('x')
			await sleep(STALL / 3)
		}
		upload.stream.end()
		expect(await upload.ended).toBe('clean')
		expect(bytes).toBe(10)
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ completed: 1, abandoned: 0 })
	})

	test.runIf(h2).each(['before its first byte', 'in the middle'])(
		'an upload that stalls %s is reset, and counts as abandoned',
		async (where) => {
			const handler: Handler = async (req, res) => {
				try {
					for await (const _ of req);
				} catch {}
				res.end('thanks')
			}
			const options = { ...untilOver, stallTimeout: STALL }
			await using running = await start(place, { handler, options })
			const upload = running.visit('/', { method: 'POST', body: 'to follow' })
			if (where === 'in the middle') upload.stream.write('abc')
			await until(() => running.limiter.active === 1)
			await sleep(STALL / 2)
			expect(running.limiter.active).toBe(1)
			await until(() => running.limiter.active === 0)
			expect(await upload.ended).toBe('cut')
			expect(running.limiter.stats()).toMatchObject({ admitted: 1, completed: 0, abandoned: 1 })
			const after = running.visit('/after')
			expect(await after.ended).toBe('clean')
		},
	)

	test.runIf(h2)('a stalled stream is reset alone: the others of its session go on', async () => {
		const streams: Writable[] = []
		const handler: Handler = (req, res) => {
			if (req.url === '/quick') return res.end('quick')
			streams.push(res)
			res.write(req.url === '/stalled' ? Buffer.alloc(LARGE) : 'small')
			return undefined
		}
		const options = { ...untilOver, capacity: 3, stallTimeout: STALL }
		await using running = await start(place, { handler, options })
		const stalled = running.visit('/stalled', { paused: true })
		const other = running.visit('/other')
		await until(() => streams.length === 2)
		await until(() => running.limiter.stats().abandoned === 1 || stalled.end !== undefined)
		expect(other.end).toBeUndefined()
		expect(await running.visit('/quick').ended).toBe('clean')
		for (const res of streams) res.end()
		expect(await other.ended).toBe('clean')
		expect(await stalled.ended).toBe('cut')
		await until(() => running.limiter.active === 0)
	})
})

describe.each(some)('$framework over $transport, by a clock of the test’s', (place: Place) => {
	beforeEach(() => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] })
	})

	afterEach(() => {
		vi.useRealTimers()
	})

	/** A client that reads nothing of a large answer. */
	async function stalled(
		options: object,
	): Promise<Awaited<ReturnType<typeof start>> & { cut(): boolean }> {
		let closed = false
		const handler: Handler = (_req, res) => {
			res.on('close', () => {
				closed = true
			})
			res.end(Buffer.alloc(LARGE))
		}
		const running = await start(place, { handler, options: { ...untilOver, ...options } })
		const visit = running.visit('/', { paused: true })
		await eventually(() => visit.status === 200)
		for (let i = 0; i < 100; i++) await new Promise(setImmediate)
		return { ...running, cut: () => closed }
	}

	async function advance(ms: number, by: number): Promise<void> {
		for (let at = 0; at < ms; at += by) {
			vi.advanceTimersByTime(by)
			for (let i = 0; i < 3; i++) await new Promise(setImmediate)
		}
	}

	test('by default, after 60 s and before 120 s', async () => {
		await using running = await stalled({})
		await advance(59_000, 1000)
		expect(running.cut()).toBe(false)
		expect(running.limiter.active).toBe(1)
		await advance(61_000, 1000)
		await eventually(() => running.limiter.active === 0)
		expect(running.limiter.stats().abandoned).toBe(1)
	})

	test('stallTimeout Infinity: never', async () => {
		await using running = await stalled({ stallTimeout: Number.POSITIVE_INFINITY })
		await advance(3_600_000, 10_000)
		expect(running.cut()).toBe(false)
		expect(running.limiter.active).toBe(1)
	})
})

/** Ends of an answer without a byte of a body. */
const ends: Record<string, (res: ServerResponse) => unknown> = {
	'an empty chunk': (res) => res.end(''),
	'a reset': (res) => (res as unknown as { stream: ServerHttp2Stream }).stream.close(8),
}

describe.each(some.filter(({ transport }) => transport === 'HTTP/2'))(
	'$framework over $transport',
	(place) => {
		test.each(Object.entries(ends))(
			'%s, for a client that takes nothing from its whole connection: it is cut off',
			async (_name, end) => {
				const work = workshop((req, res) =>
					req.url === '/large' ? res.end(Buffer.alloc(2 * LARGE)) : end(res),
				)
				const options = { capacity: 2, abandonedTimeout: 0, stallTimeout: STALL }
				await using running = await start(place, { handler: work.handler, options })
				const proxy = net.createServer((near) => {
					const far = net.connect(running.port, '127.0.0.1')
					near.on('error', () => far.destroy()).pipe(far)
					far.on('error', () => near.destroy()).pipe(near)
					far.once('data', () => {
						proxy.once('stop', () => far.unpipe(near).pause())
					})
				})
				await once(proxy.listen(0, '127.0.0.1'), 'listening')
				const { port } = proxy.address() as AddressInfo
				const session = http2.connect(`http://127.0.0.1:${port}`, {
					settings: { initialWindowSize: 4 * LARGE },
				})
				session.on('error', () => {})
				await once(session, 'remoteSettings')
				session.setLocalWindowSize(4 * LARGE)
				await new Promise<void>((resolve) => session.ping(() => resolve()))
				for (const path of ['/large', '/small']) {
					session.request({ ':path': path }).on('error', () => {})
				}
				await until(() => work.begun.length === 2)
				proxy.emit('stop')
				work.finish('/large')
				await until(() => running.limiter.active === 1)
				work.finish('/small')
				await until(() => running.limiter.active === 0)
				expect(running.limiter.stats()).toMatchObject({ completed: 0, abandoned: 2 })
				session.destroy()
				proxy.close()
			},
		)
	},
)

describe.each(some.filter(({ transport }) => transport === 'HTTP/1'))('$framework', (place) => {
	test('what is cut is destroyed, though its client waits for the rest', async () => {
		const handler: Handler = (_req, res) => res.end(Buffer.alloc(LARGE))
		await using running = await start(place, {
			handler,
			options: { ...untilOver, stallTimeout: STALL },
		})
		const client = await rawClient(running.port, 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
		client.socket.pause()
		await until(() => running.limiter.active === 1)
		await until(() => running.limiter.active === 0)
		client.socket.resume()
		await client.closed
		expect(client.text().length).toBeLessThan(LARGE)
	})

	test('a stalled answer takes those that are pipelined behind it along, unserved', async () => {
		let behind = 0
		const handler: Handler = (req, res) => {
			if (req.url === '/behind') behind++
			res.end(Buffer.alloc(LARGE))
		}
		await using running = await start(place, {
			handler,
			options: { ...untilOver, stallTimeout: STALL },
		})
		const requests = ['/', '/behind', '/behind'].map(
			(path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
		)
		const client = await rawClient(running.port, requests.join(''))
		client.socket.pause()
		await until(() => running.limiter.active === 1)
		await until(() => running.limiter.active === 0)
		await sleep(20)
		expect(behind).toBe(0)
		expect(running.limiter.queued).toBe(0)
		client.socket.destroy()
	})
})
