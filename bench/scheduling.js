// `npm run bench:scheduling`: what order, priority and fair shares cost a request that waits,
// beside first come, first served.
import assert from 'node:assert/strict'
import { Limiter } from 'inflight-limit'
import { compare, printMachine, printMissed } from './harness.js'

const enter = /** @type {never} */ (Symbol.for('inflight-limit.enter'))
const FIFO = 'first come, first served'
/**
 * A client that stays. (A real signal, shared by so many, would take its listeners off in O(n).)
 */
const present = { aborted: false, addEventListener() {}, removeEventListener() {} }

/**
 * So many at once for 3 permits, and all of them served. (`adaptive` would send most of them away,
 * as it should.)
 *
 * @param {number} waiters
 * @param {object} options
 */
async function serve(waiters, options) {
	const limiter = new Limiter({ capacity: 3, maxQueue: Number.POSITIVE_INFINITY, ...options })
	let served = 0
	const come = async (/** @type {number} */ i) => {
		const entrance = /** @type {any} */ (limiter)[enter]({ i }, present)
		const stay = entrance.tag === 'waiting' ? await entrance.settled : entrance
		served++
		await null
		stay.leave('ok')
	}
	await Promise.all(Array.from({ length: waiters }, (_, i) => come(i)))
	assert.equal(served, waiters)
	assert.equal(limiter.active + limiter.queued, 0)
}

const WAITERS = 100_000
const fairOver =
	(/** @type {number} */ flows) =>
	(/** @type {{ i: number }} */ { i }) =>
		String(i % flows)
const weightOf = (/** @type {string} */ flow) => 1 + (Number(flow) % 7)
const alternatives = {
	[FIFO]: {},
	lifo: { order: 'lifo' },
	'3 priorities': { priority: (/** @type {{ i: number }} */ { i }) => i % 3 },
	'1,000 priorities': { priority: (/** @type {{ i: number }} */ { i }) => i % 1_000 },
	'fair between 10 flows': { fairBy: fairOver(10) },
	'fair between 1,000 flows': { fairBy: fairOver(1_000) },
	'fair between 100,000 flows': { fairBy: fairOver(100_000) },
	'by weight between 10 flows': { fairBy: fairOver(10), share: weightOf },
	'by weight between 100,000 flows': { fairBy: fairOver(100_000), share: weightOf },
	'3 priorities, 10,000 flows, lifo': {
		order: 'lifo',
		priority: (/** @type {{ i: number }} */ { i }) => i % 3,
		fairBy: fairOver(10_000),
	},
}

printMachine()
await compare(
	`${WAITERS} requests at once for 3 permits`,
	Object.entries(alternatives).map(([name, options]) => ({
		name,
		run: () => serve(WAITERS, options),
	})),
	{ rounds: 5, operations: WAITERS },
)

// What it costs more must not grow with how many wait. (That each costs more at all, is the
// memory’s doing.)
for (const size of [1_000, 10_000, 100_000]) {
	const fair = {
		[FIFO]: {},
		'fair between 10 flows': { fairBy: fairOver(10) },
		'fair, a flow each': { fairBy: fairOver(size) },
	}
	await compare(
		`${size} requests at once`,
		Object.entries(fair).map(([name, options]) => ({
			name,
			async run() {
				for (let done = 0; done < WAITERS; done += size) await serve(size, options)
			},
		})),
		{ rounds: 5, operations: WAITERS },
	)
}
printMissed()
