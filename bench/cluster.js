// What an admission through clusterLimiter() costs in CPU, in the worker and in the primary, beside
// what one message to the primary and one back cost: node bench/cluster.js
import cluster from 'node:cluster'
import { once } from 'node:events'
import { clusterLimiter } from 'inflight-limit/cluster'
import { median, printMachine, printMissed, printRow, printTitle } from './harness.js'

const limiter = clusterLimiter({ name: 'bench', capacity: 100, maxQueue: 10_000 })
const ROUNDS = 7
const MS = 1_000

/** The CPU time that was used since then, in µs. @param {NodeJS.CpuUsage} since */
function used(since) {
	const { user, system } = process.cpuUsage(since)
	return user + system
}

/**
 * Each does what it says for a while. @type {Record<string, (until: number) => Promise<number>>}
 */
const kinds = {
	/** One message there and one back, again and again. */
	async messages(until) {
		let count = 0
		while (performance.now() < until) {
			process.send?.({ ping: count++ })
			await once(process, 'message')
		}
		return count
	},
	alone: (until) => admissions(1, until),
	busy: (until) => admissions(200, until),
	overloaded: (until) => admissions(1_000, until),
}

/** @param {number} callers @param {number} until */
async function admissions(callers, until) {
	let count = 0
	const loops = Array.from({ length: callers }, async () => {
		while (performance.now() < until) {
			await limiter.run(() => {})
			count++
		}
	})
	await Promise.all(loops)
	return count
}

if (cluster.isPrimary) {
	const worker = cluster.fork()
	worker.on('message', ({ ping }) => {
		if (ping !== undefined) worker.send({ pong: ping })
	})
	/** @param {string} kind @returns {Promise<{ there: number, here: number, count: number }>} */
	const measure = async (kind) => {
		const since = process.cpuUsage()
		worker.send({ kind })
		for (;;) {
			const [message] = await once(worker, 'message')
			if (message.count > 0) return { count: message.count, there: message.cpu, here: used(since) }
		}
	}
	/** @type {Record<string, { there: number, here: number }[]>} */
	const seen = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, []]))
	// Its first message says that it listens.
	await once(worker, 'message')
	for (let round = 0; round <= ROUNDS; round++) {
		for (const kind of Object.keys(kinds)) {
			const { count, there, here } = await measure(kind)
			// The first round warms up.
			if (round > 0) seen[kind]?.push({ there: there / count, here: here / count })
		}
	}
	worker.kill()
	printMachine()
	printTitle('CPU for each, in µs, worker and primary', ['both', 'worker', 'primary', 'messages'])
	const both = (/** @type {string} */ kind) =>
		(seen[kind] ?? []).map(({ there, here }) => there + here)
	for (const [kind, name, target] of /** @type {const} */ ([
		['messages', 'a message there and one back', undefined],
		['alone', 'an admission, 1 caller', undefined],
		['busy', 'an admission, 200 callers', 20],
		['overloaded', 'an admission, 1000 callers', 20],
	])) {
		const own = seen[kind] ?? []
		const ratios = both(kind).map(
			(sum, round) => sum / /** @type {number} */ (both('messages')[round]),
		)
		printRow(
			name,
			[
				median(both(kind)),
				median(own.map(({ there }) => there)),
				median(own.map(({ here }) => here)),
				median(ratios),
			],
			target,
		)
	}
	printMissed()
} else {
	process.on('message', async (/** @type {{ kind?: string }} */ { kind }) => {
		const run = kind === undefined ? undefined : kinds[kind]
		if (run === undefined) return
		const since = process.cpuUsage()
		const count = await run(performance.now() + MS)
		process.send?.({ count, cpu: used(since) })
	})
	process.send?.({ count: 0 })
}
