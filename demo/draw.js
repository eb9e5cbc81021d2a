/**
 * What became of one request. Times in ms since the round began.
 *
 * @typedef {object} Story
 * @property {string} name
 * @property {number} sent
 * @property {number} [begun] when its handler began, if it did
 * @property {number} [done] when its handler was done
 * @property {number} [left] when its client left, if it did
 * @property {number} [answered]
 * @property {string} outcome
 */

const WIDTH = 44

const colours = process.stdout.hasColors?.() && !process.env.NO_COLOR

/** @param {number} code @param {string} text */
function paint(code, text) {
	return colours ? `\x1b[${code}m${text}\x1b[0m` : text
}

const waiting = '·'
const working = '█'
const abandoned = '░'
const end = '×'

/** @param {string} marks */
function paintMarks(marks) {
	return marks
		.replace(/·+/g, (run) => paint(33, run))
		.replace(/█+/g, (run) => paint(32, run))
		.replace(/░+/g, (run) => paint(35, run))
		.replace(/×/g, (run) => paint(31, run))
}

/** @param {number | undefined} ms */
function time(ms) {
	return (ms === undefined ? '-' : String(Math.max(0, Math.round(ms)))).padStart(6)
}

/** @param {Story} story @param {number} length of the time axis in ms */
function line({ name, sent, begun, done = begun, left, answered, outcome }, length) {
	const cell = (/** @type {number} */ ms) =>
		Math.min(WIDTH - 1, Math.round((ms / length) * (WIDTH - 1)))
	const cells = Array(WIDTH).fill(' ')
	const waitEnd = begun ?? left ?? answered ?? sent
	cells.fill(waiting, cell(sent), cell(waitEnd))
	if (begun !== undefined && done !== undefined) {
		cells.fill(working, cell(begun), Math.max(cell(begun) + 1, cell(Math.min(done, left ?? done))))
		if (left !== undefined) cells.fill(abandoned, cell(left), cell(done))
	}
	if (begun === undefined || left !== undefined) cells[cell(left ?? answered ?? sent)] = end
	const marks = cells.join('')
	const wait = waitEnd - sent
	const work = begun === undefined || done === undefined ? undefined : done - begun
	return `${name.padStart(3)} ${paintMarks(marks)} ${time(wait)} ${time(work)}  ${outcome}`
}

/**
 * Draws one line for each request, on a common time axis.
 *
 * @param {Story[]} stories
 */
export function drawRound(stories) {
	const length = Math.max(
		...stories.flatMap(({ done, answered, left }) => [done ?? 0, answered ?? 0, left ?? 0]),
	)
	const axis = `0 ms${`${Math.round(length)} ms`.padStart(WIDTH - 4)}`
	console.log(`    ${axis}   wait   work  outcome`)
	for (const story of stories) console.log(line(story, length))
}

export function drawLegend() {
	const legend = [
		`${waiting} waits`,
		`${working} at work`,
		`${abandoned} at work, client gone`,
		`${end} rejected, or left`,
	]
	console.log(paintMarks(`\n    ${legend.join('   ')}   (ms)`))
}

/** @param {string} text */
export function drawTitle(text) {
	console.log(`\n${paint(1, text)}\n`)
}

/** @param {boolean} kept @param {string} promise */
export function drawPromise(kept, promise) {
	console.log(`    ${kept ? paint(32, '✓') : paint(31, '✗ BROKEN:')} ${promise}`)
}
