import { Component, createRef } from 'preact'
import uPlot from 'uplot'
import { colour, currentPalette } from './colours.js'
import { moment } from './format.js'
import type { Word } from './glossary.js'
import { pointedIndex, type Range } from './range.js'
import { refresh } from './refresh.js'
import { watchSeen } from './seen.js'
import { store } from './store.js'
import { Term } from './tip.js'
import { view } from './view.js'

export interface Line {
	text: string
	/** What explains the text, if it needs that. */
	word?: Word
	/** A colour of the style sheet. */
	colour: string
	thin?: boolean
	/** What is drawn; it may be stacked on another one. */
	at(i: number): number | null
	/** What is written; without it, nothing is. */
	value?(i: number): string
	/** Its `fill` is a colour of the style sheet. */
	series?: uPlot.Series
}

interface Props {
	title: string
	/** Of what is drawn. */
	unit: string
	word: Word
	limiter: string
	lines: Line[]
	range: Range
	bands?: uPlot.Band[]
	ticks(value: number): string
	/** Whether values are integers. */
	whole?: boolean
}

const HEIGHT = 150
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000]

/** A chart over time. It is drawn only while it is in view. */
export class Chart extends Component<Props> {
	readonly #box = createRef<HTMLDivElement>()
	#plot: uPlot | undefined
	#seen = false
	#unwatch = (): void => {}
	/** What is drawn. */
	#drawn = ''
	/** While a time is being chosen, nothing may move. */
	#dragging = false
	#sizes: ResizeObserver | undefined

	override componentDidMount(): void {
		const box = this.#box.current as HTMLDivElement
		this.#unwatch = watchSeen(box, (seen) => {
			this.#seen = seen
			this.#draw()
		})
		this.#sizes = new ResizeObserver(() =>
			this.#plot?.setSize({ width: box.clientWidth, height: HEIGHT }),
		)
		this.#sizes.observe(box)
	}

	override componentDidUpdate(): void {
		this.#draw()
	}

	override componentWillUnmount(): void {
		this.#unwatch()
		this.#sizes?.disconnect()
		this.#plot?.destroy()
	}

	#draw(): void {
		if (!this.#seen || this.#dragging) return
		const { lines, range } = this.props
		const drawn = [
			store.times[range.from],
			store.times[range.to],
			range.begin,
			range.end,
			currentPalette(),
		].join()
		if (drawn !== this.#drawn) {
			this.#drawn = drawn
			const at = Array.from({ length: range.to - range.from + 1 }, (_, n) => range.from + n)
			const data = [
				at.map((i) => (store.times[i] as number) / 1000),
				...lines.map((line) => at.map((i) => line.at(i))),
			] as uPlot.AlignedData
			if (this.#plot === undefined) this.#plot = this.#make(data)
			else this.#plot.setData(data)
		}
		// The time line of the chart under the pointer stays there; in all others it is at the same
		// moment.
		const plot = this.#plot as uPlot
		if (plot.root.matches(':hover')) return
		const left =
			view.pointed === undefined
				? -10
				: plot.valToPos((store.times[pointedIndex(range)] ?? 0) / 1000, 'x')
		plot.setCursor({ left, top: left < 0 ? -10 : 10 }, false)
	}

	#make(data: uPlot.AlignedData): uPlot {
		const { lines, whole, bands = [] } = this.props
		const box = this.#box.current as HTMLDivElement
		const axis: uPlot.Axis = {
			stroke: () => colour('faint'),
			grid: { stroke: () => colour('grid'), width: 1 },
			ticks: { show: false },
			font: '11px system-ui, sans-serif',
		}
		return new uPlot(
			{
				width: box.clientWidth,
				height: HEIGHT,
				padding: [8, 22, 0, 0],
				legend: { show: false },
				cursor: {
					y: false,
					drag: { x: true, y: false, setScale: false, dist: 8 },
					points: { size: 6 },
				},
				scales: {
					x: { time: true, range: () => [this.props.range.begin, this.props.range.end] },
					y: { range: (_u, _min, max) => [0, Math.max(whole ? 4 : 1, (max ?? 0) * 1.08)] },
				},
				axes: [
					{
						...axis,
						size: 26,
						space: 70,
						values: (_u, at) =>
							at.map((s) => moment(s * 1000).slice(0, view.span > 60_000 ? 5 : 8)),
					},
					{
						...axis,
						size: 54,
						space: 32,
						...(whole ? { incrs: WHOLE } : {}),
						values: (_u, at) => at.map((value) => this.props.ticks(value)),
					},
				],
				series: [
					{},
					...lines.map(({ colour: name, series = {} }): uPlot.Series => {
						const { fill, points, ...rest } = series
						return {
							stroke: () => colour(name),
							width: 1.5,
							...rest,
							...(typeof fill === 'string' && { fill: () => colour(fill) }),
							points:
								points === undefined ? { show: false } : { ...points, fill: () => colour(name) },
						}
					}),
				],
				bands: bands.map(
					({ series, fill }): uPlot.Band =>
						typeof fill === 'string' ? { series, fill: () => colour(fill) } : { series },
				),
				hooks: {
					setCursor: [(plot) => this.#follow(plot)],
					setSelect: [(plot) => this.#zoom(plot)],
					drawClear: [(plot) => this.#drawRestarts(plot)],
				},
			},
			data,
			box,
		)
	}

	/** All charts show their values at the moment that the pointer is at in one of them. */
	#follow(plot: uPlot): void {
		if (!plot.root.matches(':hover')) return
		const { idx } = plot.cursor
		const at = idx == null ? undefined : (plot.data[0][idx] as number) * 1000
		if (at === view.pointed) return
		view.pointed = at
		refresh()
	}

	/** All charts show the time that was chosen in one of them by dragging. */
	#zoom(plot: uPlot): void {
		const { left, width } = plot.select
		if (width < 8) return
		const from = plot.posToVal(left, 'x') * 1000
		const to = plot.posToVal(left + width, 'x') * 1000
		plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
		zoomTo(from, to)
	}

	#drawRestarts({ ctx, bbox, valToPos }: uPlot): void {
		const { from, to } = this.props.range
		for (let i = Math.max(1, from); i <= to; i++) {
			if (store.processes[i] === store.processes[i - 1]) continue
			const x = valToPos((store.times[i] as number) / 1000, 'x', true)
			if (x < bbox.left) continue
			ctx.save()
			ctx.strokeStyle = colour('bad')
			ctx.fillStyle = colour('bad')
			ctx.lineWidth = 1.5 * devicePixelRatio
			ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio])
			ctx.beginPath()
			ctx.moveTo(x, bbox.top)
			ctx.lineTo(x, bbox.top + bbox.height)
			ctx.stroke()
			ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`
			const right = x > bbox.left + bbox.width * 0.7
			ctx.textAlign = right ? 'right' : 'left'
			const words = store.changed?.restarted === false ? 'other process' : 'restart'
			ctx.fillText(words, x + (right ? -4 : 4) * devicePixelRatio, bbox.top + 10 * devicePixelRatio)
			ctx.restore()
		}
	}

	/** After uPlot has seen the end, too. */
	#dropped = (): void => {
		this.#dragging = false
		refresh()
	}

	#keys = (event: KeyboardEvent): void => {
		const { range } = this.props
		const at = pointedIndex(range)
		const moves: Record<string, number> = {
			ArrowLeft: at - 1,
			ArrowDown: at - 1,
			ArrowRight: at + 1,
			ArrowUp: at + 1,
			PageDown: at - 10,
			PageUp: at + 10,
			Home: range.from,
			End: range.to,
		}
		const to = moves[event.key]
		if (to !== undefined) view.pointed = store.times[Math.max(range.from, Math.min(range.to, to))]
		else if (event.key === 'Escape') view.pointed = undefined
		else if (event.key === '+' || event.key === '-') {
			const middle = store.times[at] as number
			const half = event.key === '+' ? view.span / 4 : view.span
			zoomTo(middle - half, middle + half)
		} else return
		event.preventDefault()
		refresh()
	}

	render({ title, unit, word, limiter, lines, range }: Props) {
		const at = pointedIndex(range)
		const time = store.times[at]
		const shown = lines.filter(({ value }) => value !== undefined)
		const texts = shown.map(({ value }) => value?.(at) ?? '')
		const words = shown.map(({ text }, i) => `${text} ${texts[i]}`).join(', ')
		const box = this.#box.current
		// New samples must not interrupt a screen reader while its user reads the latest values.
		const still = view.pointed === undefined && box !== null && document.activeElement === box
		return (
			<figure>
				<figcaption>
					<h2>
						<Term word={word}>{title}</Term> <small>{unit}</small>
					</h2>
					<p class="readout">
						<span class="time">
							{view.pointed === undefined && isLive()
								? 'now'
								: time === undefined
									? ''
									: moment(time)}
						</span>
						{shown.map(({ text, word: own, colour: name, thin }, i) => (
							<span>
								<i
									class={thin ? 'swatch thin' : 'swatch'}
									style={{ background: `var(--${name})` }}
								/>
								{own === undefined ? text : <Term word={own}>{text}</Term>} <b>{texts[i]}</b>
							</span>
						))}
					</p>
				</figcaption>
				<div
					ref={this.#box}
					class="plot"
					tabIndex={0}
					role="slider"
					aria-label={`${title} of ${limiter}: move through time`}
					aria-valuemin={0}
					aria-valuemax={range.to - range.from}
					aria-valuenow={at - range.from}
					aria-valuetext={
						still
							? (box?.getAttribute('aria-valuetext') ?? '')
							: `${time === undefined ? '' : moment(time)}: ${words}`
					}
					onKeyDown={this.#keys}
					onPointerDown={() => {
						this.#dragging = true
						addEventListener('pointerup', this.#dropped, { once: true })
						addEventListener('pointercancel', this.#dropped, { once: true })
					}}
					onPointerLeave={() => {
						if (view.pointed === undefined) return
						view.pointed = undefined
						refresh()
					}}
					onDblClick={() => {
						view.end = undefined
						view.span = 60_000
						refresh()
					}}
				/>
			</figure>
		)
	}
}

function isLive(): boolean {
	return view.end === undefined && document.body.dataset.state === 'live'
}

/** Shows this time in all charts, within what is known. */
function zoomTo(from: number, to: number): void {
	const latest = store.times.at(-1) ?? 0
	const oldest = store.times[0] ?? 0
	const end = Math.min(latest, to)
	view.span = Math.max(5000, Math.min(latest - oldest, 900_000, end - Math.max(oldest, from)))
	view.end = end
	view.pointed = undefined
	refresh()
}
