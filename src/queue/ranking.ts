import { type Linked, WaitQueue } from '../semaphore/wait-queue.js'

/** The place of an owner in a {@link Ranking}. It has none until `set` is called. */
export class Entry<T> implements Linked<Entry<T>> {
	previous: Entry<T> | undefined = undefined
	next: Entry<T> | undefined = undefined
	bucket: Bucket<T> | undefined = undefined
	readonly owner: T

	constructor(owner: T) {
		this.owner = owner
	}
}

/** The owners that have the same count, in the order in which they got it. */
class Bucket<T> {
	previous: Bucket<T> | undefined = undefined
	next: Bucket<T> | undefined = undefined
	readonly entries: WaitQueue<Entry<T>> = new WaitQueue()
	readonly count: number

	constructor(count: number) {
		this.count = count
	}
}

/**
 * Owners sorted by a count that changes in small steps.
 *
 * It is a sorted list of buckets, one for each count that occurs. An owner whose count changes by
 * one moves to a neighbouring bucket: the cost does not depend on the number of owners. If all
 * counts add up to n, there are at most √(2n) buckets, and no search takes more steps.
 */
export class Ranking<T> {
	size = 0
	#lowest: Bucket<T> | undefined = undefined
	#highest: Bucket<T> | undefined = undefined

	/** Of the owners with the lowest count, the one that has had it the longest. */
	get lowest(): T | undefined {
		return this.#lowest?.entries.head?.owner
	}

	/** Of the owners with the highest count, the one that has had it the longest. */
	get highest(): T | undefined {
		return this.#highest?.entries.head?.owner
	}

	/** Sets the count of an owner. It comes behind the owners that have this count already. */
	set(entry: Entry<T>, count: number): void {
		const from = entry.bucket
		if (from?.count === count) return
		let below = from
		if (from === undefined) this.size++
		while (below !== undefined && below.count > count) below = below.previous
		let above = below === undefined ? this.#lowest : below.next
		while (above !== undefined && above.count <= count) {
			below = above
			above = above.next
		}
		const bucket = below?.count === count ? below : this.#insert(count, below, above)
		if (from !== undefined) this.#leave(entry, from)
		bucket.entries.push(entry)
		entry.bucket = bucket
	}

	delete(entry: Entry<T>): void {
		const { bucket } = entry
		if (bucket === undefined) return
		this.#leave(entry, bucket)
		entry.bucket = undefined
		this.size--
	}

	/** How many owners have a count of at most `count`. */
	upTo(count: number): number {
		let sum = 0
		for (
			let bucket = this.#lowest;
			bucket !== undefined && bucket.count <= count;
			bucket = bucket.next
		) {
			sum += bucket.entries.size
		}
		return sum
	}

	#insert(count: number, below: Bucket<T> | undefined, above: Bucket<T> | undefined): Bucket<T> {
		const bucket = new Bucket<T>(count)
		bucket.previous = below
		bucket.next = above
		if (below === undefined) this.#lowest = bucket
		else below.next = bucket
		if (above === undefined) this.#highest = bucket
		else above.previous = bucket
		return bucket
	}

	#leave(entry: Entry<T>, bucket: Bucket<T>): void {
		bucket.entries.remove(entry)
		if (bucket.entries.size > 0) return
		const { previous, next } = bucket
		if (previous === undefined) this.#lowest = next
		else previous.next = next
		if (next === undefined) this.#highest = previous
		else next.previous = previous
	}
}
