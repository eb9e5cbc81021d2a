import { adaptive } from 'inflight-limit/adaptive'
import { peakOf } from './downstream.js'
import { modelOf } from './model.js'
import { simulate } from './simulation.js'

/** The downstream of the picture: its knee goes to a half, and comes back. */
const DOWNSTREAM = {
	name: '',
	service: 50,
	knee: 60,
	slowdown: (/** @type {number} */ ratio) => Math.max(1, ratio ** 2),
}
const HALF = { ...DOWNSTREAM, knee: 30 }
const [MOVED, BACK, END] = [20, 35, 50]

/** Where things are drawn: the limit above, the goodput below. */
const [LEFT, RIGHT] = [60, 640]
const LIMIT = { top: 40, bottom: 230, most: 140 }
const RATE = { top: 270, bottom: 380, most: 1300 }

/** @param {number} seconds */
const x = (seconds) => LEFT + ((RIGHT - LEFT) * seconds) / END
/** @param {{ top: number, bottom: number, most: number }} place @param {number} value */
const y = ({ top, bottom, most }, value) => bottom - ((bottom - top) * Math.min(value, most)) / most

/** A line that stays until it changes. @param {[seconds: number, height: number][]} points */
function steps(points) {
	let path = ''
	for (const [i, [at, height]] of points.entries()) {
		path +=
			i === 0
				? `M${x(at).toFixed(1)},${height.toFixed(1)}`
				: `H${x(at).toFixed(1)}V${height.toFixed(1)}`
	}
	return `${path}H${RIGHT}`
}

/**
 * A search as it happens, at twice the load, in virtual time: the same picture each time. @returns
 * the picture, as SVG
 */
export async function searchDrawing() {
	/** @type {[number, number][]} */
	const limits = []
	const newController = () => {
		const controller = adaptive().newController()
		limits.push([0, controller.initial])
		return {
			...controller,
			sample(/** @type {import('inflight-limit').Sample} */ sample) {
				const limit = controller.sample(sample)
				if (limit !== limits.at(-1)?.[1]) limits.push([sample.now / 1000, limit])
				return limit
			},
		}
	}
	const { goodEach } = await simulate(modelOf({ capacity: { newController } }), {
		downstream: DOWNSTREAM,
		load: 2,
		seconds: END,
		warmup: 0,
		deadline: 1000,
		moves: [
			{ at: MOVED, become: HALF },
			{ at: BACK, become: DOWNSTREAM },
		],
	})
	/**
	 * @param {{ top: number, bottom: number, most: number }} place @param {(knee: typeof DOWNSTREAM)
	 * => number} of
	 */
	const known = (place, of) =>
		steps([
			[0, y(place, of(DOWNSTREAM))],
			[MOVED, y(place, of(HALF))],
			[BACK, y(place, of(DOWNSTREAM))],
		])
	const ticks = [0, 10, 20, 30, 40, 50].map(
		(at) => `<text class="t" x="${x(at)}" y="400" text-anchor="middle">${at} s</text>`,
	)
	const axis = (
		/** @type {{ top: number, bottom: number, most: number }} */ { top, bottom, most },
	) =>
		`<line class="a" x1="${LEFT}" y1="${bottom}" x2="${RIGHT}" y2="${bottom}"/><line class="a" x1="${LEFT}" y1="${top}" x2="${LEFT}" y2="${bottom}"/><text class="t" x="${LEFT - 8}" y="${bottom + 5}" text-anchor="end">0</text><text class="t" x="${LEFT - 8}" y="${top + 5}" text-anchor="end">${most}</text>`
	return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 420" font-family="sans-serif" font-size="14" role="img" aria-label="The limit over time: it doubles from 4 to the knee, looks above and below it, and follows the knee when it moves">
<style>.t{fill:#57606a}.a{stroke:#8b949e}.k{stroke:#b8860b;fill:none;stroke-dasharray:6 4}.l{stroke:#1a9850;fill:none;stroke-width:2}@media (prefers-color-scheme:dark){.t{fill:#adbac7}}</style>
${axis(LIMIT)}
${axis(RATE)}
<text class="t" x="${LEFT}" y="24">the limit, and the knee (dashed)</text>
<text class="t" x="${LEFT}" y="258">good answers a second, and what is possible (dashed)</text>
<path class="k" d="${known(LIMIT, ({ knee }) => knee)}"/>
<path class="l" d="${steps(limits.map(([at, limit]) => [at, y(LIMIT, limit)]))}"/>
<path class="k" d="${known(RATE, peakOf)}"/>
<path class="l" d="${steps(goodEach.slice(0, END).map((good, at) => [at, y(RATE, good)]))}"/>
${ticks.join('\n')}
</svg>
`
}
