import net from 'node:net'
import { randomFrom } from './random.js'

/** Beyond this, another client would only find no port. */
const MOST_CONNECTIONS = 8000

/**
 * Like a proxy in front of the server: an idle connection is used again, the last one first, and
 * when there is none a new one is opened; a client that gives up closes it. Bare sockets, as what
 * the load costs must not be what is measured.
 *
 * @param {number} port @param {boolean} kept whether connections are used again
 */
function connectionsTo(port, kept) {
	/** @type {Connection[]} */
	const idle = []
	let open = 0

	/**
	 * @typedef {{ socket: net.Socket, answered: ((status: number) => void) | undefined }} Connection
	 */
	const connect = () => {
		open++
		const socket = net.connect({ port, host: '127.0.0.1', noDelay: true })
		/** @type {Connection} */
		const connection = { socket, answered: undefined }
		let text = ''
		socket.setEncoding('latin1')
		socket.on('data', (data) => {
			text += data
			const head = text.indexOf('\r\n\r\n')
			if (head === -1) return
			const length = Number(/^content-length: (\d+)/im.exec(text)?.[1])
			if (text.length < head + 4 + length) return
			const { answered } = connection
			const status = Number(text.slice(9, 12))
			text = ''
			connection.answered = undefined
			if (kept) idle.push(connection)
			else socket.destroy()
			answered?.(status)
		})
		socket.on('error', () => {})
		socket.on('close', () => {
			open--
			const at = idle.indexOf(connection)
			if (at !== -1) idle.splice(at, 1)
			connection.answered?.(0)
			connection.answered = undefined
		})
		return connection
	}

	return {
		/**
		 * @param {string} path @param {(status: number) => void} answered with 0 when there was no
		 * answer
		 * @returns {(() => void) | undefined} gives up; `undefined` when there was no connection to be
		 * had
		 */
		send(path, answered) {
			const connection = idle.pop() ?? (open < MOST_CONNECTIONS ? connect() : undefined)
			if (connection === undefined) return undefined
			connection.answered = answered
			connection.socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
			return () => {
				connection.answered = undefined
				connection.socket.destroy()
			}
		},
		close() {
			for (const { socket } of idle) socket.destroy()
		},
	}
}

/**
 * @typedef {object} Figures
 * @property {number} goodput right answers within the deadline, a second
 * @property {number} p99 of those, in ms
 * @property {number} planned requests a second
 * @property {number} offered attempts a second, the second ones of those that failed among them
 * @property {number} late the longest that an attempt was sent after its time, in ms: the load's own fault
 */

/**
 * An open-loop load on a real server: Poisson arrivals, clients that give up after a deadline and
 * try once more. Times count from when a request was due, whenever it was sent.
 *
 * @param {number} port
 * @param {{ rate: number, seconds: number, warmup: number, deadline: number, seed: number, kept:
 * boolean }} load `rate` in requests a second
 * @returns {Promise<Figures>}
 */
export async function load(port, { rate, seconds, warmup, deadline, seed, kept }) {
	const random = randomFrom(seed)
	const connections = connectionsTo(port, kept)
	/** @type {number[]} */
	const latencies = []
	let [planned, offered, late] = [0, 0, 0]

	/** @param {number} due @param {boolean} counted @param {boolean} again */
	const attempt = (due, counted, again) => {
		const fail = () => {
			if (!again) return
			const pause = 100 * (0.5 + random.next())
			setTimeout(() => attempt(performance.now(), counted, false), pause)
		}
		const giveUp = connections.send(`/?work=${random.exponential(1).toFixed(4)}`, (status) => {
			clearTimeout(timer)
			if (status !== 200) fail()
			else if (counted && performance.now() - due <= deadline)
				latencies.push(performance.now() - due)
		})
		if (giveUp === undefined) return fail()
		if (counted) offered++
		const timer = setTimeout(
			() => {
				giveUp()
				fail()
			},
			deadline - (performance.now() - due),
		)
	}

	const begin = performance.now()
	const end = begin + (warmup + seconds) * 1000
	let next = begin
	while (next < end) {
		const now = performance.now()
		for (; next <= now && next < end; next += random.exponential(1000 / rate)) {
			const counted = next >= begin + warmup * 1000
			if (counted) planned++
			late = Math.max(late, now - next)
			attempt(next, counted, true)
		}
		await new Promise((resolve) => setTimeout(resolve, 1))
	}
	// Until the last one has given up.
	await new Promise((resolve) => setTimeout(resolve, deadline + 150))
	connections.close()
	latencies.sort((a, b) => a - b)
	return {
		goodput: latencies.length / seconds,
		p99: latencies[Math.floor(0.99 * latencies.length)] ?? 0,
		planned: planned / seconds,
		offered: offered / seconds,
		late,
	}
}
