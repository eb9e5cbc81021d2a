import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { kinds } from './kinds.js'
import { load } from './load.js'

const REAL_POLICIES = [
	'no limiter',
	'express-queue',
	'overload-protection',
	'toobusy-js',
	'fixed, tuned',
	'adaptive',
]

/**
 * The goodput and p99 of each policy on a real Express server, in a process of its own.
 *
 * @param {string} name of a kind of server
 * @param {number[]} loads
 * @param {{ seconds: number, warmup: number }} time
 * @returns {Promise<Map<string, { goodput: number, p99: number }[]>>}
 */
export async function measure(name, loads, { seconds, warmup }) {
	const kind = kinds[name]
	if (kind === undefined) throw new Error(`no kind of server named ${name}`)
	/** @type {Map<string, { goodput: number, p99: number }[]>} */
	const results = new Map(REAL_POLICIES.map((policy) => [policy, []]))
	for (const [i, times] of loads.entries()) {
		for (const policy of REAL_POLICIES) {
			const child = fork(fileURLToPath(new URL('server.js', import.meta.url)), [policy, name])
			const [port] = await once(child, 'message')
			const result = await load(port, {
				rate: times * kind.rate,
				seconds,
				warmup,
				deadline: 500,
				seed: i + 1,
			})
			results.get(policy)?.push(result)
			child.kill('SIGKILL')
			await once(child, 'exit')
		}
	}
	return results
}
