import type { Group, Rank, Ranked } from './group.js'

interface Level<T> {
	readonly priority: number
	readonly group: Group<T>
}

/** As many tenths make one whole, as sums of them don’t. */
const WHOLE = 1 - 1e-9

/**
 * A queue in which priority decides first, then what the group of that priority says: fair shares, if asked for, and
 * then the order within each.
 *
 * Its head changes when a more urgent one comes, or when a flow that holds less than the head’s own begins to wait; else it
 * stays the head until it goes. All is O(1), however many wait; priorities that are in use at once are a sorted list.
 */
export class ScheduledQueue<T extends Ranked<T>> {
	size = 0
	readonly #newGroup: () => Group<T>
	readonly #shared: boolean
	readonly #lowerShare: number
	/** Those in which someone waits or, where the group counts this, is at work. */
	readonly #levels = new Map<number, Level<T>>()
	/** Those in which someone waits, the highest at the end. */
	readonly #waiting: Level<T>[] = []
	/** The turns that the lower levels have earned, and the priority of the one that had the last. */
	#owed = 0
	#lastLower = Number.NEGATIVE_INFINITY

	/**
	 * @param shared - the groups ask who holds permits.
	 * @param lowerShare - the share of the turns, from 0 to 0.5, that goes to the lower levels, to each in turn.
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

	/** The head leaves, with permits. */
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

	/** A member leaves without permits, wherever it stands. */
	remove(member: T): void {
		const level = this.#level(member.rank.priority)
		level.group.remove(member)
		this.#left(level)
	}

	/**
	 * The one that must leave a full queue for a newcomer of this rank; `undefined`: none has less right to wait.
	 *
	 * Another level may have to give up a place, the last in it. Otherwise the newcomer's own level decides.
	 */
	lessEntitled(rank: Rank, now: number): T | undefined {
		const { priority } = rank
		const own = this.#levels.get(priority)?.group
		return this.#levelToShrink(priority, own?.size ?? 0)?.last ?? own?.lessEntitled(rank, now)
	}

	/**
	 * The level that must give up a place of the full queue to a newcomer of this priority.
	 *
	 * Without `lowerShare`: the lowest one, if it is below the newcomer's. With it, a share of the turns would be worth nothing
	 * to requests that never get into the queue: so the lower levels, all but the highest, have the same share of its
	 * places. Each of them has an equal part of that.
	 *
	 * | the newcomer's level    | if                                          | then the place comes from      |
	 * | ----------------------- | ------------------------------------------- | ------------------------------ |
	 * | the highest             | the lower levels have more than their share | the lowest level               |
	 * | lower, less than a part | the lower levels have less than their share | the highest level              |
	 * | lower, less than a part | a lower level has two waiters more          | the longest lower level        |
	 * | lower                   | the lowest that has more than a part is below it | that level                |
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

	/** Of the levels that have more waiters than `kept`, the lowest, if it is below a priority. */
	#lowestBelow(priority: number, kept: number): Group<T> | undefined {
		const lowest = this.#waiting.find(({ group }) => group.size > kept)
		return lowest !== undefined && lowest.priority < priority ? lowest.group : undefined
	}

	/** Who must leave when a newcomer of this rank comes, as it has waited too long. */
	overstayed(rank: Rank, now: number): T | undefined {
		return this.#levels.get(rank.priority)?.group.overstayed(rank, now)
	}

	/** The permits wanted by those whose turn is before that of a newcomer of this rank, as far as can be told. */
	ahead(rank: Rank): number {
		let sum = this.#levels.get(rank.priority)?.group.ahead(rank) ?? 0
		for (let i = this.#waiting.length - 1; i >= 0; i--) {
			const level = this.#waiting[i] as Level<T>
			if (level.priority <= rank.priority) break
			sum += level.group.wanted
		}
		return sum
	}

	/** A request has permits without having waited. */
	hold(rank: Rank): void {
		if (this.#shared) this.#level(rank.priority).group.hold(rank)
	}

	/** A request has given its permits back. */
	release(rank: Rank): void {
		if (!this.#shared) return
		const level = this.#level(rank.priority)
		level.group.release(rank)
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

	/** How many of the levels in which someone waits are not above a priority. */
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
