import { adaptive } from 'inflight-limit/adaptive'
import { bestFixed, drawFrom, LOADS, MOVES, measure, measureMoves } from './family.js'
import { modelOf } from './model.js'

/**
 * @typedef {{ load: number, goodput: number, p99: number, first: number }} Ratios to the best fixed
 * limit
 */

/** @param {string} range like `1001..1012`, or one seed */
export function seedsOf(range) {
	const [first = Number.NaN, last = first] = range.split('..').map(Number)
	if (!Number.isInteger(first) || !Number.isInteger(last) || last < first) {
		throw new RangeError(`--seeds must be like 1001..1012; got ${range}`)
	}
	return Array.from({ length: last - first + 1 }, (_, i) => first + i)
}

/** The value that a part of all is below. @param {number[]} values @param {number} part */
export function quantile(values, part) {
	const sorted = values.toSorted((a, b) => a - b)
	return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN
}

/**
 * `adaptive()` on each downstream of the family, as ratios to the fixed limit that is the best for
 * it.
 *
 * @param {number[]} seeds
 */
export async function reportFamily(seeds) {
	/** @type {Ratios[]} */
	const all = []
	/** @type {Map<string, Awaited<ReturnType<typeof measureMoves>>[]>} */
	const moved = new Map(MOVES.map(([what]) => [what, []]))
	console.log('goodput / p99 / goodput of the first 5 s, each to the best fixed limit\n')
	for (const seed of seeds) {
		const member = drawFrom(seed)
		const fixed = await bestFixed(member)
		const cells = []
		for (const load of LOADS) {
			const best = await measure(modelOf(fixed), member, load)
			const own = await measure(modelOf({ capacity: adaptive() }), member, load)
			const ratios = {
				load,
				goodput: own.goodput / best.goodput,
				p99: own.p99 / best.p99,
				first: own.first / Math.max(1, best.first),
			}
			all.push(ratios)
			cells.push(`${ratios.goodput.toFixed(2)}/${ratios.p99.toFixed(1)}/${ratios.first.toFixed(2)}`)
		}
		for (const [what, move] of MOVES) {
			moved
				.get(what)
				?.push(await measureMoves(member, modelOf({ capacity: adaptive() }), fixed, move))
		}
		const { capacity, maxQueue } = fixed
		console.log(`${seed}: ${member.title}; best fixed: ${capacity} at work, ${maxQueue} waiting`)
		console.log(`      ${cells.map((cell) => cell.padStart(16)).join('')}`)
	}
	console.log(
		`\n${'load'.padEnd(8)}${['goodput: median', 'lowest tenth', 'worst', 'p99: median', 'highest tenth', 'first 5 s: median', 'lowest tenth'].map((each) => each.padStart(19)).join('')}`,
	)
	for (const load of [...LOADS, 'all']) {
		const rows = all.filter((row) => load === 'all' || row.load === load)
		const of = (/** @type {keyof Ratios} */ name) => rows.map((row) => row[name])
		const figures = [
			quantile(of('goodput'), 0.5),
			quantile(of('goodput'), 0.1),
			quantile(of('goodput'), 0),
			quantile(of('p99'), 0.5),
			quantile(of('p99'), 0.9),
			quantile(of('first'), 0.5),
			quantile(of('first'), 0.1),
		]
		console.log(
			`${String(load).padEnd(8)}${figures.map((figure) => figure.toFixed(3).padStart(19)).join('')}`,
		)
	}
	console.log(
		'\ngoodput at 1.5 times the load, after a move and after the move back, to the fixed limit for it',
	)
	const columns = /** @type {const} */ ([
		['there', 'the 3 s after it'],
		['thereLater', 'later'],
		['back', 'the 3 s after the way back'],
		['backLater', 'later'],
	])
	for (const [what, rows] of moved) {
		for (const [column, when] of columns) {
			const values = rows.map((row) => row[column])
			const cells = [0.5, 0.1, 0].map((part) => quantile(values, part).toFixed(3).padStart(8))
			console.log(`  ${`${what}: ${when}`.padEnd(56)}${cells.join('')}`)
		}
	}
}
