// `npm run bench:overload`: which limiters go on answering under overload. First in virtual time,
// where results repeat to the digit, then on real Express servers. `--quick`: a shorter run;
// `--simulation` and `--real`: only that. `npm run bench:overload -- family --seeds 1001..1012`:
// only `adaptive()`, on downstreams drawn at random from these seeds. `npm run bench:overload --
// sensitivity`: the same, with each constant of the search halved, and doubled. `npm run
// bench:overload -- picture`: draws a search as it happens. `npm run bench:overload -- crowd`: what
// `Retry-After` spares a crowd that obeys it.
import { writeFileSync } from 'node:fs'
import { Limiter } from 'inflight-limit'
import { adaptive } from 'inflight-limit/adaptive'
import { printMachine } from './harness.js'
import { reportCrowd } from './overload/crowd.js'
import { downstreams, peakOf } from './overload/downstream.js'
import { drawing } from './overload/drawing.js'
import { reportFamily, seedsOf } from './overload/family-report.js'
import { expressQueue, gradient2, vegas, windowed } from './overload/peers.js'
import { limiterOf, none } from './overload/policies.js'
import { measure, tune as tuneReal } from './overload/real.js'
import { searchDrawing } from './overload/search-drawing.js'
import { reportSensitivity } from './overload/sensitivity.js'
import { simulate } from './overload/simulation.js'

const quick = process.argv.includes('--quick')
const simulationOnly = process.argv.includes('--simulation')
const realOnly = process.argv.includes('--real')
const LOADS = [0.5, 0.9, 1, 2, 5, 10]
const SECONDS = quick ? 8 : 20
const SEEDS = quick ? [1] : [1, 2, 3]
/** Where two are close: so many that what is left of chance in their ratio is about 0.003. */
const MANY_SEEDS = quick ? [1] : [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
const OURS = 'adaptive'
const TUNED = 'fixed, tuned'

/**
 * @param {string} what @param {number} own @param {number} target @param {'least' | 'most'} bound
 * @param {string} peer
 */
function report(what, own, target, bound, peer) {
	const reached = bound === 'least' ? own >= target : own <= target
	console.log(
		`  ${what.padEnd(58)}${own.toFixed(3).padStart(8)}   at ${bound} ${target}: ${reached ? 'reached' : 'MISSED'}   ${peer}`,
	)
}

/**
 * The fixed limit that serves most over all loads past the knee; of those as good, the one with the
 * shortest answers. @param {import('./overload/downstream.js').Knee} downstream
 */
async function tune(downstream) {
	let best = { capacity: 0, maxQueue: 0, goodput: 0, p99: 0 }
	for (const part of [0.8, 0.9, 1, 1.1]) {
		for (const queue of [0.15, 0.3, 0.6]) {
			const capacity = Math.round(part * downstream.knee)
			const maxQueue = Math.ceil(queue * capacity)
			let goodput = 0
			let p99 = 0
			for (const load of [1, 5]) {
				const result = await simulate(limiterOf({ capacity, maxQueue }, Limiter), {
					downstream,
					load,
					seconds: SECONDS / 2,
				})
				goodput += result.goodput
				p99 += result.p99
			}
			const better =
				goodput > 1.005 * best.goodput || (goodput > 0.995 * best.goodput && p99 < best.p99)
			if (better) best = { capacity, maxQueue, goodput, p99 }
		}
	}
	return best
}

/** @param {number[]} values @param {number} from @param {number} to */
function mean(values, from, to) {
	return values.slice(from, to).reduce((sum, each) => sum + each, 0) / (to - from)
}

/**
 * The same with several seeds.
 *
 * @param {(clock: import('./overload/clock.js').Clock) =>
 * import('./overload/simulation.js').Policy} policy
 * @param {import('./overload/simulation.js').Scenario} scenario
 * @returns {Promise<{ goodput: number, p99: number, important: number, jain: number }>} means
 */
async function average(policy, scenario, seeds = SEEDS) {
	const mean = { goodput: 0, p99: 0, important: 0, jain: 0 }
	for (const seed of seeds) {
		const { goodput, p99, importantGood, importantClients, goodOf } = await simulate(policy, {
			...scenario,
			seed,
		})
		const served = [...goodOf.values()]
		const sum = served.reduce((all, each) => all + each, 0)
		const squares = served.reduce((all, each) => all + each ** 2, 0)
		mean.goodput += goodput / seeds.length
		mean.p99 += p99 / seeds.length
		mean.important += importantGood / Math.max(1, importantClients) / seeds.length
		mean.jain += sum ** 2 / (served.length * squares) / seeds.length
	}
	return mean
}

/**
 * Good answers a second from 3 s after a move at 10 s, and from 3 s after one at 20 s, each until
 * the next.
 *
 * @param {(clock: import('./overload/clock.js').Clock) =>
 * import('./overload/simulation.js').Policy} policy
 * @param {import('./overload/downstream.js').Knee} downstream
 * @param {{ at: number, become: import('./overload/downstream.js').Knee }[]} moves
 * @returns {Promise<[number, number]>} means of several seeds
 */
async function afterMoves(policy, downstream, moves) {
	let [first, second] = [0, 0]
	const seeds = quick ? [1] : [1, 2, 3, 4, 5]
	for (const seed of seeds) {
		const { goodEach } = await simulate(policy, {
			downstream,
			load: 1.5,
			seconds: 25,
			seed,
			deadline: Math.max(1000, 20 * downstream.service),
			moves,
		})
		first += mean(goodEach, 13, 20) / seeds.length
		second += mean(goodEach, 23, 30) / seeds.length
	}
	return [first, second]
}

/**
 * What is served at ten times the load, by ours and by the tuned limit as it is. @param
 * {import('./overload/downstream.js').Knee} downstream @param {{ capacity: number, maxQueue: number
 * }} tuned
 */
async function chosen(downstream, tuned) {
	const scenario = { downstream, load: 10, seconds: SECONDS }
	const flows = Array.from({ length: 10 }, (_, i) => ({
		name: String(i),
		weight: i === 0 ? 20 : 1,
	}))
	const priority = (/** @type {any} */ request) => Number(request.important)
	const fairBy = (/** @type {any} */ request) => request.flow
	const waiting = { maxQueue: Math.max(20, tuned.capacity) }
	// The important ones alone are as much as can be done at the very most, and then a little less.
	for (const share of [0.1, 0.09]) {
		const important = { ...scenario, important: share }
		const [own, fixed, plain] = [
			await average(limiterOf({ capacity: adaptive(), priority }, Limiter), important),
			await average(limiterOf({ ...tuned, ...waiting, priority }, Limiter), important),
			await average(limiterOf(tuned, Limiter), important),
		]
		report(
			`important ones, ${100 * share} % at 10 x, answered in time`,
			own.important,
			0.99,
			'least',
			`tuned with priority ${fixed.important.toFixed(3)}, without ${plain.important.toFixed(3)}`,
		)
	}
	const [fair, unfair] = [
		await average(
			limiterOf({ capacity: adaptive(), fairBy }, Limiter),
			{ ...scenario, flows },
			MANY_SEEDS,
		),
		await average(limiterOf(tuned, Limiter), { ...scenario, flows }, MANY_SEEDS),
	]
	report(
		'Jain index, one flow sends 20 times as much as each of 9',
		fair.jain,
		0.98,
		'least',
		`tuned, first come first served ${unfair.jain.toFixed(3)}`,
	)
	report('  and goodput to tuned', fair.goodput / unfair.goodput, 0.97, 'least', '')
}

/** @param {import('./overload/downstream.js').Knee} downstream */
async function simulateAll(downstream) {
	const peak = peakOf(downstream)
	const { capacity, maxQueue } = await tune(downstream)
	console.log(
		`\n${downstream.name}: at most ${peak.toFixed(0)}/s; tuned: ${capacity} at work, ${maxQueue} waiting`,
	)
	console.log(
		`  goodput as a part of that / p99 in ms      ${LOADS.map((load) => `${load} x`.padStart(12)).join('')}`,
	)
	/** @type {Record<string, () => import('./overload/simulation.js').Policy>} */
	const policies = {
		'no limiter': none,
		'express-queue': expressQueue(capacity, Limiter),
		Gradient2: limiterOf({ capacity: windowed(gradient2), maxQueue: 0 }, Limiter),
		Vegas: limiterOf({ capacity: windowed(vegas), maxQueue: 0 }, Limiter),
		[TUNED]: limiterOf({ capacity, maxQueue }, Limiter),
		[OURS]: limiterOf({ capacity: adaptive() }, Limiter),
	}
	/** @type {Map<string, { goodput: number, p99: number }[]>} */
	const results = new Map()
	for (const [name, policy] of Object.entries(policies)) {
		const row = []
		for (const load of LOADS) {
			// What collapses takes all the time there is, and shows it soon.
			const collapses = name === 'no limiter' || name === 'express-queue'
			const close = name === TUNED || name === OURS
			row.push(
				collapses
					? await average(policy, { downstream, load, seconds: 3, warmup: 2 }, [1])
					: await average(
							policy,
							{ downstream, load, seconds: SECONDS },
							close ? MANY_SEEDS : SEEDS,
						),
			)
		}
		results.set(name, row)
		const cells = row.map(({ goodput, p99 }) =>
			`${(goodput / peak).toFixed(2)}/${p99.toFixed(0)}`.padStart(12),
		)
		console.log(`  ${name.padEnd(42)}${cells.join('')}`)
	}
	const of = (/** @type {string} */ name) =>
		/** @type {{ goodput: number, p99: number }[]} */ (results.get(name))
	for (const [i, load] of LOADS.entries()) {
		const [own, tuned] = [of(OURS)[i], of(TUNED)[i]]
		if (own === undefined || tuned === undefined) continue
		const peers = ['no limiter', 'express-queue', 'Gradient2', 'Vegas'].map(
			(name) => /** @type {const} */ ([name, of(name)[i]?.goodput ?? 0]),
		)
		const [name, goodput] = peers.reduce((best, each) => (each[1] > best[1] ? each : best))
		report(
			`goodput to tuned, ${load} x`,
			own.goodput / tuned.goodput,
			0.97,
			'least',
			`best peer: ${name} ${(goodput / tuned.goodput).toFixed(2)}`,
		)
		report(`p99 to tuned, ${load} x`, own.p99 / tuned.p99, 1.3, 'most', '')
	}

	for (const load of [0.9, 2]) {
		const start = { downstream, load, seconds: 5, warmup: 0 }
		const own = await average(limiterOf({ capacity: adaptive() }, Limiter), start, MANY_SEEDS)
		const tuned = await average(limiterOf({ capacity, maxQueue }, Limiter), start, MANY_SEEDS)
		report(
			`the first 5 s after the start, ${load} x`,
			own.goodput / tuned.goodput,
			0.97,
			'least',
			'',
		)
	}
	for (const [what, become] of /** @type {const} */ ([
		['parallel work to a quarter', { ...downstream, knee: downstream.knee / 4 }],
		['service time four times', { ...downstream, service: 4 * downstream.service }],
	])) {
		const part = become.knee / downstream.knee
		const moved = limiterOf(
			{ capacity: Math.round(part * capacity), maxQueue: Math.ceil(part * maxQueue) },
			Limiter,
		)
		const there = { at: 10, become }
		const back = { at: 20, become: downstream }
		const possible = await afterMoves(moved, downstream, [{ at: 0, become }])
		const unmoved = await afterMoves(limiterOf({ capacity, maxQueue }, Limiter), downstream, [])
		/** @type {Record<string, [number, number]>} */
		const parts = {}
		for (const name of ['Gradient2', 'Vegas', OURS]) {
			const after = await afterMoves(/** @type {any} */ (policies[name]), downstream, [there, back])
			parts[name] = [after[0] / possible[0], after[1] / unmoved[1]]
		}
		for (const [i, way] of ['', ', and back'].entries()) {
			const [g, v, own] = ['Gradient2', 'Vegas', OURS].map((name) => parts[name]?.[i] ?? 0)
			report(
				`${what}${way}: to tuned for it, from 3 s on`,
				own ?? 0,
				0.9,
				'least',
				`Gradient2 ${g?.toFixed(2)}, Vegas ${v?.toFixed(2)}`,
			)
		}
	}
	const own = limiterOf({ capacity: adaptive() }, Limiter)
	const twiceTheLoad = { downstream, load: 2, seconds: SECONDS }
	const without = await average(own, { ...twiceTheLoad, retries: 0 }, MANY_SEEDS)
	const twice = await average(own, { ...twiceTheLoad, retries: 2 }, MANY_SEEDS)
	report(
		'two retries to none, 2 x (1, but for chance)',
		twice.goodput / without.goodput,
		0.99,
		'least',
		'',
	)
	await chosen(downstream, { capacity, maxQueue })
}

/** Whether the limit drifts away under a mild overload. @param {number} hours */
async function drift(hours) {
	const downstream = /** @type {import('./overload/downstream.js').Knee} */ (downstreams[0])
	const { goodEach } = await simulate(limiterOf({ capacity: adaptive() }, Limiter), {
		downstream,
		load: 1.05,
		seconds: hours * 3600,
		warmup: 60,
	})
	const part = goodEach.length / 6
	const parts = [1, 2, 3, 4, 5, 6].map(
		(i) => mean(goodEach, Math.floor((i - 1) * part), Math.floor(i * part)) / peakOf(downstream),
	)
	console.log(
		`\n1.05 x for ${hours} virtual hours, goodput in each sixth: ${parts.map((each) => each.toFixed(3)).join(' ')}`,
	)
	report('last sixth to the first', (parts[5] ?? 0) / (parts[0] ?? 1), 0.97, 'least', '')
}

const LAG_SHEDDERS = ['overload-protection', 'toobusy-js']
const PEERS = ['no limiter', 'express-queue', ...LAG_SHEDDERS]

/**
 * The policies that a real server's own is held against, and how much of the best of them it is to
 * reach.
 */
const REAL = [
	{ kind: 'io', loads: [0.5, 1, 2, 5, 10], against: [TUNED], aim: 0.97 },
	{ kind: 'cpu', loads: [2, 5, 10], against: LAG_SHEDDERS, aim: 1.1 },
	{ kind: 'cpu, kept', loads: [2, 5, 10], against: LAG_SHEDDERS, aim: 1.1 },
	{ kind: 'mixed', loads: [2, 5], against: [TUNED, ...LAG_SHEDDERS], aim: 1 },
]

async function real() {
	const time = quick ? { seconds: 1, warmup: 3 } : { seconds: 6, warmup: 5 }
	// At some 200 requests a second the limit is found after 10 s; what it costs until then is a row
	// of the simulation.
	const closer = quick ? { ...time, rounds: 1 } : { seconds: 10, warmup: 15, rounds: 3 }
	for (const { kind, loads, against, aim } of REAL) {
		const own = quick ? [5] : loads
		// With nothing to wait for there is no knee, and any limit is as good.
		const computes = kind.startsWith('cpu')
		const capacity = computes ? 4 : quick ? 20 : await tuneReal(kind, { seconds: 5, warmup: 2 })
		// No limit on concurrency, and so no queue either, bounds what only computes.
		const policies = computes
			? ['no limiter', ...LAG_SHEDDERS, TUNED, OURS]
			: [...PEERS, TUNED, OURS]
		// Those of which neither collapses are held against each other, and chance is about 0.03 in one
		// round.
		const close = computes ? policies : [TUNED, OURS]
		const others = policies.filter((name) => !close.includes(name))
		const results = new Map([
			...(await measure(kind, others, capacity, own, { ...time, rounds: 1 })),
			...(await measure(kind, close, capacity, own, computes ? { ...time, rounds: 1 } : closer)),
		])
		console.log(
			`\nreal server, ${kind}: goodput a second / p99 in ms; tuned: ${capacity} at work\n${' '.repeat(44)}${own.map((load) => `${load} x`.padStart(12)).join('')}`,
		)
		for (const [name, row] of results) {
			const cells = row.map(({ goodput, p99 }) =>
				`${goodput.toFixed(0)}/${p99.toFixed(0)}`.padStart(12),
			)
			console.log(`  ${name.padEnd(42)}${cells.join('')}`)
		}
		console.log(
			'  requests planned, attempts sent, attempts read by the server, a second; sent late at most, in ms',
		)
		for (const [name, row] of results) {
			const cells = row.map(({ planned, offered, reached, late }) =>
				`${[planned, offered, reached].map((each) => each.toFixed(0)).join(' ')}; ${late.toFixed(0)}`.padStart(
					22,
				),
			)
			console.log(`  ${name.padEnd(22)}${cells.join('')}`)
		}
		for (const [i, load] of own.entries()) {
			const goodputs = Array.from(results, ([name, row]) => ({
				name,
				goodput: row[i]?.goodput ?? 0,
			}))
			const best = (/** @type {string[]} */ names) =>
				goodputs
					.filter(({ name }) => names.includes(name))
					.reduce((most, each) => (each.goodput > most.goodput ? each : most))
			const [peer, bound] = [best(PEERS), best(against)]
			report(
				`goodput to the best of ${against.length === 1 ? 'tuned' : `the ${against.length}`}, ${kind}, ${load} x`,
				best([OURS]).goodput / Math.max(1, bound.goodput),
				aim,
				'least',
				`against: ${bound.name} ${bound.goodput.toFixed(0)}; best peer: ${peer.name} ${peer.goodput.toFixed(0)}`,
			)
		}
		if (kind === 'io' && !quick) {
			writeFileSync(new URL('../docs/overload.svg', import.meta.url), drawing(own, results))
			console.log('  drawn in docs/overload.svg')
		}
	}
}

printMachine()
if (process.argv[2] === 'family') {
	const at = process.argv.indexOf('--seeds')
	await reportFamily(seedsOf(at === -1 ? '1001..1012' : String(process.argv[at + 1])))
} else if (process.argv[2] === 'crowd') {
	await reportCrowd()
} else if (process.argv[2] === 'picture') {
	writeFileSync(new URL('../docs/adaptive-search.svg', import.meta.url), await searchDrawing())
	console.log('drawn in docs/adaptive-search.svg')
} else if (process.argv[2] === 'sensitivity') {
	const at = process.argv.indexOf('--seeds')
	await reportSensitivity(seedsOf(at === -1 ? '1..16' : String(process.argv[at + 1])))
} else {
	if (!realOnly) {
		for (const downstream of downstreams) await simulateAll(downstream)
		await drift(quick ? 0.1 : 6)
	}
	if (!simulationOnly) await real()
}
