// An access log with the wait and the work of each request: a slow answer comes from a long queue
// or from slow work, and needs a different cure in each case.
import express from 'express'
import { admission, limit } from 'inflight-limit/express'

const app = express()

app.use((req, res, next) => {
	const start = performance.now()
	res.once('close', () => {
		const total = performance.now() - start
		// Undefined for a rejected request: its whole time was waiting.
		const waited = admission(req)?.waited ?? total
		const work = Math.round(total - waited)
		console.log(
			`${req.method} ${req.url} ${res.statusCode} wait=${Math.round(waited)}ms work=${work}ms`,
		)
	})
	next()
})

app.use(limit({ capacity: 1, maxQueue: 1 }))

app.get('/', async (_req, res) => {
	await new Promise((resolve) => setTimeout(resolve, 100))
	res.send('logged\n')
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
