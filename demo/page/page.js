// Shows what the same load does to four servers, and sends the load that is set.
// @ts-expect-error - the server of the demo has it
import uPlot from './uplot.js'

/**
 * @typedef {{ name: string, capacity: number | null, queued: number, ok: number, rejected: number,
 * gaveUp: number, failed: number, others: number, othersOk: number, atWork: number, p50: number |
 * null }} Seen
 */

/** Seconds that are shown. */
const SHOWN = 60

/**
 * @param {string} name @param {Record<string, string>} attributes @param {(Node | string)[]}
 * children
 */
function element(name, attributes = {}, ...children) {
	const made = document.createElement(name)
	for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value)
	made.append(...children)
	return made
}

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id))

/** @param {string} name */
const colour = (name) => () =>
	getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()

/** @param {string} path @param {object} [body] */
function post(path, body = {}) {
	const headers = { 'Content-Type': 'application/json' }
	return fetch(path, { method: 'POST', headers, body: JSON.stringify(body) })
}

// --- The load

const { load, bounds, scenarios } = await (await fetch('load')).json()
const sliders = Array.from(document.querySelectorAll('input'))

/** @param {Record<string, number>} load */
function show(load) {
	for (const slider of sliders) {
		slider.value = String(load[slider.id])
		const output = document.querySelector(`output[for="${slider.id}"]`)
		if (output !== null) output.textContent = slider.value
	}
}

for (const slider of sliders) {
	;[slider.min, slider.max] = bounds[slider.id]
	slider.addEventListener('input', async () => {
		const answer = await post('load', { [slider.id]: slider.valueAsNumber })
		show((await answer.json()).load)
	})
}
show(load)

const all = {
	...scenarios,
	restart: { title: 'A restart', what: 'All servers, limiters and databases are new.' },
}
for (const [name, { title, what }] of Object.entries(all)) {
	const button = element(
		'button',
		{ type: 'button', 'data-scenario': name, 'aria-pressed': 'false' },
		title,
	)
	button.addEventListener('click', () => {
		byId('what').textContent = what
		post(`scenario/${name}`)
	})
	byId('scenarios').append(button)
}

// --- The servers

/** @type {number[]} */
const times = []
/** @type {{ seen: Seen[], draw: () => void }[]} */
const lanes = []

/** @param {string[]} series of colours @param {HTMLElement} box @param {boolean} [filled] */
function chart(series, box, filled = true) {
	const plot = new uPlot(
		{
			width: box.clientWidth,
			height: 120,
			padding: [6, 8, 6, 0],
			legend: { show: false },
			cursor: { show: false },
			scales: {
				x: { range: () => [Number(times.at(-1)) - SHOWN, Number(times.at(-1))] },
				y: {
					range: (
						/** @type {unknown} */ _u,
						/** @type {number} */ _min,
						/** @type {number} */ max,
					) => [0, Math.max(5, max * 1.05)],
				},
			},
			axes: [
				{ show: false },
				{
					incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
					stroke: colour('faint'),
					grid: { stroke: colour('line'), width: 1 },
					ticks: { show: false },
					size: 40,
					font: '11px system-ui',
				},
			],
			series: [
				{},
				...series.map((name, i) => ({
					stroke: colour(name),
					...(filled || i === 0 ? { fill: colour(name) } : { dash: [5, 4] }),
					width: 1.5,
					points: { show: false },
				})),
			],
		},
		[[], ...series.map(() => [])],
		box,
	)
	new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: 120 })).observe(box)
	return plot
}

/** @param {string} name */
function makeLane(name) {
	/** @type {Seen[]} */
	const seen = []
	const served = element('b')
	/** @type {Record<string, HTMLElement>} */
	const figures = {}
	const list = element('dl')
	for (const [id, title, swatch] of [
		['ok', 'answered', 'ok'],
		['rejected', 'rejected', 'rejected'],
		['lost', 'client gave up', 'lost'],
		['p50', 'median time', ''],
		['others', 'others served', ''],
		['atWork', 'database queries', 'work'],
		['capacity', 'capacity', ''],
	]) {
		const figure = element('dd')
		figures[/** @type {string} */ (id)] = figure
		const mark = element('i', { class: 'swatch' })
		mark.style.background = swatch ? `var(--${swatch})` : 'none'
		list.append(element('dt', {}, mark, /** @type {string} */ (title)), figure)
	}
	const answers = element('div', { class: 'plot' })
	const work = element('div', { class: 'plot' })
	const section = element(
		'article',
		{ class: 'lane', 'data-lane': name },
		element('h2', {}, name),
		element('p', { class: 'served' }, served, ' answered in a second'),
		element('h3', {}, 'What clients got, in a second'),
		answers,
		element('h3', {}, 'Database queries, and the capacity'),
		work,
		list,
	)
	byId('lanes').append(section)
	const answersChart = chart(['lost', 'rejected', 'ok'], answers)
	const workChart = chart(['work', 'text'], work, false)

	function draw() {
		const last = /** @type {Seen} */ (seen.at(-1))
		const lost = (/** @type {Seen} */ { gaveUp, failed }) => gaveUp + failed
		// Each is drawn above those behind it.
		answersChart.setData([
			times,
			seen.map((one) => one.ok + one.rejected + lost(one)),
			seen.map(({ ok, rejected }) => ok + rejected),
			seen.map(({ ok }) => ok),
		])
		workChart.setData([
			times,
			seen.map(({ atWork }) => atWork),
			seen.map(({ capacity }) => capacity),
		])
		const recent = seen.slice(-5)
		const sum = (/** @type {(one: Seen) => number} */ of) =>
			recent.reduce((total, one) => total + of(one), 0)
		const ok = sum((one) => one.ok)
		const bad = sum(lost)
		served.textContent = String(Math.round(ok / recent.length))
		section.className = `lane ${bad > ok ? 'bad' : ok < 0.5 * (ok + sum(({ rejected }) => rejected)) ? 'poor' : 'good'}`
		const others = sum((one) => one.others)
		const texts = {
			ok: last.ok,
			rejected: last.rejected,
			lost: lost(last),
			p50: last.p50 === null ? '–' : `${last.p50} ms`,
			others:
				others === 0
					? '–'
					: `${Math.min(100, Math.round((100 * sum((one) => one.othersOk)) / others))} %`,
			atWork: last.atWork,
			capacity: last.capacity ?? 'none',
		}
		for (const [id, text] of Object.entries(texts)) {
			const figure = figures[id]
			if (figure !== undefined) figure.textContent = String(text)
		}
	}
	return { seen, draw }
}

new EventSource('figures').addEventListener('message', ({ data }) => {
	const { time, playing, lanes: seen } = JSON.parse(data)
	times.push(time)
	if (times.length > SHOWN) times.shift()
	for (const button of document.querySelectorAll('button')) {
		button.setAttribute('aria-pressed', String(button.dataset.scenario === playing))
	}
	for (const [i, one] of seen.entries()) {
		lanes[i] ??= makeLane(one.name)
		const lane = /** @type {{ seen: Seen[], draw: () => void }} */ (lanes[i])
		lane.seen.push(one)
		if (lane.seen.length > SHOWN) lane.seen.shift()
		lane.draw()
	}
})
