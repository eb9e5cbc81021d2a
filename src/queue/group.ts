import { type Permits, Waiter } from '../semaphore/permits.js'
import type { Linked } from '../semaphore/wait-queue.js'

/** Determines the turn of a request. */
export interface Rank {
	/** Higher goes first. */
	readonly priority: number
	/** The flow of the request; `''` without `fairBy`. */
	readonly flow: string
	/** The permits that it takes. */
	readonly weight: number
	/** The weight of its flow among the flows; 1 without `share`. */
	readonly share: number
}

/** What a scheduled queue needs to know of a waiter. */
export interface Ranked<T> extends Linked<T> {
	readonly rank: Rank
	/** The time at which it began to wait, in ms, as long as it waits. */
	readonly waited: number
}

/** A waiter in a scheduled queue. */
export class RankedWaiter extends Waiter implements Ranked<RankedWaiter> {
	declare readonly rank: Rank

	/** @param since - when it began to wait, in ms. */
	constructor(permits: Permits<Waiter>, rank: Rank, since: number) {
		super(permits, rank.weight, since)
		this.rank = rank
	}
}

/** Waiters of one priority, and which of them is next. */
export interface Group<T> {
	/** The number of waiters. */
	readonly size: number
	/** The permits that the waiters want. */
	readonly wanted: number
	/** Whether it can be forgotten: nothing waits and, with `fairBy`, nothing is at work. */
	readonly idle: boolean
	/** The waiter that is next. */
	readonly head: T | undefined
	/** The waiter whose turn is last. */
	readonly last: T | undefined
	push(member: T): void
	/** Removes the head, which holds its permits from now on. */
	take(member: T): void
	/** Removes any waiter, which gets no permits. */
	remove(member: T): void
	/** The waiter to evict from a full queue for a newcomer of this rank; `undefined`: none. */
	lessEntitled(rank: Rank, now: number): T | undefined
	/** A waiter that has waited too long, and must leave when a newcomer of this rank comes. */
	overstayed(rank: Rank, now: number): T | undefined
	/** An estimate of the permits wanted by the waiters before a newcomer of this rank. */
	ahead(rank: Rank): number
	/** A request was admitted without waiting, or has taken more permits. */
	hold(rank: Rank): void
	/** A request has given permits back, which it held for so many ms. */
	release(rank: Rank, held: number): void
}
