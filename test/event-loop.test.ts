import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import { afterEach, expect, test, vi } from 'vitest'
import { limit } from '../adapters/express.js'
import { adaptive } from '../src/adaptive.js'
import { loopIsLate } from '../src/event-loop.js'

let active = 60_000

/** The loop's time at work, under the test's control. */
function control(): void {
	vi.spyOn(performance, 'eventLoopUtilization').mockImplementation(() => ({
		active,
		idle: 0,
		utilization: 1,
	}))
}

/** The present turn ends, and with it whatever an earlier test has left. */
async function turn(): Promise<void> {
	await new Promise(setImmediate)
	await new Promise(setImmediate)
}

afterEach(async () => {
	vi.restoreAllMocks()
	await turn()
})

test('what the process computed before its first request is no turn', async () => {
	vi.resetModules()
	control()
	const fresh = await import('../src/event-loop.js')
	expect(fresh.loopIsLate()).toBe(false)
})

test('who comes late in a turn of a busy loop is refused, until the next turn', async () => {
	control()
	expect(loopIsLate()).toBe(false)
	active += 50
	expect(loopIsLate()).toBe(false)
	active += 1
	expect(loopIsLate()).toBe(true)
	await turn()
	expect(loopIsLate()).toBe(false)
})

test('a pause between two turns refuses nobody', async () => {
	control()
	expect(loopIsLate()).toBe(false)
	await turn()
	active += 1000
	expect(loopIsLate()).toBe(false)
	active += 10
	expect(loopIsLate()).toBe(false)
})

test('a loop that waits for events is not late', async () => {
	expect(loopIsLate()).toBe(false)
	await new Promise((resolve) => setTimeout(resolve, 100))
	expect(loopIsLate()).toBe(false)
	await turn()
	for (let i = 0; i < 5; i++) {
		expect(loopIsLate()).toBe(false)
		await new Promise((resolve) => setTimeout(resolve, 20))
	}
})

test('on a real server, those read after 50 ms of computing in one turn are refused', async () => {
	const middleware = limit({ capacity: adaptive() })
	let block = false
	const server = createServer((req, res) => {
		middleware(req, res, () => {
			const end = performance.now() + (block ? 20 : 0)
			while (performance.now() < end);
			res.end('ok')
		})
	})
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const { port } = server.address() as AddressInfo
	const sockets = Array.from({ length: 12 }, () => connect(port, '127.0.0.1').setEncoding('latin1'))
	const ask = () =>
		Promise.all(
			sockets.map((socket) => {
				socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
				return new Promise<string>((resolve) => socket.once('data', (data) => resolve(String(data))))
			}),
		)
	try {
		// All connections are open before it counts: Node accepts one in a turn.
		await ask()
		block = true
		const statuses = (await ask()).map((answer) => answer.slice(9, 12))
		expect(statuses.filter((status) => status === '200').length).toBeGreaterThan(1)
		expect(statuses).toContain('503')
		expect(middleware.limiter.active).toBe(0)
	} finally {
		for (const socket of sockets) socket.destroy()
		server.close()
	}
})
