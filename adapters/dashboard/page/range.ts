// The time that is shown, as indices of the samples.
import { store } from './store.js'
import { view } from './view.js'

export interface Range {
	/** The first and the last sample. */
	from: number
	to: number
	/** The time that the charts span, in s. */
	begin: number
	end: number
}

export function shownRange(): Range {
	const { times } = store
	const latest = times.at(-1) ?? Date.now()
	const end = view.end === undefined ? latest : Math.min(view.end, latest)
	let to = times.length - 1
	while (to > 0 && (times[to] as number) > end) to--
	let from = to
	while (from > 0 && (times[from - 1] as number) >= end - view.span - 500) from--
	return { from, to, begin: (end - view.span) / 1000, end: end / 1000 }
}

/** The sample whose values are shown beside the charts. */
export function pointedIndex({ from, to }: Range): number {
	const { pointed } = view
	if (pointed === undefined) return to
	let best = to
	for (let i = from; i <= to; i++) {
		const distance = Math.abs((store.times[i] as number) - pointed)
		if (distance < Math.abs((store.times[best] as number) - pointed)) best = i
	}
	return best
}

export function windowText(): string {
	if (view.end !== undefined) return 'in the time shown'
	const minutes = view.span / 60_000
	return minutes === 1 ? 'in the last minute' : `in the last ${minutes} min`
}
