import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { bestFixed, drawFrom, measure } from './family.js'
import { quantile } from './family-report.js'
import { modelOf } from './model.js'

/** The build, with the constants of the search as they are written in it. */
const BUILD = fileURLToPath(new URL('../../dist/esm', import.meta.url))
const FILES = ['search.js', 'meter.js', 'curve.js']

/** Two of five: what differs between these two differs between all. */
const LOADS = [1.5, 5]

/**
 * @typedef {{ file: string, name: string, from: string, to: (factor: number) => string, is: string
 * }} Constant
 */

/**
 * Each numeric constant at the top of a file: one by itself, or of a list. @returns {Constant[]}
 */
function constants() {
	return FILES.flatMap((file) => {
		const text = readFileSync(join(BUILD, 'src/adaptive', file), 'utf8')
		return Array.from(
			text.matchAll(/^const (\[?[A-Z_, ]+\]?) = (.+);$/gm),
			([line, names = '', values = '']) => {
				const listed = names.startsWith('[')
				const parts = listed ? values.slice(1, -1).split(', ') : [values]
				return names
					.replace(/[[\]]/g, '')
					.split(', ')
					.map((name, i) => ({
						file,
						name,
						from: line,
						to: (/** @type {number} */ factor) => {
							const changed = parts.map((part, n) => (n === i ? `${factor} * (${part})` : part))
							return `const ${names} = ${listed ? `[${changed.join(', ')}]` : changed[0]};`
						},
						is: parts[i] ?? '',
					}))
			},
		).flat()
	})
}

/**
 * How the result changes when one constant is halved, and when it is doubled.
 *
 * @param {number[]} seeds
 */
export async function reportSensitivity(seeds) {
	const folder = mkdtempSync(join(tmpdir(), 'sensitivity-'))
	/** @type {{ member: import('./family.js').Member, best: import('./family.js').Figures[] }[]} */
	const members = []
	for (const seed of seeds) {
		const member = drawFrom(seed)
		const policy = modelOf(await bestFixed(member))
		const best = []
		for (const load of LOADS) best.push(await measure(policy, member, load))
		members.push({ member, best })
	}
	/** @param {string} name of a build @param {(build: string) => void} change */
	const figures = async (name, change) => {
		const build = join(folder, name)
		cpSync(BUILD, build, { recursive: true })
		change(build)
		const { adaptive } = await import(pathToFileURL(join(build, 'src/adaptive/index.js')).href)
		const [goodput, p99, first] = [
			/** @type {number[]} */ ([]),
			/** @type {number[]} */ ([]),
			/** @type {number[]} */ ([]),
		]
		for (const { member, best } of members) {
			for (const [i, load] of LOADS.entries()) {
				const own = await measure(modelOf({ capacity: adaptive() }), member, load)
				const fixed = /** @type {import('./family.js').Figures} */ (best[i])
				goodput.push(own.goodput / fixed.goodput)
				p99.push(own.p99 / fixed.p99)
				first.push(own.first / Math.max(1, fixed.first))
			}
		}
		rmSync(build, { recursive: true })
		const all = [
			quantile(goodput, 0.5),
			quantile(goodput, 0.1),
			quantile(p99, 0.9),
			quantile(first, 0.5),
		]
		return all.map((each) => each.toFixed(3).padStart(8)).join('')
	}
	try {
		console.log(
			`goodput: median, lowest tenth / p99: highest tenth / first 5 s: median; loads ${LOADS.join(' and ')}\n`,
		)
		console.log(`${'as it is'.padEnd(40)}${await figures('as-it-is', () => {})}`)
		for (const { file, name, from, to, is } of constants()) {
			const cells = []
			for (const factor of [0.5, 2]) {
				cells.push(
					await figures(`${file}-${name}-${factor}`, (build) => {
						const path = join(build, 'src/adaptive', file)
						writeFileSync(path, readFileSync(path, 'utf8').replace(from, to(factor)))
					}),
				)
			}
			console.log(`${`${name} = ${is}`.padEnd(40)}${cells.join('   ')}`)
		}
	} finally {
		rmSync(folder, { recursive: true })
	}
}
