import { type Permits, Waiter } from '../semaphore/permits.js'
import type { Linked } from '../semaphore/wait-queue.js'

/** What decides of a request’s turn. */
export interface Rank {
	/** Higher goes first. */
	readonly priority: number
	/** Whose request it is; `''` where nobody shares. */
	readonly flow: string
	/** The permits that it takes. */
	readonly weight: number
}

/** Who waits in a scheduled queue. */
export interface Ranked<T> extends Linked<T> {
	readonly rank: Rank
	/** When it began to wait, as long as it waits. */
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
	/** Who wait. */
	readonly size: number
	/** The permits that they want. */
	readonly wanted: number
	/** Nothing need be kept of it. */
	readonly idle: boolean
	/** Who is next. */
	readonly head: T | undefined
	/** The one whose turn is last. */
	readonly last: T | undefined
	push(member: T): void
	/** The head leaves, and has its permits from now on. */
	take(member: T): void
	/** A member leaves without, wherever it stands. */
	remove(member: T): void
	/** The one that must leave a full queue for a newcomer of this rank; `undefined`: none has less right to wait. */
	lessEntitled(rank: Rank, now: number): T | undefined
	/** Who has waited too long to stay, now that a newcomer of this rank comes. */
	overstayed(rank: Rank, now: number): T | undefined
	/** The permits wanted by those whose turn is before that of a newcomer of this rank, as far as can be told. */
	ahead(rank: Rank): number
	/** A request has permits without having waited. */
	hold(rank: Rank): void
	/** A request has given its permits back. */
	release(rank: Rank): void
}
