import { now } from '../semaphore/clock.js'
import type { Group, Rank, Ranked } from './group.js'
import { Heap, Place } from './heap.js'
import type { Line } from './line.js'

/**
 * How long a flow's use of permits is remembered, as a multiple of the mean time for which a permit
 * is held. The longer, the smaller are the differences that become equal; the shorter, the sooner.
 */
const MEMORY = 16

/** How many flows at most are remembered that have nothing waiting and nothing at work. */
const MOST_RESTING = 1_000

/** The requests of one user or tenant. */
class Flow<T extends Ranked<T>> {
	/** Permits held by its requests. */
	held = 0
	/** What it has used, in permits for a share of 1, and at which time that was so. */
	used: number
	time: number
	/** The most permits that one of its requests takes. */
	heaviest = 1
	readonly name: string
	share: number
	readonly line: Line<T>
	/** Its places among the flows that have waiters. */
	readonly byTurn: Place<Flow<T>> = new Place(this)
	readonly byLength: Place<Flow<T>> = new Place(this)

	constructor({ flow, share }: Rank, line: Line<T>, used: number, time: number) {
		this.name = flow
		this.share = share
		this.line = line
		this.used = used
		this.time = time
	}
}

/**
 * Flows that share the capacity max-min fairly by weight: one with twice the share may hold twice
 * as many permits.
 *
 * The flow is next for which (permits held + permits used before) / share is lowest. The permits
 * held decide in most cases: so a flow that comes back gets what comes back, until it has its
 * share. But permits are whole, and shares of them are not: a flow whose share is half a permit
 * must have one for half of the time. So what it used before counts too. Only the difference from
 * what the other flows used (`#level`, their mean) counts, and never as more than one request: a
 * flow must not pay for what nobody else wanted, nor be paid for what it did not want. Time counts
 * only while a request waits.
 */
export class WeightedFlows<T extends Ranked<T>> implements Group<T> {
	size = 0
	wanted = 0
	readonly #newLine: () => Line<T>
	readonly #flows = new Map<string, Flow<T>>()
	readonly #byTurn: Heap<Flow<T>> = new Heap()
	readonly #byLength: Heap<Flow<T>> = new Heap()
	/** Flows that have nothing waiting and nothing at work, and have used more than their share. */
	readonly #resting = new Set<Flow<T>>()
	/** Of the flows that have waiters: the sum of the shares, and of what they used. */
	#shares = 0
	#used = 0
	/** What flows have used, on average, for a share of 1. */
	#level = 0
	/** The time for which requests waited, in ms, and the moment at which that was so. */
	#time = 0
	#moment = 0
	/** The mean time for which a permit is held, in ms, and of how many it is the mean. */
	#mean = 0
	#measured = 0

	constructor(newLine: () => Line<T>) {
		this.#newLine = newLine
	}

	get idle(): boolean {
		return this.#flows.size === 0
	}

	get head(): T | undefined {
		this.#pass()
		for (;;) {
			const flow = this.#byTurn.first?.owner
			// The others have used more since they were placed, or as much: none of them can be lower.
			if (flow === undefined || flow.time === this.#time) return flow?.line.head
			this.#use(flow)
			this.#place(flow)
		}
	}

	get last(): T | undefined {
		return this.#byLength.first?.owner.line.last
	}

	push(member: T): void {
		const flow = this.#at(member.rank)
		this.#reshare(flow, member.rank.share)
		if (flow.line.size === 0) this.#count(flow, flow.share)
		flow.line.push(member)
		this.size++
		this.wanted += member.rank.weight
		this.#place(flow)
	}

	take(member: T): void {
		const flow = this.#at(member.rank)
		flow.held += member.rank.weight
		this.#leave(flow, member)
	}

	remove(member: T): void {
		this.#leave(this.#at(member.rank), member)
	}

	/**
	 * The last waiter of the flow that has most waiting for its share, if that is still more than the
	 * newcomer's own flow will have. The last waiter of a flow that has only one is never evicted.
	 * Otherwise the order within the newcomer's own flow decides (line.ts).
	 */
	lessEntitled(rank: Rank, moment: number): T | undefined {
		const longest = this.#byLength.first?.owner
		const own = this.#flows.get(rank.flow)
		if (longest !== undefined && excess(longest) > (own?.line.size ?? 0) / rank.share) {
			return longest.line.last
		}
		return own?.line.lessEntitled(rank, moment)
	}

	overstayed(rank: Rank, moment: number): T | undefined {
		return this.#flows.get(rank.flow)?.line.overstayed(rank, moment)
	}

	/** For each permit that its own flow wants before it, all flows get theirs. */
	ahead(rank: Rank): number {
		const own = this.#flows.get(rank.flow)?.line.ahead() ?? 0
		return Math.min(this.wanted, own * Math.max(1, this.#shares / rank.share))
	}

	hold(rank: Rank): void {
		const flow = this.#at(rank)
		flow.held += rank.weight
		if (flow.line.size > 0) this.#place(flow)
	}

	release(rank: Rank, held: number): void {
		this.#measured = Math.min(64, this.#measured + 1)
		this.#mean += (held - this.#mean) / this.#measured
		const flow = this.#at(rank)
		flow.held -= rank.weight
		if (flow.line.size > 0) this.#place(flow)
		else if (flow.held === 0) this.#rest(flow)
	}

	/** The flow of a request, which has used permits until now. */
	#at(rank: Rank): Flow<T> {
		this.#pass()
		let flow = this.#flows.get(rank.flow)
		if (flow === undefined) {
			flow = new Flow(rank, this.#newLine(), this.#level, this.#time)
			this.#flows.set(rank.flow, flow)
		} else {
			this.#resting.delete(flow)
			this.#use(flow)
		}
		flow.heaviest = Math.max(flow.heaviest, rank.weight)
		return flow
	}

	#pass(): void {
		const moment = now()
		if (this.size > 0) this.#time += moment - this.#moment
		this.#moment = moment
	}

	/** Adds what a flow has used since it was looked at, within its bounds. */
	#use(flow: Flow<T>): void {
		const { share, heaviest, time } = flow
		flow.time = this.#time
		const memory = MEMORY * this.#mean
		const more = memory === 0 ? 0 : (flow.held * (this.#time - time)) / (memory * share)
		const most = heaviest / share
		const used = Math.min(this.#level + most, Math.max(this.#level - most, flow.used + more))
		if (flow.line.size > 0) {
			this.#used += share * (used - flow.used)
			if (this.#shares > 0) this.#level = this.#used / this.#shares
		}
		flow.used = used
	}

	/** A flow has the share of its newest request. */
	#reshare(flow: Flow<T>, share: number): void {
		if (flow.line.size > 0) this.#count(flow, share - flow.share)
		flow.share = share
	}

	/** Counts a share more, or less, among those of the flows that have waiters. */
	#count({ used }: Flow<T>, share: number): void {
		this.#shares += share
		this.#used += share * used
		if (this.#shares > 0) this.#level = this.#used / this.#shares
	}

	#place(flow: Flow<T>): void {
		this.#byTurn.set(flow.byTurn, flow.used + flow.held / flow.share)
		this.#byLength.set(flow.byLength, -excess(flow))
	}

	#leave(flow: Flow<T>, member: T): void {
		flow.line.remove(member)
		this.size--
		this.wanted -= member.rank.weight
		if (flow.line.size > 0) {
			this.#place(flow)
			return
		}
		this.#byTurn.delete(flow.byTurn)
		this.#byLength.delete(flow.byLength)
		if (this.size > 0) this.#count(flow, -flow.share)
		else this.#forgetAll()
		if (flow.held === 0) this.#rest(flow)
	}

	/** Remembers what an idle flow has used beyond its share, as long as others wait. */
	#rest(flow: Flow<T>): void {
		this.#resting.add(flow)
		for (const oldest of this.#resting) {
			const due = this.size > 0 && oldest.used > this.#level
			if (due && this.#resting.size <= MOST_RESTING) break
			this.#forget(oldest)
		}
	}

	/** Nothing waits: what was used is of no account any more. */
	#forgetAll(): void {
		for (const flow of this.#resting) this.#forget(flow)
		this.#shares = 0
		this.#used = 0
	}

	#forget(flow: Flow<T>): void {
		this.#resting.delete(flow)
		this.#flows.delete(flow.name)
	}
}

/** The requests that wait beyond the first one, for a share of 1. */
function excess<T extends Ranked<T>>({ line, share }: Flow<T>): number {
	return (line.size - 1) / share
}
