import { Component, createRef } from 'preact'
import { colour } from './colours.js'
import { watchSeen } from './seen.js'
import { increase, type Limiter, store } from './store.js'

/** In CSS pixels. */
const HEIGHT = 30

/** Points drawn at most. */
const POINTS = 60

interface Props {
	limiter: Limiter
	/** The first and the last sample. */
	from: number
	to: number
}

/** One or more samples: the most that there was. */
interface Point {
	/** A part of the time shown, from 0 to 1. */
	at: number
	active: number
	/** Active and queued. */
	load: number
	/** Whether requests were rejected. */
	bad: boolean
	/** Whether another process answers than before. */
	changed: boolean
}

/** Load against capacity, as small as a word. It is drawn only while it is in view. */
export class Spark extends Component<Props> {
	readonly #canvas = createRef<HTMLCanvasElement>()
	#seen = false
	#unwatch = (): void => {}

	override componentDidMount(): void {
		this.#unwatch = watchSeen(this.#canvas.current as HTMLCanvasElement, (seen) => {
			this.#seen = seen
			this.#draw()
		})
	}

	override componentDidUpdate(): void {
		this.#draw()
	}

	override componentWillUnmount(): void {
		this.#unwatch()
	}

	#draw(): void {
		const canvas = this.#canvas.current
		const ctx = canvas?.getContext('2d')
		if (!this.#seen || canvas == null || ctx == null) return
		const width = canvas.clientWidth
		const pixels = Math.round(width * devicePixelRatio)
		if (canvas.width !== pixels) {
			canvas.width = pixels
			canvas.height = Math.round(HEIGHT * devicePixelRatio)
		}
		ctx.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0)
		ctx.clearRect(0, 0, width, HEIGHT)
		draw(ctx, width, this.props)
	}

	render() {
		return (
			<span aria-hidden="true">
				<canvas ref={this.#canvas} class="spark" height={HEIGHT} />
			</span>
		)
	}
}

function draw(ctx: CanvasRenderingContext2D, width: number, { limiter, from, to }: Props): void {
	const points = pointsOf(limiter, from, to)
	let highest = Math.max(1, ...points.map(({ load }) => load))
	const last = limiter.samples[to]
	// A capacity that is far above the load, or that of each key, would say nothing here.
	const capacity = limiter.settings?.keyed ? null : (last?.capacity ?? null)
	const shown = capacity !== null && capacity < 20 * highest
	if (shown) highest = Math.max(highest, capacity)
	const y = (value: number): number => HEIGHT - 1 - (value / highest) * (HEIGHT - 3)

	const area = (field: 'active' | 'load', fill: string): void => {
		ctx.beginPath()
		let before = 0
		ctx.moveTo(0, HEIGHT)
		for (const { at, [field]: value } of points) {
			ctx.lineTo(before, y(value))
			before = at * width
			ctx.lineTo(before, y(value))
		}
		ctx.lineTo(before, HEIGHT)
		ctx.fillStyle = colour(fill)
		ctx.fill()
	}
	area('load', 'queued')
	area('active', 'active')
	if (shown) {
		const top = Math.round(y(capacity))
		ctx.fillStyle = colour('capacity')
		for (let x = 0; x < width; x += 5) ctx.fillRect(x, top, 3, 1)
	}
	for (const { at, bad, changed } of points) {
		const x = Math.min(width - 2, at * width)
		if (changed) {
			ctx.fillStyle = colour('faint')
			for (let top = 0; top < HEIGHT; top += 4) ctx.fillRect(x, top, 1, 2)
		}
		if (bad) {
			ctx.fillStyle = colour('bad')
			ctx.fillRect(Math.max(0, x - 1), 0, 2, 5)
		}
	}
}

function pointsOf(limiter: Limiter, from: number, to: number): Point[] {
	const begin = store.times[from] ?? 0
	const length = Math.max(1, (store.times[to] ?? 0) - begin)
	const step = Math.max(1, Math.ceil((to - from + 1) / POINTS))
	const points: Point[] = []
	for (let i = from; i <= to; i += step) {
		const end = Math.min(to, i + step - 1)
		const at = ((store.times[end] ?? 0) - begin) / length
		const point: Point = { at, active: 0, load: 0, bad: false, changed: false }
		for (let j = i; j <= end; j++) {
			point.changed ||= j > from && store.processes[j] !== store.processes[j - 1]
			const sample = limiter.samples[j]
			if (sample === undefined) continue
			point.active = Math.max(point.active, sample.active)
			point.load = Math.max(point.load, sample.active + sample.queued)
			point.bad ||= (increase(limiter, j, 'rejected') ?? 0) > 0
		}
		points.push(point)
	}
	return points
}
