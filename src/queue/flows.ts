import type { Group, Rank, Ranked } from './group.js'
import type { Line } from './line.js'
import { Entry, Ranking } from './ranking.js'

/** The requests of one user or tenant. */
class Flow<T extends Ranked<T>> {
	/** Permits held by its requests. */
	held = 0
	/** Its places in the two rankings of the flows that have waiters. */
	readonly byHeld: Entry<Flow<T>> = new Entry(this)
	readonly byLength: Entry<Flow<T>> = new Entry(this)
	readonly line: Line<T>

	constructor(line: Line<T>) {
		this.line = line
	}
}

/**
 * Flows that share the capacity max-min fairly. The flow that holds the fewest permits is next; of
 * several such flows, the one that has held that number the longest. So a flow that wants less than
 * an equal share gets all that it wants, and the others divide the rest equally, however many
 * requests each sends and however long they take.
 *
 * A flow is forgotten when it has nothing waiting and nothing at work.
 */
export class Flows<T extends Ranked<T>> implements Group<T> {
	size = 0
	wanted = 0
	readonly #newLine: () => Line<T>
	readonly #flows = new Map<string, Flow<T>>()
	readonly #byHeld: Ranking<Flow<T>> = new Ranking()
	readonly #byLength: Ranking<Flow<T>> = new Ranking()

	constructor(newLine: () => Line<T>) {
		this.#newLine = newLine
	}

	get idle(): boolean {
		return this.#flows.size === 0
	}

	get head(): T | undefined {
		return this.#byHeld.lowest?.line.head
	}

	get last(): T | undefined {
		return this.#byLength.highest?.line.last
	}

	push(member: T): void {
		const flow = this.#flow(member.rank)
		flow.line.push(member)
		this.size++
		this.wanted += member.rank.weight
		this.#byLength.set(flow.byLength, flow.line.size)
		this.#byHeld.set(flow.byHeld, flow.held)
	}

	take(member: T): void {
		this.hold(member.rank)
		this.remove(member)
	}

	remove(member: T): void {
		const { rank } = member
		const flow = this.#flow(rank)
		flow.line.remove(member)
		this.size--
		this.wanted -= rank.weight
		if (flow.line.size > 0) {
			this.#byLength.set(flow.byLength, flow.line.size)
		} else {
			this.#byLength.delete(flow.byLength)
			this.#byHeld.delete(flow.byHeld)
			if (flow.held === 0) this.#flows.delete(rank.flow)
		}
	}

	/**
	 * The last waiter of the longest flow, if that flow is longer than the newcomer's own flow will
	 * be. Otherwise the order within the newcomer's own flow decides (line.ts).
	 */
	lessEntitled(rank: Rank, now: number): T | undefined {
		const longest = this.#byLength.highest
		const own = this.#flows.get(rank.flow)
		const length = own?.line.size ?? 0
		if (longest !== undefined && longest.line.size > length + 1) return longest.line.last
		return own?.line.lessEntitled(rank, now)
	}

	overstayed(rank: Rank, now: number): T | undefined {
		return this.#flows.get(rank.flow)?.line.overstayed(rank, now)
	}

	ahead(rank: Rank): number {
		const flow = this.#flows.get(rank.flow)
		// Flows that hold at most as many permits as the newcomer's are served once before it. All
		// flows are served once for each request that already waits in its own flow.
		const before =
			this.#byHeld.upTo(flow?.held ?? 0) + (flow?.line.ahead() ?? 0) * this.#byHeld.size
		return Math.min(this.wanted, before)
	}

	hold(rank: Rank): void {
		const flow = this.#flow(rank)
		flow.held += rank.weight
		if (flow.line.size > 0) this.#byHeld.set(flow.byHeld, flow.held)
	}

	release(rank: Rank): void {
		const flow = this.#flow(rank)
		flow.held -= rank.weight
		if (flow.line.size > 0) this.#byHeld.set(flow.byHeld, flow.held)
		else if (flow.held === 0) this.#flows.delete(rank.flow)
	}

	#flow(rank: Rank): Flow<T> {
		let flow = this.#flows.get(rank.flow)
		if (flow === undefined) {
			flow = new Flow(this.#newLine())
			this.#flows.set(rank.flow, flow)
		}
		return flow
	}
}
