// One route is expensive: two requests at a time, five more may wait for two seconds, the rest are
// rejected. The cheap routes beside it never wait.
import express from 'express'
import { limit } from 'inflight-limit/express'

const app = express()

app.get('/health', (_req, res) => {
	res.send('fine\n')
})

app.get(
	'/report',
	limit({ capacity: 2, maxQueue: 5, maxWait: 2_000, name: 'reports' }),
	async (_req, res) => {
		await new Promise((resolve) => setTimeout(resolve, 500))
		res.send('a report\n')
	},
)

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
