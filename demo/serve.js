// `npm start -- --serve`: a server with two limiters, their live page, and a load that is set on
// the page of the demo. Ctrl-C ends it.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { dashboard } from 'inflight-limit/dashboard'
import { limit } from 'inflight-limit/express'

/** The lowest and highest value of each slider of the page. */
const bounds = { rate: [0, 200], ms: [1, 2000], leave: [0, 100], capacity: [1, 50] }

/**
 * Requests per second to each route, work of one (ms), clients that leave early (%), and the
 * capacity.
 */
const load = { rate: 20, ms: 150, leave: 3, capacity: 4 }

const tenants = ['ada', 'bob', 'cleo', 'dan']

/** @param {number} port */
export async function serve(port) {
	const reports = limit({ capacity: load.capacity, maxQueue: 40, maxWait: 3000, name: 'reports' })
	const exports = limit({
		capacity: 1,
		maxQueue: 10,
		maxWait: 3000,
		key: (req) => /** @type {string} */ (req.headers['x-tenant']),
		name: 'exports, per tenant',
	})
	const limits = dashboard({ limiters: [reports.limiter, exports.limiter], keys: true })
	const app = express()
	app.use('/limits', limits)
	for (const name of ['index.html', 'page.js', 'page.css']) {
		const body = readFileSync(new URL(`page/${name}`, import.meta.url))
		app.get(name === 'index.html' ? '/' : `/${name}`, (_req, res) => void res.type(name).send(body))
	}
	app.get('/load', (_req, res) => void res.json(load))
	app.post('/load', express.json(), (req, res) => {
		for (const [name, [lowest, highest]] of Object.entries(bounds)) {
			const value = Math.round(Number(req.body[name]))
			if (value >= Number(lowest) && value <= Number(highest)) Object.assign(load, { [name]: value })
		}
		reports.limiter.resize(load.capacity)
		res.json(load)
	})
	const work = async (/** @type {unknown} */ _req, /** @type {http.ServerResponse} */ res) => {
		await sleep(load.ms * (0.5 + Math.random()))
		res.end('done\n')
	}
	app.get('/report', reports, work)
	app.get('/export', exports, work)

	const server = app.listen(port, '127.0.0.1', () => {
		const address = /** @type {import('node:net').AddressInfo} */ (server.address())
		const origin = `http://127.0.0.1:${address.port}`
		console.log(`Set the load on  ${origin}/`)
		console.log(`See the limits on  ${origin}/limits/`)
		console.log('Ctrl-C ends it.')
		keepBusy(address.port)
	})
	process.once('SIGINT', () => process.exit())
}

/** Sends requests, each when it is due. @param {number} port */
async function keepBusy(port) {
	let due = 0
	for (;;) {
		await sleep(20)
		due = Math.min(due + load.rate * 0.02, 20)
		for (; due >= 1; due--) {
			send(port, '/report')
			// Some tenants send more than others.
			send(port, '/export', tenants[Math.floor(Math.random() ** 2 * tenants.length)])
		}
	}
}

/** @param {number} port @param {string} path @param {string} [tenant] */
function send(port, path, tenant = 'none') {
	const request = http.get({ host: '127.0.0.1', port, path, headers: { 'x-tenant': tenant }, agent: false })
	request.on('response', (response) => response.resume()).on('error', () => {})
	if (Math.random() * 100 < load.leave) setTimeout(() => request.destroy(), load.ms / 2)
}
