// Loaded before a program of the docs. It gives the program a free port for 3000, visits what it
// serves, and then ends it as a supervisor does. What the program fetches from elsewhere is
// answered here.
/** @type {import('node:cluster').Cluster} */
const cluster = /** @type {any} */ (require('node:cluster'))
const net = require('node:net')
const { setTimeout: sleep } = require('node:timers/promises')

/** @type {[method: string, path: string][]} */
const routes = JSON.parse(process.env.ROUTES ?? '[]')
const { listen } = net.Server.prototype
const realFetch = globalThis.fetch
let visiting = 0
let failed = false

// The workers of a cluster are visited, and end; their primary ends with the first of them.
if (cluster.isPrimary) cluster.once('exit', (_, code) => process.exit(code ?? 1))

globalThis.fetch = async (input, init) => {
	const url = new URL(input instanceof Request ? input.url : input)
	return /^(127\.|localhost$)/.test(url.hostname) ? realFetch(input, init) : new Response('{}')
}

/** @param {any[]} args */
net.Server.prototype.listen = function (...args) {
	const port = typeof args[0] === 'object' ? args[0].port : args[0]
	if (port === 3000) {
		args = [{ port: 0, host: '127.0.0.1' }, ...args.filter((arg) => typeof arg === 'function')]
		visiting++
		this.once('listening', () => visit(this))
	}
	return listen.apply(this, /** @type {any} */ (args))
}

/** @param {number} port @param {string} method @param {string} path */
async function get(port, method, path) {
	// The administrator of the docs.
	const authorization = `Basic ${btoa('ada:1234')}`
	const headers = { connection: 'close', authorization }
	const answer = await realFetch(`http://127.0.0.1:${port}${path}`, { method, headers })
	await answer.body?.cancel()
	return answer
}

/** @param {net.Server} server */
async function visit(server) {
	const { port } = /** @type {net.AddressInfo} */ (server.address())
	// What the program does once it listens comes first.
	await new Promise((resolve) => setImmediate(resolve))
	for (const [method, path] of routes) {
		let answer = await get(port, method, path)
		// On a busy machine the event loop can be late: `adaptive()` says so, and this client comes
		// back.
		if (answer.status === 503) {
			await sleep(1000 * Number(answer.headers.get('retry-after')))
			answer = await get(port, method, path)
		}
		if (answer.ok) continue
		console.error(`${method} ${path} was answered with ${answer.status}`)
		failed = true
	}
	if (--visiting > 0) return
	if (!failed && process.listenerCount('SIGTERM') > 0) process.emit('SIGTERM')
	else process.exit(failed ? 1 : 0)
}
