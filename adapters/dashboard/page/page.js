// The page: it draws the samples that the server sends as events. It sends nothing itself.
import uPlot from 'uplot'

/**
 * A sample: one number, or `null`, for each field that the server names; under `longest`, the keys
 * that waited longest.
 *
 * @typedef {Record<string, number | null> & { time: number }} Sample
 * @typedef {{ name: string, samples: (Sample & { longest: [string, number][] })[], stats: any, view: View }} Limiter
 * @typedef {{ text: string, colour: string, of: (sample: Sample) => number | null, unit: (value: number) => string, thin?: boolean }} Line
 * @typedef {{ title: string, lines: Line[], plot: uPlot, values: HTMLElement[], time: HTMLElement, box: HTMLElement, data: (samples: Sample[]) => (number | null)[][] }} Chart
 * @typedef {{ charts: Chart[], tiles: Record<string, HTMLElement>, longest: HTMLElement | undefined, cells: Record<string, HTMLElement> }} View
 */

const REASONS = ['queue-full', 'timeout', 'evicted', 'closed', 'overloaded', 'aborted', 'unavailable']

/** The reasons that are the server's. `aborted` is the client's: it left before it was admitted. */
const REJECTIONS = REASONS.filter((reason) => reason !== 'aborted')

/**
 * After how long without an event the connection counts as lost, in ms. Events come once a second.
 */
const SILENCE = 4000

/** How long to wait before connecting again, in ms. */
const RETRY = 2000

/** @type {Limiter[]} */
let limiters = []
/** Whether the elements of these limiters exist. */
let made = false
let showKeys = false
/** The length of the window that is shown, in s. */
let span = 60
/**
 * The moment whose values are shown beside the charts, in s; `undefined`: the latest.
 *
 * @type {number | undefined}
 */
let pointed

// --- Figures as text

const integers = new Intl.NumberFormat('en')
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' })

/** @param {number | null | undefined} value */
function count(value) {
	return value == null ? '–' : integers.format(value)
}

/** @param {number | null | undefined} ms */
function duration(ms) {
	if (ms == null) return '–'
	if (ms === 0) return '0 ms'
	if (ms < 10) return `${ms.toFixed(1)} ms`
	if (ms < 1000) return `${Math.round(ms)} ms`
	return ms < 60_000 ? `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s` : `${(ms / 60_000).toFixed(1)} min`
}

/** @param {number | null | undefined} value */
function capacityText(value) {
	return value === null ? 'no bound' : count(value)
}

// --- Elements

/**
 * @param {string} name
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 */
function element(name, attributes = {}, ...children) {
	const made = document.createElement(name)
	for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value)
	made.append(...children)
	return made
}

/** @param {string} id */
function byId(id) {
	return /** @type {HTMLElement} */ (document.getElementById(id))
}

/**
 * Writes only a text that has changed: writing the same one again would interrupt a screen reader
 * and a selection.
 *
 * @param {HTMLElement | undefined} at
 * @param {string} text
 */
function write(at, text) {
	if (at !== undefined && at.textContent !== text) at.textContent = text
}

// --- Colours from the style sheet

/** @type {Map<string, string>} */
const colours = new Map()

/** @param {string} name */
function colour(name) {
	let found = colours.get(name)
	if (found === undefined) {
		found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
		colours.set(name, found)
	}
	return found
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
	colours.clear()
	draw()
})

// --- Charts

/** @param {Limiter} limiter @returns its samples in the window that is shown, oldest first */
function shown({ samples }) {
	const end = samples.at(-1)?.time ?? 0
	return samples.filter(({ time }) => time > end - span * 1000 - 500)
}

/** @param {Line[]} lines */
function plain(lines) {
	return (/** @type {Sample[]} */ samples) => lines.map(({ of }) => samples.map(of))
}

/** The increase of a count since the sample before. @param {string} field */
function perSecond(field) {
	return (/** @type {any} */ sample) =>
		sample.before === undefined ? 0 : sample[field] - sample.before[field]
}

/**
 * @param {Limiter} limiter
 * @param {{ title: string, lines: Line[], data?: Chart['data'], series: uPlot.Series[], bands?:
 * uPlot.Band[], ticks: (value: number) => string, whole?: boolean }} options
 * @returns {Chart}
 */
function makeChart(limiter, { title, lines, data = plain(lines), series, bands = [], ticks, whole = false }) {
	const time = element('span')
	const values = lines.map(() => element('b'))
	const readout = element('p', { class: 'readout' }, time)
	for (const [i, { text, colour: name, thin }] of lines.entries()) {
		const swatch = element('i', { class: thin ? 'swatch thin' : 'swatch' })
		swatch.style.background = `var(--${name})`
		readout.append(element('span', {}, swatch, `${text} `, /** @type {HTMLElement} */ (values[i])))
	}
	const box = element('div', {
		class: 'plot',
		tabindex: '0',
		role: 'slider',
		'aria-label': `${title} of ${limiter.name}: move through time`,
		'aria-valuemin': '0',
	})
	const figure = element('figure', {}, element('figcaption', {}, element('h3', {}, title), readout), box)
	const grid = { stroke: () => colour('grid'), width: 1 }
	const axis = {
		stroke: () => colour('faint'),
		grid,
		ticks: { show: false },
		font: '11px system-ui, sans-serif',
	}
	const plot = new uPlot(
		{
			width: 400,
			height: 150,
			padding: [8, 22, 0, 0],
			legend: { show: false },
			cursor: { y: false, drag: { x: false, y: false, setScale: false }, points: { size: 6 } },
			scales: {
				x: { time: true, range: (u) => rangeOf(u) },
				y: { range: (_u, _min, max) => [0, Math.max(whole ? 4 : 1, (max ?? 0) * 1.08)] },
			},
			axes: [
				{
					...axis,
					size: 26,
					space: 70,
					values: (_u, at) => at.map((s) => clock.format(s * 1000).slice(0, span > 60 ? 5 : 8)),
				},
				{
					...axis,
					size: 54,
					space: 32,
					...(whole
						? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000] }
						: {}),
					values: (_u, at) => at.map(ticks),
				},
			],
			series: [{}, ...series],
			bands,
			hooks: { setCursor: [(u) => followPointer(u)] },
		},
		[[], ...series.map(() => [])],
		box,
	)
	new ResizeObserver(() => plot.setSize({ width: box.clientWidth, height: 150 })).observe(box)
	box.addEventListener('keydown', (event) => moveBy(event, limiter))
	return { title, lines, plot, values, time, box: Object.assign(box, { figure }), data }
}

/** @param {uPlot} plot @returns {[number, number]} */
function rangeOf(plot) {
	const end = /** @type {number[]} */ (plot.data[0]).at(-1) ?? Date.now() / 1000
	return [end - span, end]
}

/**
 * All charts show their values at the moment that the pointer is at in one of them.
 *
 * @param {uPlot} plot
 */
function followPointer(plot) {
	if (!plot.root.matches(':hover')) return
	const { idx } = plot.cursor
	const at = idx == null ? undefined : plot.data[0][idx]
	if (at === pointed) return
	pointed = at
	readOut()
}

addEventListener('pointerout', (event) => {
	if (pointed === undefined || !(event.target instanceof Element) || !event.target.closest('.plot')) return
	if (event.relatedTarget instanceof Element && event.relatedTarget.closest('.plot')) return
	pointed = undefined
	readOut()
})

/** @param {KeyboardEvent} event @param {Limiter} limiter */
function moveBy(event, limiter) {
	const samples = shown(limiter)
	const last = samples.length - 1
	const now = pointed === undefined ? last : nearest(samples, pointed)
	/** @type {Record<string, number>} */
	const moves = {
		ArrowLeft: now - 1,
		ArrowDown: now - 1,
		ArrowRight: now + 1,
		ArrowUp: now + 1,
		PageUp: now - 10,
		PageDown: now + 10,
		Home: 0,
		End: last,
	}
	if (event.key === 'Escape') pointed = undefined
	else if (moves[event.key] !== undefined) {
		const to = Math.min(last, Math.max(0, /** @type {number} */ (moves[event.key])))
		pointed = /** @type {Sample} */ (samples[to]).time / 1000
	} else return
	event.preventDefault()
	readOut()
}

/**
 * @param {Sample[]} samples
 * @param {number} at in s
 * @returns the index of the sample nearest to that moment
 */
function nearest(samples, at) {
	let best = samples.length - 1
	for (const [i, { time }] of samples.entries()) {
		if (Math.abs(time / 1000 - at) < Math.abs(/** @type {Sample} */ (samples[best]).time / 1000 - at))
			best = i
	}
	return best
}

/** Writes beside each chart its values at the moment that is pointed at, or at the latest one. */
function readOut() {
	for (const limiter of limiters) {
		const samples = shown(limiter)
		const at = pointed === undefined ? samples.length - 1 : nearest(samples, pointed)
		const sample = samples[at]
		if (sample === undefined) continue
		for (const { lines, values, time, box, plot } of limiter.view.charts) {
			const texts = lines.map(({ of, unit }) => unit(/** @type {number} */ (of(sample))))
			for (const [i, text] of texts.entries()) write(values[i], text)
			const moment = clock.format(sample.time)
			write(time, pointed === undefined && document.body.dataset.state === 'live' ? 'now' : moment)
			box.setAttribute('aria-valuemax', String(samples.length - 1))
			box.setAttribute('aria-valuenow', String(at))
			const words = lines.map(({ text }, i) => `${text} ${texts[i]}`).join(', ')
			// New samples must not interrupt a screen reader while its user reads the latest values.
			if (pointed !== undefined || document.activeElement !== box)
				box.setAttribute('aria-valuetext', `${moment}: ${words}`)
			if (plot.root.matches(':hover')) continue
			const left = pointed === undefined ? -10 : plot.valToPos(sample.time / 1000, 'x')
			plot.setCursor({ left, top: pointed === undefined ? -10 : 10 }, false)
		}
	}
}

// --- One limiter

/** @param {Limiter} limiter */
function makeView(limiter) {
	const field = (/** @type {string} */ name) => (/** @type {Sample} */ sample) => sample[name] ?? null
	/** @type {Line[]} */
	const load = [
		{ text: 'at work', colour: 'active', of: field('active'), unit: count },
		{ text: 'waiting', colour: 'queued', of: field('queued'), unit: count },
		{
			text: 'capacity',
			colour: 'capacity',
			of: field('capacity'),
			unit: (value) => `${capacityText(value)}${isKeyed(limiter) ? ' for each key' : ''}`,
			thin: true,
		},
	]
	/** @type {Line[]} */
	const rejections = REASONS.map((reason) => ({
		text: reason,
		colour: reason,
		of: perSecond(reason),
		unit: count,
	}))
	/** @param {string} name @returns {Line[]} */
	const percentiles = (name) => [
		{ text: 'p50', colour: 'p50', of: field(`${name}P50`), unit: duration, thin: true },
		{ text: 'p99', colour: 'p99', of: field(`${name}P99`), unit: duration, thin: true },
	]
	const stepped = uPlot.paths.stepped?.({ align: -1 })
	const bars = uPlot.paths.bars?.({ size: [0.9, 40], align: -1 })
	const noPoints = { points: { show: false } }
	/** @param {string} name @returns {uPlot.Series} */
	const line = (name) => ({
		stroke: () => colour(name),
		width: 1.5,
		spanGaps: false,
		points: { size: 3, fill: () => colour(name) },
	})
	/** @param {string} name */
	const times = (name) => ({ lines: percentiles(name), series: [line('p50'), line('p99')], ticks: duration })
	// Each series is the sum of its reason and all later ones. Drawn in this order, they look
	// stacked.
	const stacked = REASONS.map((_, i) => REASONS.slice(i))
	const charts = [
		makeChart(limiter, {
			title: 'Load',
			lines: load,
			data: (samples) => [
				samples.map(({ active, queued }) => Number(active) + Number(queued)),
				samples.map(({ active }) => active ?? null),
				samples.map(({ capacity }) => capacity ?? null),
			],
			series: [
				{
					stroke: () => colour('queued'),
					fill: () => colour('queued-area'),
					width: 1.5,
					...noPoints,
					...(stepped && { paths: stepped }),
				},
				{
					stroke: () => colour('active'),
					fill: () => colour('active-area'),
					width: 1.5,
					...noPoints,
					...(stepped && { paths: stepped }),
				},
				{
					stroke: () => colour('capacity'),
					width: 1.5,
					dash: [6, 4],
					...noPoints,
					...(stepped && { paths: stepped }),
				},
			],
			bands: [{ series: [1, 2] }],
			ticks: count,
			whole: true,
		}),
		makeChart(limiter, {
			title: 'Rejections per second',
			lines: rejections,
			data: (samples) =>
				stacked.map((reasons) =>
					samples.map((sample) => reasons.reduce((sum, reason) => sum + perSecond(reason)(sample), 0)),
				),
			series: REASONS.map((reason) => ({
				fill: () => colour(reason),
				width: 0,
				...noPoints,
				...(bars && { paths: bars }),
			})),
			ticks: count,
			whole: true,
		}),
		makeChart(limiter, { title: 'Wait', ...times('wait') }),
		makeChart(limiter, { title: 'Hold', ...times('hold') }),
	]

	/** @type {Record<string, HTMLElement>} */
	const tiles = {}
	const list = element('dl', { class: 'tiles' })
	for (const [name, title] of Object.entries({
		active: 'At work',
		queued: 'Waiting',
		rejected: 'Rejected',
		left: 'Left the queue',
		abandoned: 'Abandoned',
		wait: 'Wait p50 / p99',
		hold: 'Hold p50 / p99',
	})) {
		const value = element('dd', { 'data-figure': name })
		tiles[name] = value
		list.append(element('div', {}, element('dt', {}, title), value))
	}
	const id = `limiter-${limiters.indexOf(limiter)}`
	const grid = element(
		'div',
		{ class: 'charts' },
		...charts.map(({ box }) => /** @type {any} */ (box).figure),
	)
	const section = element(
		'section',
		{ class: 'limiter', 'aria-labelledby': id },
		element('h2', { id }, limiter.name),
		list,
		grid,
	)
	const longest = showKeys ? element('ol') : undefined
	if (longest !== undefined) {
		section.append(
			element('div', { class: 'longest' }, element('h3', {}, 'Keys that waited longest'), longest),
		)
	}
	byId('limiters').append(section)
	limiter.view = { charts, tiles, longest, cells: makeRow(limiter.name) }
}

// --- The table

/** Its columns, by group. @type {[string, [string, string][]][]} */
const GROUPS = [
	[
		'Now',
		[
			['capacity', 'Capacity'],
			['active', 'At work'],
			['queued', 'Waiting'],
			['keys', 'Keys'],
		],
	],
	[
		'window',
		[
			['admitted', 'Admitted'],
			['completed', 'Completed'],
			['abandoned', 'Abandoned'],
			...REASONS.map((reason) => /** @type {[string, string]} */ ([reason, reason])),
		],
	],
	[
		'Since the start',
		[
			['admitted', 'Admitted'],
			['completed', 'Completed'],
			['abandoned', 'Abandoned'],
			...REASONS.map((reason) => /** @type {[string, string]} */ ([reason, reason])),
			['waits.p50', 'Wait p50'],
			['waits.p99', 'Wait p99'],
			['holds.p50', 'Hold p50'],
			['holds.p99', 'Hold p99'],
		],
	],
]

function makeTable() {
	const table = byId('table')
	const groups = element('tr', {}, element('td'))
	const columns = element('tr', {}, element('th', { scope: 'col' }, 'Limiter'))
	for (const [group, names] of GROUPS) {
		groups.append(
			element(
				'th',
				{ scope: 'colgroup', colspan: String(names.length), class: 'begins', 'data-group': group },
				group,
			),
		)
		for (const [i, [, title]] of names.entries()) {
			columns.append(element('th', i === 0 ? { scope: 'col', class: 'begins' } : { scope: 'col' }, title))
		}
	}
	table.querySelector('thead')?.replaceChildren(groups, columns)
	table.querySelector('tbody')?.replaceChildren()
	table.hidden = limiters.length === 0
}

/** @param {string} name @returns the cells, by group and column */
function makeRow(name) {
	/** @type {Record<string, HTMLElement>} */
	const cells = {}
	const row = element('tr', { 'data-limiter': name }, element('th', { scope: 'row' }, name))
	for (const [group, names] of GROUPS) {
		for (const [i, [column]] of names.entries()) {
			const cell = element('td', {
				'data-figure': `${group}.${column}`,
				...(i === 0 ? { class: 'begins' } : {}),
			})
			cells[`${group}.${column}`] = cell
			row.append(cell)
		}
	}
	byId('table').querySelector('tbody')?.append(row)
	return cells
}

// --- Drawing

function draw() {
	if (document.visibilityState === 'hidden') return
	const minutes = span / 60
	const windowText = minutes === 1 ? 'last minute' : `last ${minutes} min`
	const group = /** @type {HTMLElement | null} */ (document.querySelector('[data-group="window"]'))
	write(group ?? undefined, `${windowText[0]?.toUpperCase()}${windowText.slice(1)}`)
	for (const limiter of limiters) drawLimiter(limiter, windowText)
	readOut()
}

/** @param {Limiter} limiter @param {string} windowText */
function drawLimiter(limiter, windowText) {
	const samples = shown(limiter)
	const { view, stats } = limiter
	const last = samples.at(-1)
	if (last === undefined || stats === undefined) return
	const begin = /** @type {any} */ (samples[0]).before ?? samples[0]
	const inWindow = (/** @type {string} */ field) => Number(last[field]) - begin[field]
	const since = ` in the ${windowText}`

	for (const { plot, data } of view.charts) {
		plot.setData(/** @type {any} */ ([samples.map(({ time }) => time / 1000), ...data(samples)]))
	}
	const { tiles, cells, longest } = view
	const rejected = REJECTIONS.reduce((sum, reason) => sum + inWindow(reason), 0)
	const keyed = isKeyed(limiter)
	const each = keyed ? `, ${capacityText(last.capacity)} for each key` : ` of ${capacityText(last.capacity)}`
	tile(tiles.active, count(last.active), each)
	tile(tiles.queued, count(last.queued), '')
	tile(tiles.rejected, count(rejected), since, rejected > 0)
	tile(tiles.left, count(inWindow('aborted')), since)
	tile(tiles.abandoned, count(inWindow('abandoned')), since)
	for (const name of ['wait', 'hold']) {
		const latest = samples.findLast((sample) => sample[`${name}P50`] !== null)
		tile(tiles[name], duration(latest?.[`${name}P50`]), ` / ${duration(latest?.[`${name}P99`])}`)
	}

	for (const [group, names] of GROUPS) {
		for (const [column] of names) {
			const figure = group === 'window' ? inWindow(column) : statOf(stats, column)
			const text =
				column === 'capacity' ? capacityText(figure) : column.includes('.') ? duration(figure) : count(figure)
			write(cells[`${group}.${column}`], text)
		}
	}

	if (longest === undefined) return
	if (longest.parentElement !== null) longest.parentElement.hidden = !keyed
	/** @type {Map<string, number>} */
	const waits = new Map()
	for (const sample of samples) {
		for (const [key, ms] of sample.longest) waits.set(key, Math.max(ms, waits.get(key) ?? 0))
	}
	const top = [...waits].sort(([, a], [, b]) => b - a).slice(0, 5)
	const items = top.map(([key, ms]) => element('li', {}, element('span', {}, key), ` – ${duration(ms)}`))
	longest.replaceChildren(...(items.length > 0 ? items : [element('li', {}, 'No key has waited.')]))
}

/**
 * The server does not say whether a limiter has the option `key`. Without it, there are never any
 * keys.
 *
 * @param {Limiter} limiter
 */
function isKeyed({ samples }) {
	return samples.some(({ keys }) => Number(keys) > 0)
}

/** @param {any} stats @param {string} column */
function statOf(stats, column) {
	if (column in stats.rejected) return stats.rejected[column]
	const [name, part] = column.split('.')
	return part === undefined ? stats[/** @type {string} */ (name)] : stats[/** @type {string} */ (name)][part]
}

/**
 * @param {HTMLElement | undefined} at
 * @param {string} figure
 * @param {string} rest
 * @param {boolean} [alert]
 */
function tile(at, figure, rest, alert = false) {
	if (at === undefined || at.textContent === figure + rest) return
	at.replaceChildren(figure, element('small', {}, rest))
	at.parentElement?.classList.toggle('alert', alert)
}

// --- The events of the server

/** @type {string[]} */
let fields = []

/** @param {unknown[]} row @param {Limiter} limiter */
function add(row, limiter) {
	const sample = Object.fromEntries(fields.map((name, i) => [name, row[i]]))
	const before = limiter.samples.at(-1)
	// The charts show differences to it. Its own `before` is dropped, or no sample could ever be
	// freed.
	if (before !== undefined) {
		const { before: _, ...own } = /** @type {any} */ (before)
		sample.before = own
	}
	limiter.samples.push(/** @type {any} */ (sample))
	while (Number(limiter.samples[0]?.time) < Number(sample.time) - 900_500) limiter.samples.shift()
}

/** @param {MessageEvent} event */
function begin({ data }) {
	const history = JSON.parse(data)
	const same =
		made &&
		history.keys === showKeys &&
		history.limiters.map((/** @type {any} */ { name }) => name).join() ===
			limiters.map(({ name }) => name).join()
	fields = history.fields
	showKeys = history.keys
	made = true
	if (!same) {
		for (const { view } of limiters) for (const { plot } of view.charts) plot.destroy()
		byId('limiters').replaceChildren()
		limiters = history.limiters.map((/** @type {any} */ { name }) => ({
			name,
			samples: [],
			stats: undefined,
		}))
		makeTable()
		for (const limiter of limiters) makeView(limiter)
		if (limiters.length === 0)
			byId('limiters').append(element('p', { class: 'note' }, 'There are no limiters to show.'))
	}
	for (const [i, limiter] of limiters.entries()) {
		limiter.samples = []
		for (const row of history.limiters[i].rows) add(row, limiter)
	}
}

/** @param {MessageEvent} event */
function update({ data }) {
	for (const [i, { row, stats }] of JSON.parse(data).limiters.entries()) {
		const limiter = limiters[i]
		if (limiter === undefined) continue
		limiter.stats = stats
		if (row[0] !== limiter.samples.at(-1)?.time) add(row, limiter)
	}
	say('live', 'Live')
	draw()
}

/** @param {string} state @param {string} text */
function say(state, text) {
	const status = byId('status')
	status.dataset.state = state
	document.body.dataset.state = state
	write(status, text)
}

/** @type {EventSource | undefined} */
let source
let silence = 0
let retry = 0

function connect() {
	clearTimeout(retry)
	source?.close()
	source = new EventSource('events')
	source.addEventListener('history', begin)
	source.addEventListener('message', (event) => {
		hear()
		update(event)
	})
	source.addEventListener('rejected', ({ data }) => {
		source?.close()
		again(`${JSON.parse(data).reason} Trying again…`, 5 * RETRY)
	})
	// After some errors it would connect again by itself, after others never. So this is done here.
	source.addEventListener('error', () => {
		source?.close()
		again('Connection lost. Trying again…', RETRY)
	})
	hear()
}

/**
 * An event has come. If the next one does not come in time, the connection is lost, whatever the
 * browser says.
 */
function hear() {
	clearTimeout(silence)
	silence = setTimeout(() => again('Connection lost. Trying again…', 0), SILENCE)
}

/** @param {string} text @param {number} ms */
function again(text, ms) {
	say('lost', text)
	readOut()
	clearTimeout(silence)
	clearTimeout(retry)
	retry = setTimeout(connect, ms)
}

byId('windows').addEventListener('change', (event) => {
	span = Number(/** @type {HTMLInputElement} */ (event.target).value) * 60
	draw()
})
// Nothing is drawn while the page is hidden.
document.addEventListener('visibilitychange', () => {
	if (document.visibilityState === 'visible') draw()
})
connect()
