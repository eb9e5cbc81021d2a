// `npm start -- --serve`: the same load on four servers with different limits, on one page, with
// the controls of the load beside what it does. Ctrl-C ends it.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import express from 'express'
import { dashboard } from 'inflight-limit/dashboard'
import { makeLanes } from './lanes.js'

/** The lowest and highest value of each slider of the page. */
const bounds = { rate: [0, 200], ms: [1, 1000], patience: [200, 10_000], capacity: [1, 50] }

/**
 * Requests per second, the work of one (ms), how long clients wait before they leave (ms), and the
 * capacity of the fixed limits.
 */
const load = { rate: 20, ms: 250, patience: 2000, capacity: 10 }

/**
 * What can be pressed: for so many seconds, the load is another one.
 *
 * @type {Record<string, { title: string, seconds: number, what: string, times?: number, slowness?: number, patience?: number, tries?: number, greedy?: boolean }>}
 */
const scenarios = {
	burst: {
		title: 'A burst',
		seconds: 5,
		times: 4,
		what: 'Four times as many requests, for 5 seconds. Then all is as before; but is it, everywhere?',
	},
	slow: {
		title: 'A slow database',
		seconds: 10,
		slowness: 3,
		what: 'Each query takes three times as long, for 10 seconds.',
	},
	retries: {
		title: 'Clients give up, and try again',
		seconds: 10,
		times: 1.5,
		patience: 500,
		tries: 4,
		what: 'For 10 seconds, clients wait only half a second, and then send the same request again, up to three times.',
	},
	greedy: {
		title: 'One greedy tenant',
		seconds: 10,
		times: 3,
		greedy: true,
		what: 'For 10 seconds, one tenant sends twice as much as all others together. “Others” are the rest: how many of them are served? The first time, the adaptive limit has yet to find out what the database can do; press again when it knows.',
	},
	leak: {
		title: 'Clients that leave',
		seconds: 5,
		patience: 100,
		what: 'For 5 seconds, clients leave while their requests are at work, and the handlers then answer nobody. A limiter that waits for the answer never gets its place back.',
	},
}

/** @type {Set<express.Response>} */
const readers = new Set()

/** @param {number} port */
export async function serve(port) {
	let lanes = await makeLanes(load.capacity)
	let limits = showLimits()
	/** @type {{ name: string, until: number } | undefined} */
	let playing

	function showLimits() {
		return dashboard({ limiters: lanes.flatMap(({ limiter }) => limiter ?? []) })
	}

	/** All limits and databases are new, as in a process that has just started. */
	async function restart() {
		limits.close()
		for (const lane of lanes) lane.close()
		lanes = await makeLanes(load.capacity)
		limits = showLimits()
	}

	const app = express()
	app.use('/limits', (req, res, next) => limits(req, res, next))
	for (const [path, file] of Object.entries({
		'/': 'page/index.html',
		'/page.js': 'page/page.js',
		'/page.css': 'page/page.css',
		'/uplot.js': '../node_modules/uplot/dist/uPlot.esm.js',
		'/uplot.css': '../node_modules/uplot/dist/uPlot.min.css',
	})) {
		const body = readFileSync(fileURLToPath(new URL(file, import.meta.url)))
		app.get(path, (_req, res) => void res.type(file.slice(file.lastIndexOf('.'))).send(body))
	}
	app.get('/load', (_req, res) => void res.json({ load, bounds, scenarios }))
	app.post('/load', express.json(), (req, res) => {
		for (const [name, [lowest, highest]] of Object.entries(bounds)) {
			const value = Math.round(Number(req.body[name]))
			if (value >= Number(lowest) && value <= Number(highest))
				Object.assign(load, { [name]: value })
		}
		for (const lane of lanes) lane.resize(load.capacity)
		res.json({ load })
	})
	app.post('/scenario/:name', async (req, res) => {
		const { name } = req.params
		const scenario = Object.hasOwn(scenarios, name) ? scenarios[name] : undefined
		if (name === 'restart') await restart()
		else if (scenario === undefined) return void res.sendStatus(404)
		else playing = { name, until: Date.now() + scenario.seconds * 1000 }
		res.sendStatus(204)
	})
	app.get('/figures', (_req, res) => {
		res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
		readers.add(res)
		res.on('close', () => readers.delete(res))
	})

	const server = app.listen(port, '127.0.0.1', () => {
		const address = /** @type {import('node:net').AddressInfo} */ (server.address())
		const origin = `http://127.0.0.1:${address.port}`
		console.log(`Set the load on  ${origin}/`)
		console.log(`See the limits on  ${origin}/limits/`)
		console.log('Ctrl-C ends it.')
		void keepBusy()
	})
	process.once('SIGINT', () => process.exit())

	function scenarioNow() {
		if (playing !== undefined && Date.now() > playing.until) playing = undefined
		return playing && scenarios[playing.name]
	}

	/** Sends each request to all servers, when it is due. */
	async function keepBusy() {
		let due = 0
		let before = performance.now()
		for (;;) {
			await sleep(20)
			const { times = 1, patience, tries = 1, slowness = 1, greedy = false } = scenarioNow() ?? {}
			const now = performance.now()
			due = Math.min(due + (load.rate * times * (now - before)) / 1000, 40)
			before = now
			for (; due >= 1; due--) {
				const tenant =
					greedy && Math.random() < 2 / 3 ? 'greedy' : `tenant ${Math.ceil(Math.random() * 5)}`
				const order = {
					ms: load.ms,
					patience: Math.min(load.patience, patience ?? Infinity),
					tenant,
					tries,
				}
				for (const lane of lanes) lane.send(order)
			}
			for (const { database } of lanes) database.slowness = slowness
		}
	}

	setInterval(() => {
		scenarioNow()
		const seen = lanes.map((lane) => {
			const { capacity = null, queued = 0 } = lane.limiter ?? {}
			return { name: lane.name, capacity, queued, ...lane.take() }
		})
		const message = JSON.stringify({
			time: Date.now() / 1000,
			playing: playing?.name ?? null,
			lanes: seen,
		})
		for (const res of readers) res.write(`data: ${message}\n\n`)
	}, 1000)
}
