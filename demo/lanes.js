// The same server four times, each with another limit before the same handler and a database of its
// own.
import http from 'node:http'
import express from 'express'
// @ts-expect-error - it has no types
import expressQueue from 'express-queue'
import { adaptive } from 'inflight-limit/adaptive'
import { limit } from 'inflight-limit/express'
import { Database } from './database.js'

/** What became of requests in one second, by their clients. */
const nothing = { ok: 0, rejected: 0, gaveUp: 0, failed: 0, others: 0, othersOk: 0 }

/**
 * @typedef {object} Lane
 * @property {string} name
 * @property {import('inflight-limit').Limiter} [limiter]
 * @property {(capacity: number) => void} resize
 * @property {Database} database
 * @property {(order: { ms: number, patience: number, tenant: string, tries: number }) => void} send
 * @property {() => typeof nothing & { atWork: number, p50: number | null }} take - the figures
 * since the last call
 * @property {() => void} close
 */

/** @param {number} capacity - of the fixed limits */
export function makeLanes(capacity) {
	const tenantOf = (/** @type {http.IncomingMessage} */ req) => String(req.headers['x-tenant'])
	// No handler is at work for longer than two seconds, so a permit need not be held for longer.
	const common = { maxQueue: 30, maxWait: 1000, abandonedTimeout: 2000, fairBy: tenantOf }
	const fixed = limit({ ...common, capacity, name: 'fixed' })
	const found = limit({ ...common, capacity: adaptive({ initial: 8 }), name: 'adaptive' })
	return Promise.all([
		startLane('without a limiter'),
		startLane('express-queue', expressQueue({ activeLimit: capacity, queuedLimit: 30 })),
		startLane('inflight-limit, fixed', fixed, fixed.limiter),
		startLane('inflight-limit, adaptive', found, found.limiter),
	])
}

/**
 * @param {string} name
 * @param {express.RequestHandler} [guard]
 * @param {import('inflight-limit').Limiter} [limiter]
 * @returns {Promise<Lane>}
 */
async function startLane(name, guard = (_req, _res, next) => next(), limiter) {
	const database = new Database()
	const app = express()
	app.get('/report', guard, async (req, res) => {
		await database.query(Number(req.query.ms))
		// As many handlers do: nobody is there to be answered.
		if (res.destroyed) return
		res.end('done\n')
	})
	const server = http.createServer(app).listen(0, '127.0.0.1')
	await new Promise((resolve) => server.once('listening', resolve))
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	const agent = new http.Agent({ keepAlive: true })
	let figures = { ...nothing }
	/** @type {number[]} */
	let times = []

	/** @type {Lane['send']} */
	function send({ ms, patience, tenant, tries }) {
		const began = performance.now()
		const other = tenant !== 'greedy'
		if (other) figures.others++
		const request = http.get({
			port,
			agent,
			path: `/report?ms=${ms}`,
			headers: { 'x-tenant': tenant },
		})
		const timer = setTimeout(() => request.destroy(), patience)
		let left = true
		request.on('response', (res) => {
			left = false
			clearTimeout(timer)
			res.resume()
			if (res.statusCode === 200) {
				figures.ok++
				if (other) figures.othersOk++
				times.push(performance.now() - began)
			} else figures.rejected++
		})
		request.on('error', () => {
			clearTimeout(timer)
			if (!left) return
			if (performance.now() - began < patience - 50) figures.failed++
			else figures.gaveUp++
			if (tries > 1) send({ ms, patience, tenant, tries: tries - 1 })
		})
	}

	function take() {
		times.sort((a, b) => a - b)
		const p50 = times[Math.floor(times.length / 2)] ?? null
		const taken = { ...figures, atWork: database.active, p50: p50 && Math.round(p50) }
		figures = { ...nothing }
		times = []
		return taken
	}

	return {
		name,
		...(limiter && { limiter }),
		resize: (capacity) => name.endsWith('fixed') && limiter?.resize(capacity),
		database,
		send,
		take,
		close() {
			limiter?.close()
			database.close()
			agent.destroy()
			server.close()
			server.closeAllConnections()
		},
	}
}
