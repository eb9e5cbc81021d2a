// One database, two apps: an Express and a Koa server in one process share a limiter. Together they
// never have more than two requests at work.
import http from 'node:http'
import express from 'express'
import { Limiter } from 'inflight-limit'
import { limit as limitExpress } from 'inflight-limit/express'
import { limit as limitKoa } from 'inflight-limit/koa'
import Koa from 'koa'

const database = new Limiter({ capacity: 2, name: 'database' })

async function query() {
	await new Promise((resolve) => setTimeout(resolve, 100))
	return `${database.active} at work\n`
}

const shop = express()
shop.use(limitExpress(database))
shop.get('/', async (_req, res) => {
	res.send(await query())
})

const admin = new Koa()
admin.use(limitKoa(database))
admin.use(async (ctx) => {
	ctx.body = await query()
})

const port = Number(process.env.PORT ?? 3000)
for (const [listener, at] of /** @type {[http.RequestListener, number][]} */ ([
	[shop, port],
	[admin.callback(), port === 0 ? 0 : port + 1],
])) {
	const server = http.createServer(listener).listen(at, '127.0.0.1', () => {
		const address = /** @type {import('node:net').AddressInfo} */ (server.address())
		console.log(`http://127.0.0.1:${address.port}/`)
	})
}
