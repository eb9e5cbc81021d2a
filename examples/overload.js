// When not all requests can be served: paying customers first, each customer in turn, and none
// whose answer would be too late.
import express from 'express'
import { requestDeadline } from 'inflight-limit'
import { addressKey, limit } from 'inflight-limit/express'

// In place of your own authentication: a client must not be able to choose its customer.
const customers = new Map([
	['Bearer 1', { name: 'ada', pays: true }],
	['Bearer 2', { name: 'bob', pays: true }],
	['Bearer 3', { name: 'eve', pays: false }],
])
const customerOf = (/** @type {express.Request} */ req) =>
	customers.get(req.get('authorization') ?? '')

const byAddress = addressKey()
const app = express()
app.use(
	limit({
		capacity: 1,
		maxQueue: 10,
		priority: (/** @type {express.Request} */ req) => (customerOf(req)?.pays ? 1 : 0),
		lowerShare: 0.1,
		fairBy: (/** @type {express.Request} */ req) => {
			const customer = customerOf(req)
			return customer ? `customer ${customer.name}` : `address ${byAddress(req)}`
		},
		deadline: requestDeadline,
	}),
)
app.get('/', async (req, res) => {
	await new Promise((resolve) => setTimeout(resolve, 50))
	const name = customerOf(req)?.name ?? 'a guest'
	console.log(`served ${name}`)
	res.send(`served ${name}\n`)
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
