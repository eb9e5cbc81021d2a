// A real Express server with one of the policies, for the benchmark:
// node bench/overload/server.js <policy> <kind> <capacity> <file>
// It adds a byte to the file for each request that it reads, as it is too busy to be asked.
import { openSync, writeSync } from 'node:fs'
import express from 'express'
// @ts-expect-error - it has no types
import expressQueue from 'express-queue'
import { adaptive } from 'inflight-limit/adaptive'
import { limit } from 'inflight-limit/express'
// @ts-expect-error - it has no types
import protection from 'overload-protection'
// @ts-expect-error - it has no types
import toobusy from 'toobusy-js'
import { Downstream } from './downstream.js'
import { kinds } from './kinds.js'
import { RealClock } from './real-clock.js'

const [, , policy = '', kindName = '', capacity = '', file = ''] = process.argv
const kind = kinds[kindName]
if (kind === undefined) throw new Error(`no kind of server named ${kindName}`)
const tuned = Number(capacity)
const seen = openSync(file, 'w')

/** @type {Record<string, () => import('express').RequestHandler>} */
const policies = {
	'no limiter': () => (_req, _res, next) => next(),
	'express-queue': () => expressQueue({ activeLimit: tuned, queuedLimit: -1 }),
	'overload-protection': () => protection('express', { production: true, clientRetrySecs: 1 }),
	'toobusy-js': () => (_req, res, next) => {
		if (toobusy()) res.status(503).end()
		else next()
	},
	'fixed, tuned': () => limit({ capacity: tuned, maxQueue: Math.ceil(tuned / 4) }),
	adaptive: () => limit({ capacity: adaptive() }),
}

const app = express()
const chosen = policies[policy]
if (chosen === undefined) throw new Error(`no policy named ${policy}`)
app.use(chosen())
const downstream = new Downstream(new RealClock(), kind.downstream)

/** @param {number} ms of computing */
function compute(ms) {
	const end = performance.now() + ms
	while (performance.now() < end);
}

app.get('/', (req, res) => {
	const work = Number(req.query.work)
	if (kind.cpu > 0) compute(kind.cpu)
	if (!kind.waits) return void res.send('ok')
	downstream.start(work, () => void res.send('ok'))
})
const server = app.listen(0, '127.0.0.1', () => {
	process.send?.(/** @type {import('node:net').AddressInfo} */ (server.address()).port)
})
server.prependListener('request', () => writeSync(seen, '.'))
