// A real server with one of the middlewares, for the benchmark: node bench/server.js <middleware>
import express from 'express'
import { middlewares } from './middlewares.js'

const app = express()
const chosen = middlewares.find(({ name }) => name === process.argv[2])
if (chosen === undefined) throw new Error(`no middleware named ${process.argv[2]}`)
app.use(chosen.make(100))
app.get('/', (_req, res) => void res.send('ok'))
const server = app.listen(0, '127.0.0.1', () => {
	process.send?.(/** @type {import('node:net').AddressInfo} */ (server.address()).port)
})
// Each waits for its turn: longer than a connection is kept open by default.
server.keepAliveTimeout = 60_000
process.on('message', () => {
	const { user, system } = process.cpuUsage()
	process.send?.(user + system)
})
