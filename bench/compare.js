// `npm run compare`: the table of the README. What becomes of each middleware under clients that
// misbehave, over real sockets: the same server, the same handlers, the same clients for all.
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Sema } from 'async-sema'
import express from 'express'
// @ts-expect-error - it has no types
import expressQueue from 'express-queue'
import { limit } from 'inflight-limit/express'
import onFinished from 'on-finished'

const CAPACITY = 3
/** What a handler takes, in ms. */
const WORK = 150

/**
 * The middleware under test. By hand means: acquire, then release when the response says that it is
 * over.
 *
 * @typedef {(req: http.IncomingMessage, res: http.ServerResponse, next: () => void) => unknown}
 * Middleware
 * @param {(res: http.ServerResponse, release: () => void) => void} whenOver
 * @returns {() => Middleware}
 */
const byHand = (whenOver) => () => {
	const sema = new Sema(CAPACITY)
	return async (_req, res, next) => {
		await sema.acquire()
		whenOver(res, () => sema.release())
		next()
	}
}

/** @type {Record<string, () => Middleware>} */
const middlewares = {
	// The bound is 30 s unless one sets it: here as short as the patience of this program.
	'inflight-limit': () => limit({ capacity: CAPACITY, abandonedTimeout: 500 }),
	'express-queue': () => expressQueue({ activeLimit: CAPACITY, queuedLimit: -1 }),
	"async-sema, res.on('finish')": byHand((res, release) => res.once('finish', release)),
	"async-sema, res.on('close')": byHand((res, release) => res.once('close', release)),
	'async-sema, on-finished': byHand((res, release) => void onFinished(res, release)),
}

/**
 * @param {Middleware} middleware
 * @param {(res: http.ServerResponse) => unknown} finish ends a handler's work
 */
async function start(middleware, finish = (res) => res.end('ok')) {
	let atWork = 0
	const seen = {
		highest: 0,
		begun: /** @type {string[]} */ ([]),
		responses: /** @type {http.ServerResponse[]} */ ([]),
	}
	const app = express()
	app.use((_req, res, next) => {
		seen.responses.push(res)
		next()
	})
	app.use(middleware)
	app.use(async (req, res) => {
		seen.begun.push(req.url)
		seen.highest = Math.max(seen.highest, ++atWork)
		if (req.url === '/stuck') await new Promise(() => {})
		else await sleep(WORK)
		atWork--
		finish(res)
	})
	const server = http.createServer(app)
	server.listen(0, '127.0.0.1')
	await once(server, 'listening')
	const { port } = /** @type {net.AddressInfo} */ (server.address())
	/** @param {...string} paths */
	const client = async (...paths) => {
		const socket = net.connect(port, '127.0.0.1').on('error', () => {})
		await once(socket, 'connect')
		socket.write(paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`).join(''))
		return socket
	}
	const stop = () => {
		server.close()
		server.closeAllConnections()
	}
	return { seen, client, stop }
}

/**
 * As many fresh requests as there are permits: are all at work at once?
 *
 * @param {Awaited<ReturnType<typeof start>>} running
 */
async function allPermitsAreBack({ client, seen }) {
	const before = seen.begun.length
	await Promise.all(Array.from({ length: CAPACITY }, () => client('/fresh')))
	await sleep(WORK / 2)
	return seen.begun.length === before + CAPACITY
}

/** @type {Record<string, (make: () => Middleware) => Promise<boolean>>} */
const trials = {
	async 'permits come back when a client leaves and its handler then drops the response'(make) {
		const running = await start(make(), (res) => res.socket?.destroyed === false && res.end('ok'))
		for (const client of await Promise.all([1, 2, 3].map(() => running.client('/')))) {
			await sleep(WORK / 5)
			client.destroy()
		}
		await sleep(2 * WORK + 500)
		const back = await allPermitsAreBack(running)
		running.stop()
		return back
	},
	async 'permits come back when pipelined requests are reset'(make) {
		const running = await start(make())
		const client = await running.client(...Array.from({ length: 10 }, (_, i) => `/${i}`))
		await sleep(WORK / 2)
		client.resetAndDestroy()
		await sleep(6 * WORK)
		const back = await allPermitsAreBack(running)
		running.stop()
		return back
	},
	async 'never more than the limit at work when clients time out and try again'(make) {
		const running = await start(make())
		for (let i = 0; i < 4; i++) {
			const clients = await Promise.all([1, 2, 3].map(() => running.client('/')))
			await sleep(WORK / 6)
			for (const client of clients) client.destroy()
		}
		await sleep(6 * WORK)
		running.stop()
		return running.seen.highest === CAPACITY
	},
	async 'no work for a client that left while it waited'(make) {
		const running = await start(make())
		await Promise.all(Array.from({ length: CAPACITY }, () => running.client('/')))
		await sleep(WORK / 5)
		const leaver = await running.client('/left')
		await sleep(WORK / 5)
		leaver.destroy()
		await sleep(4 * WORK)
		running.stop()
		return !running.seen.begun.includes('/left')
	},
	async 'the queue is bounded by default'(make) {
		const running = await start(make())
		// More than anybody wants to keep waiting, a connection each.
		for (let i = 0; i < 24; i++) {
			await Promise.all(Array.from({ length: 50 }, () => running.client('/stuck')))
		}
		while (running.seen.responses.length < 24 * 50) await sleep(20)
		await sleep(100)
		running.stop()
		return running.seen.responses.some((res) => res.statusCode === 503)
	},
}

console.log(`Node ${process.version}, ${new Date().toISOString().slice(0, 10)}\n`)
const names = Object.keys(middlewares)
console.log(`| | ${names.map((name) => `\`${name}\``).join(' | ')} |`)
console.log(`|---|${names.map(() => '---|').join('')}`)
for (const [trial, run] of Object.entries(trials)) {
	const cells = []
	for (const make of Object.values(middlewares)) cells.push((await run(make)) ? 'yes' : '**no**')
	console.log(`| ${trial} | ${cells.join(' | ')} |`)
}
process.exit()
