import type { Pace } from '../semaphore/pace.js'
import { WaitQueue } from '../semaphore/wait-queue.js'
import type { Group, Rank, Ranked } from './group.js'

/**
 * Who goes first of those who have the same rights.
 *
 * - `fifo`: who came first.
 * - `lifo`: who came last.
 * - `adaptive`: who came first, while the queue empties now and then. Once it stands, who came last; and who has waited
 *   for longer than a short time then leaves with each newcomer.
 */
export type Order = 'fifo' | 'lifo' | 'adaptive'

/*
 * The constants of CoDel (RFC 8289), as published for request queues by Ben Maurer, "Fail at Scale", ACM Queue 13 (8),
 * 2015: a queue that has not been empty for 100 ms stands, and waiting then has to be shorter than 5 ms.
 */
const TARGET = 5
const INTERVALS = 20

/**
 * Waiters that differ in nothing but when they came.
 *
 * For `adaptive` no timer runs and no clock is read: only a newcomer can make a queue stand, or an old waiter useless,
 * and it knows what time it is. The last one left is never sent away, as RFC 8289 never drops the last packet: a permit
 * that comes back would find nobody.
 */
export class Line<T extends Ranked<T>> implements Group<T> {
	wanted = 0
	readonly #waiters: WaitQueue<T> = new WaitQueue()
	readonly #order: Order
	readonly #pace: Pace
	#newestFirst: boolean
	/** Since when it has not been empty. */
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

	/** Where the newest goes first, the oldest goes last: a newcomer takes its place. */
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

	/** It can't be shorter than the time in which one permit comes back, as for CoDel that of sending one packet. */
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
