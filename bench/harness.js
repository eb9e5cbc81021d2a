import os from 'node:os'

/**
 * Something to be timed: its result is verified once before anything is timed.
 *
 * @typedef {object} Alternative
 * @property {string} name
 * @property {() => unknown} run
 * @property {(() => unknown) | undefined} [verify] throws if what `run` does is not what it should
 * be
 */

/** @param {number[]} values */
export function median(values) {
	const sorted = values.toSorted((a, b) => a - b)
	return /** @type {number} */ (sorted[sorted.length >> 1])
}

export function printMachine() {
	console.log(
		`${os.cpus()[0]?.model.trim()}, ${os.cpus().length} cores, Node ${process.version}, ${os.platform()}`,
	)
	console.log('Only ratios mean something: of alternatives that ran in turn in this run.\n')
}

/** @type {string[]} */
const missed = []

/** @param {string} title @param {string[]} [columns] */
export function printTitle(title, columns = ['ratio']) {
	console.log(`\n${title}`)
	console.log(`  ${''.padEnd(34)}${columns.map((column) => column.padStart(12)).join('')}`)
}

/**
 * @param {string} name
 * @param {(number | string)[]} figures - the first is what `target` bounds
 * @param {number} [target]
 */
export function printRow(name, figures, target) {
	const cells = figures.map((figure) =>
		(typeof figure === 'number' ? figure.toFixed(2) : figure).padStart(12),
	)
	let verdict = ''
	if (target !== undefined) {
		const reached = Number(figures[0]) <= target
		verdict = `   target ${target}: ${reached ? 'reached' : 'MISSED'}`
		if (!reached) missed.push(`${name}: ${cells[0]?.trim()} instead of ${target}`)
	}
	console.log(`  ${name.padEnd(34)}${cells.join('')}${verdict}`)
}

export function printMissed() {
	console.log(
		missed.length === 0 ? '\nAll targets are reached.' : `\nMissed:\n  ${missed.join('\n  ')}`,
	)
}

/**
 * Times all alternatives in turn, round after round, and prints each one's time as a ratio to that
 * of the first, with the middle half of the ratios as the noise.
 *
 * @param {string} title
 * @param {Alternative[]} alternatives
 * @param {{ rounds: number, operations: number, targets?: Record<string, number>, collect?: boolean
 * }} options - `collect`: the heap is cleared before each round, for alternatives that leave
 * garbage, which the next one would pay for. It leaves the young generation cold, which distorts
 * times of nanoseconds.
 */
export async function compare(
	title,
	alternatives,
	{ rounds, operations, targets = {}, collect = false },
) {
	for (const { verify } of alternatives) await verify?.()
	for (const { run } of alternatives) await run()
	/** @type {number[][]} */
	const times = alternatives.map(() => [])
	for (let round = 0; round < rounds; round++) {
		for (const [i, { run }] of alternatives.entries()) {
			if (collect) globalThis.gc?.()
			const start = process.hrtime.bigint()
			await run()
			times[i]?.push(Number(process.hrtime.bigint() - start))
		}
	}
	printTitle(title, ['ratio', 'noise', 'ns each'])
	for (const [i, { name }] of alternatives.entries()) {
		const own = /** @type {number[]} */ (times[i])
		const ratios = own.map((time, round) => time / /** @type {number} */ (times[0]?.[round]))
		const sorted = ratios.toSorted((a, b) => a - b)
		const [low, high] = [0.25, 0.75].map((part) =>
			sorted[Math.floor(part * sorted.length)]?.toFixed(2),
		)
		printRow(
			name,
			[median(ratios), `${low}-${high}`, (median(own) / operations).toFixed(0)],
			targets[name],
		)
	}
}
