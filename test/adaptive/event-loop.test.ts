import { once } from 'node:events'
import { Agent, createServer, get } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { limit } from '../../adapters/express.js'
import { adaptive } from '../../src/adaptive/index.js'

/** The loop's times, under the test's control. */
const times = { idle: 0, active: 60_000, utilization: 1 }

type IsLate = (request: object) => boolean

/** A process of its own, so to speak: it has seen no request yet. */
async function fresh(): Promise<IsLate> {
	vi.resetModules()
	return (await import('../../src/adaptive/event-loop.js')).loopIsLate
}

/** Arrivals on connections of their own, or on those given, each after so many ms of work and of waiting for events. */
function arrivals(
	loopIsLate: IsLate,
	count: number,
	work: number,
	wait = 0,
	sockets: object[] = [],
): boolean[] {
	return Array.from({ length: count }, (_, i) => {
		times.active += work
		times.idle += wait
		return loopIsLate({ socket: sockets[i % sockets.length] ?? {} })
	})
}

/** So many turns of the real loop, in which nothing comes. */
async function turns(count: number): Promise<void> {
	for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** How many of those who come back to back, each with 10 ms of work, are let in before one is refused. */
function letIn(loopIsLate: IsLate): number {
	let count = 0
	while (!arrivals(loopIsLate, 1, 10)[0]) count++
	return count
}

describe('by the loop’s own times', () => {
	beforeEach(() => {
		vi.spyOn(performance, 'eventLoopUtilization').mockImplementation(() => ({ ...times }))
	})
	afterEach(() => vi.restoreAllMocks())

	test('what the process computed before its first request is no queue', async () => {
		expect((await fresh())({})).toBe(false)
	})

	test('a loop that has been at work for long without a pause refuses, until turns of it are empty', async () => {
		const loopIsLate = await fresh()
		loopIsLate({})
		// The longest piece, one of 10 ms, does not count.
		expect(arrivals(loopIsLate, 11, 10, 0.01)).toEqual(Array(11).fill(false))
		expect(arrivals(loopIsLate, 3, 0.2, 0.01)).toEqual([true, true, true])
		await turns(2)
		expect(arrivals(loopIsLate, 10, 0.2)).toEqual(Array(10).fill(true))
		await turns(5)
		expect(arrivals(loopIsLate, 12, 10)).toEqual(Array(12).fill(false))
		expect(arrivals(loopIsLate, 1, 1)).toEqual([true])
	})

	test('a loop that pauses now and then never does', async () => {
		expect(arrivals(await fresh(), 1000, 19, 1)).not.toContain(true)
	})

	test('one long pause of the process delays, but refuses nobody', async () => {
		const loopIsLate = await fresh()
		loopIsLate({})
		expect(arrivals(loopIsLate, 1, 1000)).toEqual([false])
		expect(arrivals(loopIsLate, 30, 1)).not.toContain(true)
		// A second one is a habit.
		expect(arrivals(loopIsLate, 1, 1000)).toEqual([true])
	})

	test('a few clients that ask again at once are no queue: once each is refused, they are let in, and for ever longer', async () => {
		const loopIsLate = await fresh()
		const sockets = [{}, {}, {}, {}]
		const refused = Array.from(
			{ length: 5 },
			() => arrivals(loopIsLate, 1600, 1, 0, sockets).filter(Boolean).length,
		)
		// Seven each time: the first on each connection, and others until the fourth that is not.
		expect(refused.map((count) => count / 7)).toEqual([4, 1, 1, 1, 1])
	})

	test('a request without a socket is one of its own', async () => {
		const loopIsLate = await fresh()
		letIn(loopIsLate)
		expect([loopIsLate({ socket: null }), loopIsLate({}), loopIsLate({ socket: undefined })]).toEqual([
			true,
			true,
			true,
		])
	})

	test('it may be at work for longer when little stood, and for less long when much did', async () => {
		const loopIsLate = await fresh()
		loopIsLate({})
		const allowed = []
		for (const standing of [2, 2, 2, 2, 2, 2, 20, 200, 200]) {
			allowed.push(letIn(loopIsLate))
			// One was refused already.
			arrivals(loopIsLate, standing - 1, 0.1)
			await turns(5)
		}
		// 100 ms of 10 each, and the longest: twice as long each time, to 1.6 s, as long as what stood was less than 100 ms of work.
		expect(allowed).toEqual([11, 22, 42, 82, 162, 162, 162, 82, 12])
	})
})

test('on a real server, those who come after 100 ms of computing without a pause are refused', async () => {
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

test('on a real server, a job in the background that never lets the loop wait refuses hardly anybody', async () => {
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
