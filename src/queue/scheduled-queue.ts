import type { Group, Rank, Ranked } from './group.js'

interface Level<T> {
	readonly priority: number
	readonly group: Group<T>
}

/** One turn, less a tolerance for floating-point rounding: ten times 0.1 adds up to less than 1. */
const WHOLE = 1 - 1e-9

/**
 * A queue sorted by priority first, then by fair shares (with `fairBy`), then by order.
 *
 * A new waiter becomes the head if its priority is higher, if its flow holds fewer permits than the
 * flow of the head, or if the order is last in, first out. Every operation is O(1) in the number of
 * waiters, and with `share` O(log n) in the number of flows. The priorities in use are a sorted
 * list, and should be few.
 */
export class ScheduledQueue<T extends Ranked<T>> {
	size = 0
	readonly #newGroup: () => Group<T>
	readonly #shared: boolean
	readonly #lowerShare: number
	/** The levels in which a request waits or, with `fairBy`, is at work. */
	readonly #levels = new Map<number, Level<T>>()
	/** The levels in which a request waits, sorted, the highest at the end. */
	readonly #waiting: Level<T>[] = []
	/**
	 * Turns that are due to the lower levels, and the priority of the lower level that had the last
	 * one.
	 */
	#owed = 0
	#lastLower = Number.NEGATIVE_INFINITY

	/**
	 * @param shared - whether the groups must know how many permits are held (with `fairBy`).
	 * @param lowerShare - the share of the turns, from 0 to 0.5, that the lower levels get, one after
	 * the other.
	 */
	constructor(newGroup: () => Group<T>, shared: boolean, lowerShare: number) {
		this.#newGroup = newGroup
		this.#shared = shared
		this.#lowerShare = lowerShare
	}

	get head(): T | undefined {
		return this.#waiting[this.#turn()]?.group.head
	}

	push(member: T): void {
		const level = this.#level(member.rank.priority)
		if (level.group.size === 0) this.#waiting.splice(this.#above(level.priority), 0, level)
		level.group.push(member)
		this.size++
	}

	/** Removes the head, which gets its permits. */
	take(member: T): void {
		if (this.#waiting.length > 1) {
			if (this.#owed >= WHOLE) {
				this.#owed -= 1
				this.#lastLower = member.rank.priority
			}
			this.#owed += this.#lowerShare
		}
		const level = this.#level(member.rank.priority)
		level.group.take(member)
		this.#left(level)
	}

	/** Removes any waiter, which gets no permits. */
	remove(member: T): void {
		const level = this.#level(member.rank.priority)
		level.group.remove(member)
		this.#left(level)
	}

	/**
	 * The waiter to evict from a full queue for a newcomer of this rank; `undefined`: none has less
	 * right to wait.
	 *
	 * It is the last waiter of the level that must give up a place (`#levelToShrink`), if there is
	 * one. Otherwise the newcomer's own level decides: by flow (`lessEntitled` in flows.ts), then by
	 * order (in line.ts).
	 */
	lessEntitled(rank: Rank, now: number): T | undefined {
		const { priority } = rank
		const own = this.#levels.get(priority)?.group
		return this.#levelToShrink(priority, own?.size ?? 0)?.last ?? own?.lessEntitled(rank, now)
	}

	/**
	 * The level that must give up a place of the full queue to a newcomer of this priority.
	 *
	 * Without `lowerShare`, it is the lowest level, if that is below the newcomer's. With
	 * `lowerShare`, the lower levels (all but the highest) also keep that share of the places:
	 * without waiters they could not use their share of the turns. It is divided equally between
	 * them.
	 *
	 * | the newcomer's level    | if                                          | the place comes from    |
	 * | ----------------------- | ------------------------------------------- | ----------------------- |
	 * | the highest             | the lower levels have more than their share | the lowest level        |
	 * | lower, less than a part | the lower levels have less than their share | the highest level       |
	 * | lower, less than a part | a lower level has two waiters more          | the longest lower level |
	 * | lower                   | a level below it has more than a part       | the lowest such level   |
	 */
	#levelToShrink(priority: number, size: number): Group<T> | undefined {
		const top = this.#waiting.at(-1)
		if (top === undefined) return undefined
		if (this.#lowerShare === 0) return this.#lowestBelow(priority, 0)

		const lower = priority > top.priority ? this.size : this.size - top.group.size
		// At least one place, and never all.
		const share = Math.min(this.size - 1, Math.max(1, Math.floor(this.#lowerShare * this.size)))
		if (priority >= top.priority) return lower > share ? this.#lowestBelow(priority, 0) : undefined

		const lowerLevels = this.#waiting.length - 1 + (size === 0 ? 1 : 0)
		const part = Math.max(1, Math.floor(share / lowerLevels))
		if (size < part) {
			if (lower < share) return top.group
			const longest = this.#longestBelow(top)
			if (longest !== undefined && longest.size > size + 1) return longest
		}
		return this.#lowestBelow(priority, part)
	}

	/** The lowest of the levels that have more waiters than `kept`, if it is below `priority`. */
	#lowestBelow(priority: number, kept: number): Group<T> | undefined {
		const lowest = this.#waiting.find(({ group }) => group.size > kept)
		return lowest !== undefined && lowest.priority < priority ? lowest.group : undefined
	}

	/** A waiter that has waited too long, and must leave when a newcomer of this rank comes. */
	overstayed(rank: Rank, now: number): T | undefined {
		return this.#levels.get(rank.priority)?.group.overstayed(rank, now)
	}

	/** An estimate of the permits wanted by the waiters before a newcomer of this rank. */
	ahead(rank: Rank): number {
		let sum = this.#levels.get(rank.priority)?.group.ahead(rank) ?? 0
		for (let i = this.#waiting.length - 1; i >= 0; i--) {
			const level = this.#waiting[i] as Level<T>
			if (level.priority <= rank.priority) break
			sum += level.group.wanted
		}
		return sum
	}

	/** A request was admitted without waiting, or has taken more permits. */
	hold(rank: Rank): void {
		if (this.#shared) this.#level(rank.priority).group.hold(rank)
	}

	/** A request has given permits back, which it held for so many ms. */
	release(rank: Rank, held: number): void {
		if (!this.#shared) return
		const level = this.#level(rank.priority)
		level.group.release(rank, held)
		this.#forget(level)
	}

	#longestBelow(top: Level<T>): Group<T> | undefined {
		let longest: Group<T> | undefined
		for (const level of this.#waiting) {
			if (level !== top && level.group.size > (longest?.size ?? 0)) longest = level.group
		}
		return longest
	}

	#level(priority: number): Level<T> {
		let level = this.#levels.get(priority)
		if (level === undefined) {
			level = { priority, group: this.#newGroup() }
			this.#levels.set(priority, level)
		}
		return level
	}

	#left(level: Level<T>): void {
		this.size--
		if (level.group.size > 0) return
		this.#waiting.splice(this.#above(level.priority) - 1, 1)
		this.#forget(level)
	}

	#forget(level: Level<T>): void {
		if (level.group.idle) this.#levels.delete(level.priority)
	}

	/** The index of the level whose turn it is. */
	#turn(): number {
		const top = this.#waiting.length - 1
		if (top < 1 || this.#owed < WHOLE) return top
		const lower = this.#above(this.#lastLower) - 1
		const next = this.#waiting[lower]?.priority === this.#lastLower ? lower - 1 : lower
		return next < 0 || next >= top ? top - 1 : next
	}

	/** How many of the levels with waiters have at most this priority. */
	#above(priority: number): number {
		let from = 0
		let to = this.#waiting.length
		while (from < to) {
			const middle = (from + to) >> 1
			if ((this.#waiting[middle] as Level<T>).priority > priority) to = middle
			else from = middle + 1
		}
		return from
	}
}
