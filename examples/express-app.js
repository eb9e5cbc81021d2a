// An Express app that works on three requests at a time; the rest wait their turn.
import express from 'express'
import { limit } from 'inflight-limit/express'

const app = express()

app.use(limit(3))

app.get('/', async (_req, res) => {
	await new Promise((resolve) => setTimeout(resolve, 100))
	res.send('Hello from Express\n')
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
