// One process of a fleet, which does what it is told by messages.
import { setTimeout as sleep } from 'node:timers/promises'
import { peers } from './peers.js'

const { peer, ...options } = JSON.parse(/** @type {string} */ (process.argv[2]))
const fleet = await /** @type {NonNullable<typeof peers[string]>} */ (peers[peer])(options)

/** @type {Map<number, () => unknown>} */
const held = new Map()

/** By a clock that all processes of a machine share, in ms. */
const now = () => Number(process.hrtime.bigint() / 1_000n) / 1_000

/** @param {number} place */
async function acquire(place) {
	const permit = fleet.acquire().then((release) => {
		const at = now()
		held.set(place, release)
		process.send?.({ admitted: place, at })
	})
	permit.catch(() => {})
	// Some send only when a few promises have settled; then an answer to this means that all that was
	// sent has arrived.
	await new Promise(setImmediate)
	await new Promise(setImmediate)
	await fleet.ping()
	process.send?.({ arrived: place })
}

/** @param {number} place */
function release(place) {
	process.send?.({ released: place, at: now() })
	Promise.resolve(held.get(place)?.()).catch(() => {})
	held.delete(place)
}

/** Takes permits again and again. @param {{ workers: number, hold: number, ms: number }} options */
async function loop({ workers, hold, ms }) {
	/** @type {number[]} */
	const waits = []
	const until = now() + ms
	/** Since when each waits. @type {Map<number, number>} */
	const waiting = new Map()
	for (let i = 0; i < workers; i++) {
		;(async () => {
			while (now() < until) {
				const since = now()
				waiting.set(i, since)
				const release = await fleet.acquire()
				waiting.delete(i)
				if (now() < until) waits.push(now() - since)
				if (hold > 0) await sleep(hold)
				Promise.resolve(release()).catch(() => {})
			}
		})().catch(() => {})
	}
	await sleep(ms)
	// A waiter that is still queued has waited for this long already.
	const still = Array.from(waiting.values(), (since) => now() - since)
	process.send?.({ waits: [...waits, ...still], admitted: waits.length })
}

process.on('message', (/** @type {any} */ message) => {
	if ('acquire' in message) acquire(message.acquire)
	else if ('release' in message) release(message.release)
	else loop(message.loop)
})
process.on('disconnect', () => process.exit())
process.send?.('ready')
