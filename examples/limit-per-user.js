// Each user may have one export at work and one waiting. A user that asks for a hundred doesn't
// delay the others. Who is no user is limited by address.
import express from 'express'
import { addressKey, limit } from 'inflight-limit/express'

const app = express()

// In place of your own authentication. A client that could choose its user could have many limits.
const users = new Map([
	['Bearer 1234', 'ada'],
	['Bearer 5678', 'bob'],
])
app.use((req, res, next) => {
	res.locals.user = users.get(req.get('authorization') ?? '')
	next()
})

const byAddress = addressKey()
const oneEach = limit({
	capacity: 1,
	maxQueue: 1,
	/** @param {import('express').Request} req */
	key: (req) => {
		const user = req.res?.locals.user
		// Never undefined: that would be no limit. The prefixes keep a user from being taken for an
		// address.
		return user ? `user ${user}` : `address ${byAddress(req)}`
	},
})

app.get('/export', oneEach, async (_req, res) => {
	await new Promise((resolve) => setTimeout(resolve, 300))
	res.send(`exported for ${res.locals.user ?? 'a guest'}\n`)
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
