// A Koa app that works on three requests at a time; the rest wait their turn.
import { limit } from 'inflight-limit/koa'
import Koa from 'koa'

const app = new Koa()

app.use(limit(3))

app.use(async (ctx) => {
	await new Promise((resolve) => setTimeout(resolve, 100))
	ctx.body = 'Hello from Koa\n'
})

const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})
