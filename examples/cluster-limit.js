// One limit for all processes of a cluster: node examples/cluster-limit.js
import cluster from 'node:cluster'
import express from 'express'
import { clusterLimiter } from 'inflight-limit/cluster'
import { admission, limit } from 'inflight-limit/express'

// The primary and the workers run this line. The primary keeps the permits, the workers ask it.
const renders = clusterLimiter({ name: 'renders', capacity: 2, maxQueue: 500, maxWait: 10_000 })

if (cluster.isPrimary) {
	for (let i = 0; i < 2; i++) cluster.fork()
	// A worker that dies has given its permits back by now.
	cluster.on('exit', (worker) => {
		if (!worker.exitedAfterDisconnect) cluster.fork()
	})
	process.once('SIGTERM', () => cluster.disconnect())
} else {
	const app = express()
	app.get('/', limit(renders), async (req, res) => {
		await new Promise((resolve) => setTimeout(resolve, 200))
		res.set('Connection', 'close')
		res.send(`waited ${Math.round(admission(req)?.waited ?? 0)} ms in process ${process.pid}\n`)
	})
	const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', () => {
		const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
		console.log(`http://127.0.0.1:${port}/`)
	})
}
