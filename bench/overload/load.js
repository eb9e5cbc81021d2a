import http from 'node:http'
import { randomFrom } from './random.js'

/**
 * An open-loop load on a real server: Poisson arrivals, clients that give up after a deadline and try once more.
 *
 * @param {number} port
 * @param {{ rate: number, seconds: number, warmup: number, deadline: number, seed: number }} load `rate` in requests a second
 */
export async function load(port, { rate, seconds, warmup, deadline, seed }) {
	const random = randomFrom(seed)
	const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 512 })
	/** @type {number[]} */
	const latencies = []
	let open = 0

	/** @param {boolean} counted @param {number} left */
	const attempt = (counted, left) => {
		const since = performance.now()
		let over = false
		const finish = (/** @type {boolean} */ good) => {
			if (over) return
			over = true
			clearTimeout(timer)
			if (good && counted) latencies.push(performance.now() - since)
			if (!good && left > 0) setTimeout(() => attempt(counted, left - 1), 100 * (0.5 + random.next()))
		}
		open++
		const req = http.get(
			{ agent, port, host: '127.0.0.1', path: `/?work=${random.exponential(1)}` },
			(res) => {
				res.resume().on('end', () => finish(res.statusCode === 200))
			},
		)
		req.on('error', () => finish(false)).on('close', () => open--)
		const timer = setTimeout(() => {
			req.destroy()
			finish(false)
		}, deadline)
	}

	const begin = performance.now()
	const end = begin + (warmup + seconds) * 1000
	let next = begin
	while (next < end) {
		const now = performance.now()
		for (; next <= now && next < end; next += random.exponential(1000 / rate)) {
			// Beyond this, another client would only find no port.
			if (open < 8000) attempt(next >= begin + warmup * 1000, 1)
		}
		await new Promise((resolve) => setTimeout(resolve, 1))
	}
	await new Promise((resolve) => setTimeout(resolve, deadline))
	agent.destroy()
	latencies.sort((a, b) => a - b)
	return { goodput: latencies.length / seconds, p99: latencies[Math.floor(0.99 * latencies.length)] ?? 0 }
}
