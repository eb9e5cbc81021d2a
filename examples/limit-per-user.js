// Each user may have one export at work and one waiting. A user that asks for a hundred doesn't
// delay the others.
import express from 'express'
import { limit } from 'inflight-limit/express'

const app = express()

// In place of your own authentication. A client that can choose its user name can have many limits.
app.use((req, res, next) => {
	res.locals.user = req.get('x-user')
	next()
})

const oneEach = limit({
	capacity: 1,
	maxQueue: 1,
	/** @param {import('express').Request} req */
	key: (req) => req.res?.locals.user,
})

app.get('/export', oneEach, async (_req, res) => {
	await new Promise((resolve) => setTimeout(resolve, 300))
	res.send(`exported for ${res.locals.user}\n`)
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
