import { peakOf } from './downstream.js'
import { modelOf } from './model.js'
import { randomFrom } from './random.js'
import { simulate } from './simulation.js'

/**
 * Downstreams drawn at random, so that what holds on them was not fitted to a few.
 *
 * @typedef {import('./downstream.js').Knee} Knee
 * @typedef {(random: import('./random.js').Random) => number} Work
 * @typedef {{ seed: number, title: string, knee: Knee, peak: number, deadline: number, work: Work }} Member
 */

export const LOADS = [1, 1.5, 2, 5, 10]

/**
 * A logarithm that is normally distributed, with a mean of 1. @param {number} sigma @returns {Work}
 */
const logNormal = (sigma) => (random) => {
	const normal = Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
	return Math.exp(sigma * normal - sigma ** 2 / 2)
}

/** @type {[string, Work][]} */
const WORKS = [
	['constant', () => 1],
	['log-normal 0.2', logNormal(0.2)],
	['log-normal 0.5', logNormal(0.5)],
	['log-normal 1', logNormal(1)],
	['two sizes', (random) => (random.next() < 0.1 ? 10 : 1) / 1.9],
]

/** How round the knee is: the harmonic sum of 1, the square, or the hard corner. */
const BENDS = [1, 2, Number.POSITIVE_INFINITY]

/** @param {number} seed @returns {Member} */
export function drawFrom(seed) {
	const random = randomFrom(7919 * seed)
	for (let i = 0; i < 5; i++) random.next()
	const between = (/** @type {number} */ low, /** @type {number} */ high) =>
		Math.exp(Math.log(low) + random.next() * Math.log(high / low))
	const parallel = between(3, 300)
	const service = between(10, 1500)
	const [what, work] = /** @type {[string, Work]} */ (
		WORKS[Math.floor(random.next() * WORKS.length)]
	)
	const bend = /** @type {number} */ (BENDS[Math.floor(random.next() * BENDS.length)])
	// From a plateau, 1, to a hard collapse: twice as much at work is then answered at a quarter of
	// the rate.
	const power = 1 + 2 * random.next()
	const slowdown = (/** @type {number} */ ratio) =>
		bend === Number.POSITIVE_INFINITY
			? Math.max(1, ratio ** power)
			: (1 + ratio ** (bend * power)) ** (1 / bend)
	const knee = { name: `seed ${seed}`, service, knee: parallel, slowdown }
	const title = `${parallel.toFixed(0)} at once, ${service.toFixed(0)} ms, ${what}, power ${power.toFixed(2)}, bend ${bend}`
	return { seed, title, knee, peak: peakOf(knee), deadline: Math.max(1000, 5 * service), work }
}

/** The seconds before what counts, and of what counts. @param {Member} member */
function times({ peak }) {
	const warmup = Math.ceil(Math.max(10, 500 / peak))
	// So many answers that chance is about 0.01, of the fast ones not more than need be.
	const seconds = Math.ceil(Math.max(2, 5000 / peak))
	return { warmup, seconds }
}

/** @param {Member} member @param {number} load */
const scenarioOf = ({ seed, knee, deadline, work }, load) => ({
	downstream: knee,
	load,
	deadline,
	work,
	seed,
})

/** @typedef {{ capacity: number, maxQueue: number }} Fixed */

/**
 * Where the sweep looks, as parts of the downstream's parallelism; and how many may wait, as parts
 * of the limit.
 */
const CAPACITIES = [0.4, 0.5, 0.63, 0.8, 0.9, 1, 1.12, 1.26, 1.6, 2, 3.2]
const QUEUES = [0.25, 0, 0.5]

/**
 * The fixed limit that serves most over all loads, by a sweep; of those as good within 0.005, the
 * one with the shortest answers.
 *
 * @param {Member} member
 * @returns {Promise<Fixed>}
 */
export async function bestFixed(member) {
	const { knee, peak } = member
	/** @param {number} capacity @param {number} maxQueue */
	const score = async (capacity, maxQueue) => {
		let [goodput, p99] = [0, 0]
		for (const load of [1, 2, 10]) {
			const seconds = Math.max((load === 1 ? 4000 : 2000) / peak, 10 * (knee.service / 1000))
			const result = await simulate(modelOf({ capacity, maxQueue }), {
				...scenarioOf(member, load),
				seconds,
				warmup: (6 * knee.service) / 1000,
			})
			goodput += result.goodput / peak / 3
			p99 += result.p99 / 3
		}
		return { capacity, maxQueue, goodput, p99 }
	}
	let best = { capacity: 1, maxQueue: 0, goodput: 0, p99: 0 }
	const capacities = new Set(CAPACITIES.map((part) => Math.max(1, Math.round(part * knee.knee))))
	for (const queue of QUEUES) {
		// The queue matters less, so it is looked for at the best limit only.
		for (const capacity of queue === QUEUES[0] ? capacities : [best.capacity]) {
			const own = await score(capacity, Math.ceil(queue * capacity))
			const better =
				own.goodput > 1.005 * best.goodput ||
				(own.goodput > 0.995 * best.goodput && own.p99 < best.p99)
			if (better) best = own
		}
	}
	return { capacity: best.capacity, maxQueue: best.maxQueue }
}

/**
 * @typedef {{ goodput: number, p99: number, first: number }} Figures `first`: good answers in the first 5 s
 */

/**
 * @param {(clock: any) => import('./simulation.js').Policy} policy @param {Member} member @param
 * {number} load
 */
export async function measure(policy, member, load) {
	const { goodput, p99, goodEach, capacityEach } = await simulate(policy, {
		...scenarioOf(member, load),
		...times(member),
	})
	return { goodput, p99, first: sum(goodEach, 0, 5), capacityEach }
}

/** What becomes of a downstream: a quarter of the parallel work, or four times the service time. */
export const MOVES = /** @type {const} */ ([
	['knee to a quarter', (/** @type {Knee} */ knee) => ({ ...knee, knee: knee.knee / 4 })],
	[
		'service time times four',
		(/** @type {Knee} */ knee) => ({ ...knee, service: 4 * knee.service }),
	],
])

/**
 * Good answers a second after a move and after the move back, each in its first 3 s and after them,
 * as ratios to those of the fixed limit that is right for that time.
 *
 * @param {Member} member
 * @param {(clock: any) => import('./simulation.js').Policy} policy
 * @param {Fixed} fixed the best before the move
 * @param {(knee: Knee) => Knee} move
 */
export async function measureMoves(member, policy, fixed, move) {
	const { knee, peak } = member
	const become = move(knee)
	const part = become.knee / knee.knee
	const right = {
		capacity: Math.max(1, Math.round(part * fixed.capacity)),
		maxQueue: Math.ceil(part * fixed.maxQueue),
	}
	// As long as before what counts elsewhere; there, four times less is answered.
	const at = times(member).warmup
	const back = at + Math.ceil(Math.max(10, 2000 / peak))
	const scenario = {
		...scenarioOf(member, 1.5),
		// What takes four times as long is waited for as patiently as before.
		deadline: Math.max(1000, 5 * become.service),
		warmup: 0,
	}
	const { goodEach } = await simulate(policy, {
		...scenario,
		seconds: 2 * back - at,
		moves: [
			{ at, become },
			{ at: back, become: knee },
		],
	})
	const there = await simulate(modelOf(right), {
		...scenario,
		seconds: back,
		moves: [{ at: 0, become }],
	})
	const home = await simulate(modelOf(fixed), { ...scenario, seconds: back })
	const ratio = (
		/** @type {number} */ from,
		/** @type {number} */ to,
		/** @type {typeof there} */ possible,
	) => sum(goodEach, from, to) / (to - from) / (sum(possible.goodEach, at, back) / (back - at))
	return {
		there: ratio(at, at + 3, there),
		thereLater: ratio(at + 3, back, there),
		back: ratio(back, back + 3, home),
		backLater: ratio(back + 3, 2 * back - at, home),
	}
}

/** @param {number[]} values @param {number} from @param {number} to */
function sum(values, from, to) {
	return values.slice(from, to).reduce((all, each) => all + each, 0)
}
