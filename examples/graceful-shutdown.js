// On SIGTERM, waiting requests are rejected (503), requests at work finish, and the process ends by
// itself.
import express from 'express'
import { limit } from 'inflight-limit/express'

const app = express()
// A client that asks again and again would keep its connection, and so the process.
app.use((_req, res, next) => {
	if (!server.listening) res.set('Connection', 'close')
	next()
})
const guard = limit(1)

app.get('/', guard, async (_req, res) => {
	await new Promise((resolve) => setTimeout(resolve, 1_000))
	res.send('done\n')
})

app.get('/stats', (_req, res) => {
	res.json(guard.limiter.stats())
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})

process.once('SIGTERM', async () => {
	guard.limiter.close()
	server.close()
	// Node closes idle connections now, but not those that become idle later.
	setInterval(() => server.closeIdleConnections(), 100).unref()
	await guard.limiter.onIdle()
	console.log('idle')
})
