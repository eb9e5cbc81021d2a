// Both builds in one process: a limiter of the one, on the way of each request twice, through the
// middleware of both.
import http from 'node:http'
import { createRequire } from 'node:module'
import express from 'express'
import * as esm from 'inflight-limit'
import * as esmExpress from 'inflight-limit/express'
import * as esmKoa from 'inflight-limit/koa'
import Koa from 'koa'

const require = createRequire(import.meta.url)
/** @type {typeof esm} */
const cjs = require('inflight-limit')
/** @type {typeof esmExpress} */
const cjsExpress = require('inflight-limit/express')
/** @type {typeof esmKoa} */
const cjsKoa = require('inflight-limit/koa')

/**
 * What a handler sees, asked through either build.
 *
 * @param {object} request
 * @param {esm.Limiter} limiter
 */
function seen(request, limiter) {
	const [one, other] = [esm.admission(request), cjs.admission(request)]
	return { active: limiter.active, queued: one?.queued, same: one !== undefined && one === other }
}

/** @param {http.RequestListener} listener */
async function ask(listener) {
	const server = http.createServer(listener)
	await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	const answer = await fetch(`http://127.0.0.1:${port}/`)
	const body = /** @type {any} */ (await answer.json())
	server.closeAllConnections()
	await new Promise((resolve) => server.close(resolve))
	return { status: answer.status, body }
}

const results = []
for (const { Limiter } of [esm, cjs]) {
	// One permit, and nobody may wait: a build that took two for one request, or missed one taken,
	// would reject.
	const limiter = new Limiter({ capacity: 1, maxQueue: 0 })
	const inExpress = express().use(
		esmExpress.limit(limiter),
		cjsExpress.limit(limiter),
		(req, res) => {
			res.json(seen(req, limiter))
		},
	)
	const inKoa = new Koa()
		.use(esmKoa.limit(limiter))
		.use(cjsKoa.limit(limiter))
		.use((ctx) => {
			ctx.body = seen(ctx, limiter)
		})
		.callback()
	const admitted = [await ask(inExpress), await ask(inKoa)]
	await limiter.onIdle()
	limiter.close()
	const rejections = [await ask(inExpress), await ask(inKoa)].map(({ status, body }) => [
		status,
		body.reason,
	])
	const { completed, rejected } = limiter.stats()
	results.push({ admitted, rejected: rejections, completed, closed: rejected.closed })
}
console.log(JSON.stringify({ twoBuilds: esm.Limiter !== cjs.Limiter, results }))
