import { once } from 'node:events'
import { Agent, createServer, get } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import { describe, expect, test } from 'vitest'
import { limit } from '../../adapters/express.js'
import { EventLoopMonitor, eventLoop } from '../../src/adaptive/event-loop.js'
import { adaptive } from '../../src/adaptive/index.js'

/** A monitor of its own, and the loop that it watches: its times and turns are the test's. */
function loop() {
	const times = { idle: 0, active: 60_000 }
	let next: (() => void)[] = []
	const monitor = new EventLoopMonitor({ times: () => ({ ...times }), nextTurn: (run) => next.push(run) })
	return {
		monitor,
		/** Arrivals on connections of their own, or on those given, each after so many ms of work and of waiting. */
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
		/** How many of those that come back to back, each with 10 ms of work, are let in before one is rejected. */
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
		expect([one.monitor.draining, other.monitor.draining, eventLoop.draining]).toEqual([true, false, false])
	})

	test('a loop that pauses now and then never does', () => {
		expect(loop().arrivals(1000, 19, 1)).not.toContain(true)
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
		const rejected = Array.from({ length: 5 }, () => arrivals(1600, 1, 0, sockets).filter(Boolean).length)
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
		// 100 ms of 10 each, and the longest: twice as long each time, to 1.6 s, as long as less than 100 ms of work stood.
		expect(allowed).toEqual([11, 22, 42, 82, 162, 162, 162, 82, 12])
	})
})

test('on a real server, those who come after 100 ms of computing without a pause are rejected', async () => {
	const middleware = limit({ capacity: adaptive() })
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
		const statuses = await Promise.all(Array.from({ length: 20 }, ask))
		// At least 100 ms of 20 each are let in, and the longest piece beside.
		expect(statuses.filter((status) => status === '200').length).toBeGreaterThanOrEqual(5)
		expect(statuses).toContain('503')
		expect(middleware.limiter.active).toBe(0)
		// The loop waits for a timer, so it has caught up.
		await new Promise((resolve) => setTimeout(resolve, 20))
		expect(await ask()).toBe('200')
	} finally {
		server.close()
	}
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
