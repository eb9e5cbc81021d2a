import { createHash } from 'node:crypto'
import type { KeyState } from '../../src/limiter/inspection.js'

/** Keys told of each kind. */
const TOLD = 5

/** Keys whose rejections are counted in one second: clients may send any number of keys. */
const COUNTED = 1000

/** Longer keys are told by their start and their end. Clients may send keys of any length. */
const LONGEST_KEY = 160
const [START, END] = [90, 50]

/** The keys of a limiter that waited longest and were rejected most since the sample before. */
export class KeyNotes {
	#longest: [key: string, waited: number][] = []
	readonly #rejected = new Map<string, number>()

	waited(key: string, waited: number): void {
		const name = shorten(key)
		const known = this.#longest.find(([other]) => other === name)
		if (known !== undefined) known[1] = Math.max(known[1], waited)
		else this.#longest = highest([...this.#longest, [name, waited]])
	}

	rejected(key: string): void {
		const name = shorten(key)
		const before = this.#rejected.get(name)
		if (before !== undefined || this.#rejected.size < COUNTED)
			this.#rejected.set(name, (before ?? 0) + 1)
	}

	/** Empties the notes for the next sample. */
	take(): { longest?: [string, number][]; rejected?: [string, number][] } {
		const longest = this.#longest
		const rejected = highest([...this.#rejected])
		this.#longest = []
		this.#rejected.clear()
		return { ...(longest.length > 0 && { longest }), ...(rejected.length > 0 && { rejected }) }
	}
}

/** The keys of which most is at work or waiting now. */
export function busiest(
	keys: Iterable<KeyState>,
): [key: string, active: number, queued: number, capacity: number | null][] {
	let top: KeyState[] = []
	let least = 0
	for (const state of keys) {
		const load = state.active + state.queued
		if (top.length === TOLD && load <= least) continue
		top = [...top, state].sort((a, b) => b.active + b.queued - a.active - a.queued).slice(0, TOLD)
		const last = top.at(-1) as KeyState
		least = last.active + last.queued
	}
	return top.map(({ key = '', active, queued, capacity }) => [
		shorten(key),
		active,
		queued,
		capacity === Number.POSITIVE_INFINITY ? null : capacity,
	])
}

function highest(pairs: [string, number][]): [string, number][] {
	return pairs.sort(([, a], [, b]) => b - a).slice(0, TOLD)
}

/** The part of a hash tells long keys apart that have the same start and the same end. */
function shorten(key: string): string {
	if (key.length <= LONGEST_KEY) return key
	const hash = createHash('sha256').update(key).digest('hex').slice(0, 8)
	return `${key.slice(0, START)}…${key.slice(-END)} (${key.length} characters, ${hash})`
}
