// `npm run bench:middleware`: the middleware against none, and against what one would write or take
// instead.
import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { fileURLToPath } from 'node:url'
import { exchange, fakeSocket } from './exchange.js'
import { compare, median, printMachine, printMissed, printRow, printTitle } from './harness.js'
import { middlewares, NONE, OURS, SEMA } from './middlewares.js'

const EXCHANGES = 20_000

/**
 * CPU that the middleware adds to an exchange with room available, as a ratio to an exchange
 * without it.
 */
async function uncontended() {
	const made = middlewares.map(({ name, make }) => ({ name, middleware: make(10) }))
	await compare(
		'an exchange in process, with room (1 + what is added)',
		made.map(({ name, middleware }) => ({
			name,
			async run() {
				const socket = fakeSocket()
				let served = 0
				for (let i = 0; i < EXCHANGES; i++) {
					await exchange(socket, middleware, (res) => {
						served++
						res.end('ok')
					})
				}
				assert.equal(served, EXCHANGES)
			},
		})),
		{ rounds: 21, operations: EXCHANGES, targets: { [OURS]: 1.25 } },
	)
}

/** 1,000 requests at once on a limit of 10, against async-sema's. */
async function contended() {
	const able = middlewares.filter(({ name, uncontendedOnly }) => !uncontendedOnly && name !== NONE)
	able.sort((a, b) => Number(b.name === SEMA) - Number(a.name === SEMA))
	const REQUESTS = 1000
	// As of clients that keep their connections.
	const sockets = Array.from({ length: REQUESTS }, fakeSocket)
	await compare(
		`${REQUESTS} at once on a limit of 10`,
		able.map(({ name, make }) => ({
			name,
			async run() {
				for (let repeat = 0; repeat < 10; repeat++) {
					const middleware = make(10)
					let atWork = 0
					let highest = 0
					await Promise.all(
						sockets.map((socket) =>
							exchange(socket, middleware, (res) => {
								highest = Math.max(highest, ++atWork)
								setImmediate(() => {
									atWork--
									res.end('ok')
								})
							}),
						),
					)
					assert.equal(highest, name.startsWith('async-mutex') ? 1 : 10)
				}
			},
		})),
		{ rounds: 11, operations: REQUESTS * 10, targets: { [OURS]: 1.2 } },
	)
}

/**
 * Throughput and CPU of a real Express server, in a process of its own, under 50 keep-alive
 * connections; `none` twice, to show the noise.
 */
async function realServer() {
	const names = [
		NONE,
		`${NONE} `,
		...middlewares.map(({ name }) => name).filter((name) => name !== NONE),
	]
	/** @type {Map<string, { rate: number, cpu: number }[]>} */
	const results = new Map(names.map((name) => [name, []]))
	const servers = new Map()
	for (const name of names) {
		const child = fork(fileURLToPath(new URL('server.js', import.meta.url)), [name.trim()])
		const [port] = await once(child, 'message')
		servers.set(name, { child, port })
	}
	const agent = new http.Agent({ keepAlive: true, maxSockets: 50 })
	for (let round = 0; round < 9; round++) {
		for (const name of names) {
			const { child, port } = servers.get(name)
			await load(agent, port, 500)
			const before = await cpuOf(child)
			const start = performance.now()
			await load(agent, port, 5000)
			const rate = 5000 / (performance.now() - start)
			const cpu = ((await cpuOf(child)) - before) / 5000
			if (round > 0) results.get(name)?.push({ rate, cpu })
		}
	}
	agent.destroy()
	for (const { child } of servers.values()) child.kill()

	printTitle('a real Express server, 50 connections', ['CPU each', 'requests/s', 'µs each'])
	const base = results.get(NONE) ?? []
	for (const [name, own] of results) {
		const label = name === `${NONE} ` ? 'none, again (the noise)' : name
		printRow(label, [
			median(own.map(({ cpu }, i) => cpu / (base[i]?.cpu ?? 0))),
			median(own.map(({ rate }, i) => rate / (base[i]?.rate ?? 0))),
			median(own.map(({ cpu }) => cpu)).toFixed(0),
		])
	}
}

/**
 * @param {import('node:child_process').ChildProcess} child
 * @returns the CPU that it used so far, in µs
 */
async function cpuOf(child) {
	child.send('cpu')
	const [used] = await once(child, 'message')
	return used
}

/** @param {http.Agent} agent @param {number} port @param {number} requests */
async function load(agent, port, requests) {
	let sent = 0
	const client = async () => {
		while (sent++ < requests) {
			await new Promise((resolve, reject) => {
				http
					.get({ agent, port, host: '127.0.0.1' }, (res) => {
						assert.equal(res.statusCode, 200)
						res.resume().on('end', resolve)
					})
					.on('error', reject)
			})
		}
	}
	await Promise.all(Array.from({ length: 50 }, client))
}

printMachine()
await uncontended()
await contended()
await realServer()
printMissed()
