// A capacity that finds itself: node examples/adaptive-capacity.js
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { adaptive } from 'inflight-limit/adaptive'
import { limit } from 'inflight-limit/express'

const app = express()
const guard = limit({ capacity: adaptive({ min: 2, max: 200, initial: 20 }) })

app.get('/capacity', (_req, res) => void res.json(guard.limiter.stats()))
app.use(guard)
app.get('/', async (_req, res) => {
	await sleep(20)
	res.send('done\n')
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
