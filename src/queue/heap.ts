/** The place of an owner in a {@link Heap}. It has none until `set` is called. */
export class Place<T> {
	key = 0
	/** Sorts places of the same key: the one that has had it the longest is first. */
	order = 0
	/** -1: it is in no heap. */
	index = -1
	readonly owner: T

	constructor(owner: T) {
		this.owner = owner
	}
}

/** Owners sorted by a number that may be any number. The steps of a change grow with log₂ n. */
export class Heap<T> {
	readonly #places: Place<T>[] = []
	#order = 0

	get size(): number {
		return this.#places.length
	}

	/** Of the places with the lowest key, the one that has had it the longest. */
	get first(): Place<T> | undefined {
		return this.#places[0]
	}

	/** Sets the key of an owner. It comes behind the owners that have this key already. */
	set(place: Place<T>, key: number): void {
		if (place.index < 0) {
			place.index = this.#places.length
			this.#places.push(place)
		} else if (place.key === key) {
			return
		}
		place.key = key
		place.order = this.#order++
		this.#down(place, this.#up(place, place.index))
	}

	delete(place: Place<T>): void {
		const { index } = place
		if (index < 0) return
		place.index = -1
		const last = this.#places.pop() as Place<T>
		if (last !== place) this.#down(last, this.#up(last, index))
	}

	/** @returns where the place is then. */
	#up(place: Place<T>, from: number): number {
		let index = from
		while (index > 0) {
			const parent = this.#places[(index - 1) >> 1] as Place<T>
			if (!isBefore(place, parent)) break
			this.#put(parent, index)
			index = (index - 1) >> 1
		}
		this.#put(place, index)
		return index
	}

	#down(place: Place<T>, from: number): void {
		let index = from
		for (;;) {
			const left = this.#places[2 * index + 1]
			const right = this.#places[2 * index + 2]
			const child = right !== undefined && isBefore(right, left as Place<T>) ? right : left
			if (child === undefined || !isBefore(child, place)) break
			const next = child.index
			this.#put(child, index)
			index = next
		}
		this.#put(place, index)
	}

	#put(place: Place<T>, index: number): void {
		this.#places[index] = place
		place.index = index
	}
}

function isBefore<T>(a: Place<T>, b: Place<T>): boolean {
	return a.key < b.key || (a.key === b.key && a.order < b.order)
}
