import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { limit } from '../adapters/express.js'
import { adaptive } from '../src/adaptive.js'

/** The loop's times, under the test's control. */
const times = { idle: 0, active: 60_000, utilization: 1 }

/** A process of its own, so to speak: it has seen no request yet. */
async function fresh(): Promise<() => boolean> {
	vi.resetModules()
	return (await import('../src/event-loop.js')).loopIsLate
}

/** Arrivals, each after so many ms of work and of waiting for events. */
function arrivals(loopIsLate: () => boolean, count: number, work: number, wait = 0): boolean[] {
	return Array.from({ length: count }, () => {
		times.active += work
		times.idle += wait
		return loopIsLate()
	})
}

describe('by the loop’s own times', () => {
	beforeEach(() => {
		vi.spyOn(performance, 'eventLoopUtilization').mockImplementation(() => ({ ...times }))
	})
	afterEach(() => vi.restoreAllMocks())

	test('what the process computed before its first request is no queue', async () => {
		expect((await fresh())()).toBe(false)
	})

	test('a loop that has been at work for long without a pause refuses, until it pauses', async () => {
		const loopIsLate = await fresh()
		loopIsLate()
		// The longest piece, one of 10 ms, does not count.
		expect(arrivals(loopIsLate, 11, 10, 0.01)).toEqual(Array(11).fill(false))
		expect(arrivals(loopIsLate, 3, 0.2, 0.01)).toEqual([true, true, true])
		expect(arrivals(loopIsLate, 1, 0.2, 1)).toEqual([false])
		expect(arrivals(loopIsLate, 11, 10)).toEqual(Array(11).fill(false))
		expect(arrivals(loopIsLate, 1, 1)).toEqual([true])
	})

	test('a loop that pauses now and then never does', async () => {
		expect(arrivals(await fresh(), 1000, 19, 1)).not.toContain(true)
	})

	test('one long pause of the process delays, but refuses nobody', async () => {
		const loopIsLate = await fresh()
		loopIsLate()
		expect(arrivals(loopIsLate, 1, 1000)).toEqual([false])
		expect(arrivals(loopIsLate, 30, 1)).not.toContain(true)
		// A second one is a habit.
		expect(arrivals(loopIsLate, 1, 1000)).toEqual([true])
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
