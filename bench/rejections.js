// `npm run bench:rejections`: what a rejection costs, and how much 20,000 of them a second slow
// down the requests that are at work.
import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { fileURLToPath } from 'node:url'
import { limit } from 'inflight-limit/express'
import { exchange, fakeSocket } from './exchange.js'
import { compare, median, printMachine, printMissed, printRow, printTitle } from './harness.js'

const BODY = JSON.stringify({
	type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity',
	title: 'Request cannot be satisfied due to temporary server capacity constraints',
	status: 503,
	detail: 'Too many requests are being worked on. Try again in 1 s.',
	reason: 'queue-full',
})

/** The same answer, by hand and without a limiter: the least that a rejection can cost. */
const BARE = 'the same answer, by hand'
const OURS = 'inflight-limit'

/**
 * @type {Record<string, () => import('inflight-limit/express').Middleware | http.RequestListener>}
 */
const rejecters = {
	[BARE]: () => (/** @type {unknown} */ _req, /** @type {http.ServerResponse} */ res) => {
		const headers = {
			'Retry-After': '1',
			'Content-Type': 'application/problem+json',
			'Content-Length': String(Buffer.byteLength(BODY)),
		}
		res.writeHead(503, headers).end(BODY)
	},
	[OURS]: () => limit({ capacity: 1, maxQueue: 0 }),
}

const noHandler = () => undefined

/**
 * CPU of a rejection, from the request object to the end of the response, over real `http` objects.
 */
async function inProcess() {
	const REJECTIONS = 20_000
	await compare(
		'a rejection in process',
		Object.entries(rejecters).map(([name, make]) => {
			const middleware = /** @type {any} */ (make())
			// The only permit is taken, and stays so.
			if (name === OURS) exchange(fakeSocket(), middleware, noHandler)
			const socket = fakeSocket()
			return {
				name,
				async run() {
					for (let i = 0; i < REJECTIONS; i++)
						assert.equal((await exchange(socket, middleware, noHandler)).statusCode, 503)
				},
			}
		}),
		{ rounds: 21, operations: REJECTIONS },
	)
}

/**
 * In the child: a server that rejects all requests but those for /work, which take ten steps of 10
 * ms.
 */
function serve(/** @type {string} */ name) {
	const reject = /** @type {any} */ (rejecters[name])()
	let rejected = 0
	const server = http.createServer((req, res) => {
		if (req.url === '/work') return work(req, res)
		rejected++
		reject(req, res, () => undefined)
	})
	/** @type {http.RequestListener} */
	const work = async (_req, res) => {
		const start = performance.now()
		for (let i = 0; i < 10; i++) await new Promise((resolve) => setTimeout(resolve, 10))
		res.end(String(performance.now() - start))
	}
	server.listen(0, '127.0.0.1', () =>
		process.send?.(/** @type {net.AddressInfo} */ (server.address()).port),
	)
	process.on('message', () => {
		process.send?.({ rejected, cpu: process.cpuUsage() })
		rejected = 0
	})
}

/**
 * Sends requests at a rate, spread over connections and as evenly as timers allow, whatever is
 * answered.
 */
function flood(/** @type {number} */ port, /** @type {number} */ perSecond) {
	const sockets = Array.from({ length: 20 }, () => net.connect(port, '127.0.0.1').resume())
	const request = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'
	let sent = 0
	const start = performance.now()
	const timer = setInterval(() => {
		const due = Math.floor(((performance.now() - start) * perSecond) / 1000 / sockets.length)
		if (due > sent) for (const socket of sockets) socket.write(request.repeat(due - sent))
		sent = Math.max(sent, due)
	}, 2)
	return () => {
		clearInterval(timer)
		for (const socket of sockets) socket.destroy()
	}
}

/** @param {number} port @returns {Promise<number>} how long ten steps of 10 ms took, in ms */
async function workTime(port) {
	const answer = await fetch(`http://127.0.0.1:${port}/work`)
	return Number(await answer.text())
}

async function realServer() {
	printTitle('at work while others are rejected', ['time', 'rejected/s', 'CPU, %'])
	const RATE = 20_000
	/** @type {Map<string, { time: number, rate: number, cpu: number }[]>} */
	const results = new Map()
	const servers = new Map()
	for (const name of Object.keys(rejecters)) {
		const child = fork(fileURLToPath(import.meta.url), [name])
		const [port] = await once(child, 'message')
		servers.set(name, { child, port })
		// Takes the only permit for good.
		if (name === OURS)
			net.connect(port, '127.0.0.1').write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
	}
	for (let round = 0; round < 5; round++) {
		for (const [name, { child, port }] of servers) {
			for (const rate of [0, RATE]) {
				const stop = rate === 0 ? () => undefined : flood(port, rate)
				await new Promise((resolve) => setTimeout(resolve, 300))
				const before = await askChild(child)
				const start = performance.now()
				/** @type {number[]} */
				const times = []
				for (let i = 0; i < 8; i++) times.push(await workTime(port))
				const seconds = (performance.now() - start) / 1000
				const after = await askChild(child)
				stop()
				await new Promise((resolve) => setTimeout(resolve, 100))
				const label = rate === 0 ? `${name}: nobody` : `${name}: ${rate}/s`
				const own = results.get(label) ?? []
				if (round === 0) results.set(label, own)
				const used = after.cpu.user + after.cpu.system - before.cpu.user - before.cpu.system
				own.push({ time: median(times), rate: after.rejected / seconds, cpu: used / seconds / 1e4 })
			}
		}
	}
	for (const { child } of servers.values()) child.kill()
	for (const [label, own] of results) {
		const base = results.get(label.replace(/: .*/, ': nobody')) ?? []
		printRow(label, [
			median(own.map(({ time }, i) => time / (base[i]?.time ?? 0))),
			median(own.map(({ rate }) => rate)).toFixed(0),
			median(own.map(({ cpu }) => cpu)).toFixed(0),
		])
	}
}

/** @param {import('node:child_process').ChildProcess} child */
async function askChild(child) {
	child.send('figures')
	const [figures] = await once(child, 'message')
	return /** @type {{ rejected: number, cpu: NodeJS.CpuUsage }} */ (figures)
}

const [name] = process.argv.slice(2)
if (name !== undefined && process.send !== undefined) {
	serve(name)
} else {
	printMachine()
	await inProcess()
	await realServer()
	printMissed()
}
