import type { Caller } from './caller.js'
import type { KeyQueue } from './key-queue.js'
import type { Membership } from './membership.js'
import type { WhenUnavailable } from './options.js'

/** Decides what a process admits while Redis is unavailable. */
export class Alone {
	readonly #membership: Membership
	readonly #whenUnavailable: WhenUnavailable
	readonly #localCapacity: number | undefined

	constructor(
		membership: Membership,
		whenUnavailable: WhenUnavailable,
		localCapacity: number | undefined,
	) {
		this.#membership = membership
		this.#whenUnavailable = whenUnavailable
		this.#localCapacity = localCapacity
	}

	/**
	 * Whether the share is missing, as this process never got an answer of Redis: any permit that it
	 * gave could exceed the capacity.
	 */
	get noShare(): boolean {
		const { known } = this.#membership
		return this.#whenUnavailable === 'local' && this.#localCapacity === undefined && !known
	}

	/** What happens to requests while Redis is unavailable. */
	get rule(): WhenUnavailable {
		return this.noShare ? 'reject' : this.#whenUnavailable
	}

	/** Whether one more caller of a key can be admitted without Redis. */
	hasRoom(queue: KeyQueue<Caller>, weight: number): boolean {
		const { state, available } = this.#membership
		// While Redis is being told what is held, no permit must be added.
		if (state !== 'joining' || available) return false
		const { rule } = this
		if (rule !== 'local') return rule === 'admit'
		const share = this.#share(queue)
		// A caller that is too heavy for the share is admitted alone, once the lease has ended, if
		// there is a share.
		return (
			queue.active + weight <= share ||
			(queue.active === 0 && share > 0 && this.#membership.leaseEnded)
		)
	}

	/** Whether Redis is unavailable, and this process has no share of a key. */
	isShut(queue: KeyQueue<Caller>): boolean {
		const { available } = this.#membership
		return !available && this.rule === 'local' && this.#share(queue) === 0
	}

	/**
	 * The permits of a key that this process may hold while Redis is unavailable. Until its lease
	 * ends, Redis keeps what the process held: with those permits and its part of the free ones, the
	 * capacity is not exceeded. After that, this depends on what is away. If it is Redis, it remains
	 * true. If only this process is cut off, others get what it held: so it then takes at most its
	 * part of the capacity. When all that was begun under older leases counts as over, it is that
	 * part.
	 */
	#share(queue: KeyQueue<Caller>): number {
		if (this.#localCapacity !== undefined) return this.#localCapacity
		const { leaseEnded, longAway, fleet } = this.#membership
		const { capacity, active, processes, rank, grace } = fleet
		// Nobody else holds any.
		if (processes === 1 && !grace) return capacity
		const place = (rank + queue.offset) % processes
		const partOf = (all: number): number =>
			Math.floor(all / processes) + (place < all % processes ? 1 : 0)
		if (longAway) return partOf(capacity)
		// How many permits of one key were free is not known.
		const free = queue.key === undefined ? Math.max(0, capacity - active) : 0
		const known = queue.kept + partOf(free)
		return leaseEnded ? Math.min(known, partOf(capacity)) : known
	}
}
