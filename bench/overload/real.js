import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { kinds } from './kinds.js'
import { load } from './load.js'

/**
 * @typedef {import('./load.js').Figures & { reached: number }} Figures `reached`: attempts a second that the server read
 * @typedef {object} Time
 * @property {number} seconds
 * @property {number} warmup in seconds
 */

/** After which a client gives up, in ms. */
const DEADLINE = 500

/** @param {string} name */
function kindOf(name) {
	const kind = kinds[name]
	if (kind === undefined) throw new Error(`no kind of server named ${name}`)
	return kind
}

/**
 * One policy on a real Express server, in a process of its own.
 *
 * @param {string} policy
 * @param {string} name of a kind of server
 * @param {number} capacity of the policies that are given one
 * @param {number} times the load, as a multiple of what the server can do
 * @param {Time & { seed: number }} how
 * @returns {Promise<Figures>}
 */
async function run(policy, name, capacity, times, { seconds, warmup, seed }) {
	const folder = mkdtempSync(join(tmpdir(), 'overload-'))
	const file = join(folder, 'seen')
	const child = fork(fileURLToPath(new URL('server.js', import.meta.url)), [
		policy,
		name,
		String(capacity),
		file,
	])
	try {
		const [port] = await once(child, 'message')
		let seen = 0
		setTimeout(() => (seen -= statSync(file).size), warmup * 1000)
		setTimeout(() => (seen += statSync(file).size), (warmup + seconds) * 1000)
		const { rate, kept } = kindOf(name)
		const figures = await load(port, {
			rate: times * rate,
			kept,
			seconds,
			warmup,
			deadline: DEADLINE,
			seed,
		})
		return { ...figures, reached: seen / seconds }
	} finally {
		child.kill('SIGKILL')
		await once(child, 'exit')
		rmSync(folder, { recursive: true })
	}
}

/**
 * What each policy does, the mean of all rounds; in each round they all run in turn, with the same
 * arrivals.
 *
 * @param {string} name of a kind of server
 * @param {string[]} policies
 * @param {number} capacity of the policies that are given one
 * @param {number[]} loads
 * @param {Time & { rounds: number }} time
 * @returns {Promise<Map<string, Figures[]>>}
 */
export async function measure(name, policies, capacity, loads, { rounds, ...time }) {
	/** @type {Map<string, Figures[]>} */
	const results = new Map()
	for (let seed = 1; seed <= rounds; seed++) {
		for (const [i, times] of loads.entries()) {
			for (const policy of policies) {
				const figures = await run(policy, name, capacity, times, { ...time, seed })
				const row = results.get(policy) ?? []
				results.set(policy, row)
				const mean = row[i]
				row[i] = mean === undefined ? figures : meanOf(mean, figures, seed)
			}
		}
	}
	return results
}

/**
 * The fixed limit that serves most at twice the load, of some about the knee of the downstream.
 *
 * @param {string} name of a kind of server
 * @param {Time} time
 */
export async function tune(name, time) {
	const { knee } = kindOf(name).downstream
	let best = { capacity: 0, goodput: -1 }
	for (const part of [0.5, 0.75, 0.9, 1, 1.25]) {
		const capacity = Math.round(part * knee)
		const { goodput } = await run('fixed, tuned', name, capacity, 2, { ...time, seed: 1 })
		if (goodput > best.goodput) best = { capacity, goodput }
	}
	return best.capacity
}

/** @param {Figures} mean of `n - 1` @param {Figures} figures the nth @param {number} n */
function meanOf(mean, figures, n) {
	const entries = Object.entries(mean).map(([key, value]) => {
		const each = figures[/** @type {keyof Figures} */ (key)]
		return [key, key === 'late' ? Math.max(value, each) : value + (each - value) / n]
	})
	return /** @type {Figures} */ (Object.fromEntries(entries))
}
