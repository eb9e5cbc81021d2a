// When not all requests can be served: paying customers first, each customer in turn, and none
// whose answer would be too late.
import express from 'express'
import { requestDeadline } from 'inflight-limit'
import { limit } from 'inflight-limit/express'

/** In place of your own authentication. */
const customer = (/** @type {express.Request} */ req) => req.get('x-customer') ?? 'anonymous'
const paying = new Set(['ada', 'bob'])

const app = express()
app.use(
	limit({
		capacity: 1,
		maxQueue: 10,
		priority: (/** @type {express.Request} */ req) => (paying.has(customer(req)) ? 1 : 0),
		lowerShare: 0.1,
		fairBy: customer,
		deadline: requestDeadline,
	}),
)
app.get('/', async (req, res) => {
	await new Promise((resolve) => setTimeout(resolve, 50))
	console.log(`served ${customer(req)}`)
	res.send(`served ${customer(req)}\n`)
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
