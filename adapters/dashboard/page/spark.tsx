import { increase, type Limiter, store } from './store.js'

const WIDTH = 120
const HEIGHT = 30
/** Points drawn at most. */
const POINTS = 60

/** Load against capacity, as small as a word. */
export function Spark({ limiter, from, to }: { limiter: Limiter; from: number; to: number }) {
	const keyed = limiter.settings?.keyed === true
	const begin = store.times[from] ?? 0
	const length = Math.max(1, (store.times[to] ?? 0) - begin)
	const step = Math.max(1, Math.ceil((to - from + 1) / POINTS))
	let highest = 1
	let capacity: number | null = null
	const points: { x: number; active: number; load: number; bad: boolean }[] = []
	/** Where another process answers than before. */
	const changes: string[] = []
	for (let i = from; i <= to; i += step) {
		let active = 0
		let load = 0
		let bad = false
		const end = Math.min(to, i + step - 1)
		for (let j = i; j <= end; j++) {
			const sample = limiter.samples[j]
			if (j > from && store.processes[j] !== store.processes[j - 1]) {
				const x = (((store.times[j] ?? 0) - begin) / length) * WIDTH
				changes.push(`M${x.toFixed(1)} 0v${HEIGHT}`)
			}
			if (sample === undefined) continue
			active = Math.max(active, sample.active)
			load = Math.max(load, sample.active + sample.queued)
			bad ||= (increase(limiter, j, 'rejected') ?? 0) > 0
			capacity = sample.capacity
		}
		highest = Math.max(highest, load)
		points.push({ x: (((store.times[end] ?? 0) - begin) / length) * WIDTH, active, load, bad })
	}
	if (keyed) capacity = null
	if (capacity !== null && capacity < 20 * highest) highest = Math.max(highest, capacity)
	const y = (value: number): string => (HEIGHT - 1 - (value / highest) * (HEIGHT - 3)).toFixed(1)
	const area = (field: 'active' | 'load'): string => {
		let path = `M0 ${HEIGHT}`
		let before = 0
		for (const point of points) {
			path += `H${before.toFixed(1)}V${y(point[field])}H${point.x.toFixed(1)}`
			before = point.x
		}
		return `${path}V${HEIGHT}Z`
	}
	const marks = points
		.filter(({ bad }) => bad)
		.map(({ x }) => `M${Math.max(1, x - 1).toFixed(1)} 0v5`)
	return (
		<svg
			class="spark"
			viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
			preserveAspectRatio="none"
			aria-hidden="true"
		>
			<path class="spark-queued" d={area('load')} />
			<path class="spark-active" d={area('active')} />
			{capacity !== null && <path class="spark-capacity" d={`M0 ${y(capacity)}H${WIDTH}`} />}
			<path class="spark-rejected" d={marks.join('')} />
			<path class="spark-changed" d={changes.join('')} />
		</svg>
	)
}
