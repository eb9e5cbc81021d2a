import { once } from 'node:events'
import { Agent, createServer, get } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import { describe, expect, test, vi } from 'vitest'
import { limit } from '../../adapters/express.js'
import { EventLoopMonitor, eventLoop } from '../../src/adaptive/event-loop.js'
import { adaptive } from '../../src/adaptive/index.js'
import { enter } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'

/** A monitor of its own, and the loop that it watches: its times and turns are the test's. */
function loop(active = 60_000) {
	const times = { idle: 0, active }
	let next: (() => void)[] = []
	const monitor = new EventLoopMonitor({
		times: () => ({ ...times }),
		nextTurn: (run) => next.push(run),
	})
	return {
		monitor,
		/**
		 * Arrivals on connections of their own, or on those given, each after so many ms of work and of
		 * waiting.
		 */
		arrivals(count: number, work: number, wait = 0, sockets: object[] = []): boolean[] {
			return Array.from({ length: count }, (_, i) => {
				times.active += work
				times.idle += wait
				return monitor.isLate({ socket: sockets[i % sockets.length] ?? {} })
			})
		},
		/** So many turns of the loop in which nothing comes. */
		turns(count: number): void {
			for (let i = 0; i < count; i++) {
				const due = next
				next = []
				for (const run of due) run()
			}
		},
		/**
		 * How many of those that come back to back, each with 10 ms of work, are let in before one is
		 * rejected.
		 */
		letIn(): number {
			let count = 0
			while (!this.arrivals(1, 10)[0]) count++
			return count
		},
	}
}

describe('by the loop’s own times', () => {
	test('what the process computed before its first request is no queue', () => {
		expect(loop().monitor.isLate({})).toBe(false)
	})

	test('a loop that worked for long without a pause rejects, until turns of it are empty', () => {
		const { monitor, arrivals, turns } = loop()
		monitor.isLate({})
		// The longest piece, one of 10 ms, does not count.
		expect(arrivals(11, 10, 0.01)).toEqual(Array(11).fill(false))
		expect(monitor.draining).toBe(false)
		expect(arrivals(3, 0.2, 0.01)).toEqual([true, true, true])
		expect(monitor.draining).toBe(true)
		turns(3)
		expect(arrivals(10, 0.2)).toEqual(Array(10).fill(true))
		turns(3)
		expect(monitor.draining).toBe(false)
		expect(arrivals(12, 10)).toEqual(Array(12).fill(false))
		expect(arrivals(1, 1)).toEqual([true])
	})

	test('two monitors know nothing of each other', () => {
		const [one, other] = [loop(), loop()]
		one.letIn()
		expect([one.monitor.draining, other.monitor.draining, eventLoop.draining]).toEqual([
			true,
			false,
			false,
		])
	})

	test('a loop that pauses now and then never does', () => {
		expect(loop().arrivals(1000, 19, 1)).not.toContain(true)
	})

	test('its state: for how long it has not paused, how busy it was, and whether it rejected in the last second', () => {
		const { monitor, arrivals, turns } = loop(0)
		expect(monitor.stats()).toEqual({ delay: 0, utilization: 0, overloaded: false })
		arrivals(1, 0, 600)
		arrivals(6, 10)
		expect(monitor.stats()).toEqual({ delay: 60, utilization: 60 / 660, overloaded: false })
		while (!arrivals(1, 10)[0]);
		expect(monitor.stats()).toMatchObject({ delay: 120, overloaded: true })
		turns(5)
		// It has paused, and nothing was rejected since.
		arrivals(1, 0, 999)
		expect(monitor.stats()).toMatchObject({ delay: 0, overloaded: true })
		expect(monitor.overloaded).toBe(true)
		arrivals(1, 0, 1)
		expect(monitor.stats()).toMatchObject({ delay: 0, overloaded: false })
		expect(monitor.overloaded).toBe(false)
	})

	test('its utilization is that of the last second or two, whatever was before', () => {
		const { monitor, arrivals } = loop(0)
		arrivals(100, 1, 99)
		expect(monitor.stats().utilization).toBeCloseTo(0.01)
		arrivals(250, 1, 9)
		expect(monitor.stats().utilization).toBeCloseTo(0.1)
		// Nobody came, and nobody asked.
		arrivals(1, 3600, 3600)
		expect(monitor.stats().utilization).toBeCloseTo(0.5, 1)
	})

	test('one long pause of the process delays, but rejects nothing', () => {
		const { monitor, arrivals } = loop()
		monitor.isLate({})
		expect(arrivals(1, 1000)).toEqual([false])
		expect(arrivals(30, 1)).not.toContain(true)
		// A second one is a habit.
		expect(arrivals(1, 1000)).toEqual([true])
	})

	test('a few clients that ask again at once are no queue: once each is rejected, they are let in, and for longer', () => {
		const { monitor, arrivals } = loop()
		monitor.isLate({})
		const sockets = [{}, {}, {}, {}]
		const rejected = Array.from(
			{ length: 5 },
			() => arrivals(1600, 1, 0, sockets).filter(Boolean).length,
		)
		// Seven each time: the first on each connection, and others until the fourth that is not.
		expect(rejected.map((count) => count / 7)).toEqual([4, 1, 1, 1, 1])
	})

	test('a request without a socket is one of its own', () => {
		const { monitor, ...rest } = loop()
		rest.letIn()
		const requests = [{ socket: null }, {}, { socket: undefined }]
		expect(requests.map((request) => monitor.isLate(request))).toEqual([true, true, true])
	})

	test('it may be at work for longer when little stood, and for less long when much did', () => {
		const watched = loop()
		watched.monitor.isLate({})
		const allowed = []
		for (const standing of [2, 2, 2, 2, 2, 2, 20, 200, 200]) {
			allowed.push(watched.letIn())
			// One was rejected already.
			watched.arrivals(standing - 1, 0.1)
			watched.turns(5)
		}
		// 100 ms of 10 each, and the longest: twice as long each time, to 1.6 s, as long as less than
		// 100 ms of work stood.
		expect(allowed).toEqual([11, 22, 42, 82, 162, 162, 162, 82, 12])
	})
})

test.each([
	['a capacity that finds itself', { capacity: adaptive() }],
	['a fixed capacity', { capacity: 1000, eventLoop: true }],
])(
	'on a real server with %s, what comes after 100 ms of computing without a pause is rejected',
	async (_what, options) => {
		const middleware = limit(options)
		const server = createServer((req, res) => {
			middleware(req, res, () => {
				const end = performance.now() + 20
				while (performance.now() < end);
				res.end('ok')
			})
		})
		await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
		const { port } = server.address() as AddressInfo
		const ask = () =>
			new Promise<string>((resolve) => {
				const socket = connect(port, '127.0.0.1').setEncoding('latin1')
				socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
				let text = ''
				socket.on('data', (data) => (text += data)).on('close', () => resolve(text.slice(9, 12)))
			})
		try {
			// The loop waits for a timer, whatever it did before.
			await new Promise((resolve) => setTimeout(resolve, 20))
			const statuses = await Promise.all(Array.from({ length: 20 }, ask))
			// 100 ms of 20 each are let in, and the longest piece beside; less what the clients take of
			// this loop.
			expect(statuses.filter((status) => status === '200').length).toBeGreaterThanOrEqual(3)
			expect(statuses).toContain('503')
			const { limiter } = middleware
			expect(limiter.active).toBe(0)
			expect(limiter.stats().rejected.overloaded).toBe(
				statuses.filter((status) => status === '503').length,
			)
			expect(limiter.overloaded).toBe(true)
			const { utilization = 0, overloaded } = limiter.stats().eventLoop ?? {}
			expect(overloaded).toBe(true)
			expect(utilization).toBeGreaterThan(0)
			expect(utilization).toBeLessThanOrEqual(1)
			expect(new Limiter(3).overloaded).toBe(false)
			// The loop waits for a timer, so it has caught up.
			await new Promise((resolve) => setTimeout(resolve, 20))
			expect(await ask()).toBe('200')
		} finally {
			server.close()
		}
	},
)

test('a closed limiter rejects with `closed`, and what is skipped is not asked about', () => {
	const isLate = vi.spyOn(eventLoop, 'isLate').mockReturnValue(true)
	const present = new AbortController().signal
	const limiter = new Limiter({
		capacity: 1,
		eventLoop: true,
		skip: (request) => 'skipped' in request,
	})
	expect(limiter[enter]({ skipped: true }, present)).toMatchObject({ tag: 'skipped' })
	expect(isLate).not.toHaveBeenCalled()
	expect(limiter[enter]({}, present)).toMatchObject({ error: { reason: 'overloaded' } })
	expect(limiter.stats()).toMatchObject({ active: 0, rejected: { overloaded: 1 } })
	limiter.close()
	expect(limiter[enter]({}, present)).toMatchObject({ error: { reason: 'closed' } })
	expect(isLate).toHaveBeenCalledTimes(1)
	isLate.mockRestore()
})

test('on a real server, a job in the background that never lets the loop wait rejects hardly any', async () => {
	const middleware = limit({ capacity: adaptive() })
	const server = createServer((req, res) => middleware(req, res, () => res.end('ok')))
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const { port } = server.address() as AddressInfo
	let working = true
	const work = (): void => {
		const end = performance.now() + 1
		while (performance.now() < end);
		if (working) setImmediate(work)
	}
	work()
	try {
		const agent = new Agent({ keepAlive: true, maxSockets: 1 })
		const statuses: (number | undefined)[] = []
		for (let i = 0; i < 100; i++) {
			const [response] = await once(get({ port, host: '127.0.0.1', agent }), 'response')
			statuses.push(response.statusCode)
			await once(response.resume(), 'end')
		}
		agent.destroy()
		expect(statuses.filter((status) => status === 503).length).toBeLessThan(20)
	} finally {
		working = false
		server.close()
	}
})
