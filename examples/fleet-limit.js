// One limit for all processes: node examples/fleet-limit.js, as often as you like, with a Redis on
// port 6379 (or REDIS_URL).
import { createServer } from 'node:http'
import { admission, limit } from 'inflight-limit/express'
import { redisLimiter } from 'inflight-limit/redis'
import { createClient } from 'redis'

const client = createClient({ url: process.env.REDIS_URL ?? 'redis://127.0.0.1:6379' })
client.on('error', (error) => console.error(String(error)))
await client.connect()

const renders = redisLimiter({
	client,
	name: 'renders',
	capacity: 2,
	maxQueue: 500,
	maxWait: 10_000,
})
const guard = limit(renders)

const server = createServer((req, res) => {
	guard(req, res, async (error) => {
		if (error) return res.writeHead(500).end()
		await new Promise((resolve) => setTimeout(resolve, 200))
		res.end(`waited ${Math.round(admission(req)?.waited ?? 0)} ms\n`)
	})
})
server.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	console.log(`http://127.0.0.1:${port}/`)
})

process.once('SIGTERM', async () => {
	renders.close()
	server.close()
	await renders.onIdle()
	await client.close()
})
