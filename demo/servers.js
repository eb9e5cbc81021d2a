import http from 'node:http'
import express from 'express'
import { limit as limitExpress } from 'inflight-limit/express'
import { limit as limitKoa } from 'inflight-limit/koa'
import Koa from 'koa'

/**
 * The expensive work behind the limiter. It takes as long as the request asks for, and counts how
 * much is at work.
 */
export class Work {
	atWork = 0
	highest = 0
	/**
	 * When the handlers of the requests began and were done, by name.
	 *
	 * @type {Map<string, { begun: number, done?: number }>}
	 */
	log = new Map()

	/** @param {string} name @param {number} ms */
	async run(name, ms) {
		/** @type {{ begun: number, done?: number }} */
		const entry = { begun: performance.now() }
		this.log.set(name, entry)
		this.highest = Math.max(this.highest, ++this.atWork)
		await new Promise((resolve) => setTimeout(resolve, ms))
		this.atWork--
		entry.done = performance.now()
	}
}

/**
 * @typedef {object} Running
 * @property {number} port
 * @property {import('inflight-limit').Limiter} limiter
 * @property {Work} work
 * @property {() => Promise<void>} stop
 */

/** @typedef {number | { capacity: number, maxQueue: number, maxWait: number }} Options */

/** @param {string} url */
function order(url) {
	const { searchParams } = new URL(url, 'http://localhost')
	return { name: searchParams.get('name') ?? '', ms: Number(searchParams.get('ms')) }
}

/** @param {Options} options */
export function startExpress(options) {
	const work = new Work()
	const guard = limitExpress(options)
	const app = express()
	app.get('/report', guard, async (req, res) => {
		const { name, ms } = order(req.url)
		await work.run(name, ms)
		res.send(`report for ${name}`)
	})
	return start(app, guard.limiter, work)
}

/** @param {Options} options */
export function startKoa(options) {
	const work = new Work()
	const guard = limitKoa(options)
	const app = new Koa()
	app.use(guard)
	app.use(async (ctx) => {
		const { name, ms } = order(ctx.url)
		await work.run(name, ms)
		ctx.body = `report for ${name}`
	})
	return start(app.callback(), guard.limiter, work)
}

/**
 * @param {http.RequestListener} listener
 * @param {import('inflight-limit').Limiter} limiter
 * @param {Work} work
 * @returns {Promise<Running>}
 */
function start(listener, limiter, work) {
	return new Promise((resolve) => {
		const server = http.createServer(listener)
		server.listen(0, '127.0.0.1', () => {
			const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
			const stop = () => new Promise((done) => server.close(() => done(undefined)))
			resolve({ port, limiter, work, stop: () => stop().then(() => {}) })
		})
	})
}
