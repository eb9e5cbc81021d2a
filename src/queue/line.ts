import type { Pace } from '../semaphore/pace.js'
import { WaitQueue } from '../semaphore/wait-queue.js'
import type { Group, Rank, Ranked } from './group.js'
import type { Order } from './options.js'

/*
 * The constants of CoDel (RFC 8289), applied to request queues by Ben Maurer, "Fail at Scale", ACM
 * Queue 13 (8), 2015: a queue that has not been empty for 100 ms is a standing queue; waits must
 * then be shorter than 5 ms. TARGET is those 5 ms, and INTERVALS is 100 ms divided by it.
 */
const TARGET = 5
const INTERVALS = 20

/**
 * Waiters that differ only in the time at which they came.
 *
 * `adaptive` needs no timer and reads no clock: it decides only when a newcomer comes, whose
 * arrival time is known. The only waiter left never has to leave, as RFC 8289 never drops the last
 * packet: otherwise a permit that comes back would find no waiter.
 */
export class Line<T extends Ranked<T>> implements Group<T> {
	wanted = 0
	readonly #waiters: WaitQueue<T> = new WaitQueue()
	readonly #order: Order
	readonly #pace: Pace
	#newestFirst: boolean
	/** The time since which it has not been empty, in ms. */
	#since = 0

	constructor(order: Order, pace: Pace) {
		this.#order = order
		this.#pace = pace
		this.#newestFirst = order === 'lifo'
	}

	get size(): number {
		return this.#waiters.size
	}

	get idle(): boolean {
		return this.size === 0
	}

	get head(): T | undefined {
		return this.#newestFirst ? this.#waiters.tail : this.#waiters.head
	}

	get last(): T | undefined {
		return this.#newestFirst ? this.#waiters.head : this.#waiters.tail
	}

	push(member: T): void {
		if (this.size === 0) this.#since = member.waited
		this.#newestFirst = this.#isNewestFirst(member.waited)
		this.#waiters.push(member)
		this.wanted += member.rank.weight
	}

	take(member: T): void {
		this.remove(member)
	}

	remove(member: T): void {
		this.#waiters.remove(member)
		this.wanted -= member.rank.weight
	}

	/**
	 * With last in, first out, the oldest waiter would be served last: a newcomer takes its place.
	 */
	lessEntitled(_rank: Rank, now: number): T | undefined {
		return this.#isNewestFirst(now) ? this.#waiters.head : undefined
	}

	overstayed(_rank: Rank | undefined, now: number): T | undefined {
		if (this.#order !== 'adaptive' || this.size < 2 || !this.#stands(now)) return undefined
		const oldest = this.#waiters.head as T
		return now - oldest.waited > this.#target ? oldest : undefined
	}

	ahead(): number {
		return this.#newestFirst ? 0 : this.wanted
	}

	hold(): void {}

	release(): void {}

	/**
	 * The longest wait in a standing queue, in ms. It is at least the time in which one permit comes
	 * back, as CoDel's target is at least the time to send one packet.
	 */
	get #target(): number {
		return Math.max(TARGET, this.#pace.timeFor(1))
	}

	#isNewestFirst(now: number): boolean {
		return this.#order === 'lifo' || (this.#order === 'adaptive' && this.#stands(now))
	}

	#stands(now: number): boolean {
		return now - this.#since > INTERVALS * this.#target
	}
}
