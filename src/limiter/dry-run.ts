import { LONGEST_TIMER } from '../checks.js'
import type { Rank } from '../queue/group.js'
import { Heap, Place } from '../queue/heap.js'
import { asOf, now } from '../semaphore/clock.js'
import { type Deferred, deferred } from '../semaphore/deferred.js'
import type { AbortSignalLike } from '../semaphore/permits.js'
import type { Outcome } from '../stats/observer.js'
import type { Rejected, Stay } from './gate.js'
import type { Partition } from './partition.js'

/*
 * How it works: each request is admitted at once. The partition is given a virtual request in its
 * place, which waits or is rejected as if the limit were enforced. A virtual request ends as long
 * after the request itself as it has waited: so both hold their permits for the same time, and that
 * time is known when it is needed.
 *
 *   request           |── at work ──|
 *   virtual request   |── waits ────|── at work ──|
 *
 * A timer for the end of a virtual request can be late. What happens then happens as of the time at
 * which it was due, and before anything that comes later.
 */

/** Admits all requests, and lets virtual ones take part in the limit. */
export class DryRun {
	/** Virtual requests that are at work longer than their requests, by their ends, in ms. */
	readonly #ends: Heap<DryStay> = new Heap()
	#timer: ReturnType<typeof setTimeout> | undefined = undefined
	/** The time at which the timer is due, in ms. */
	#due = 0
	/** Requests at work. */
	#active = 0
	#idle: Deferred | undefined = undefined

	enter(partition: Partition, weight: number, rank: Rank | undefined, left: number): Stay {
		this.#catchUp()
		const stay = this.admit()
		const entrance = partition.enter(weight, rank, left, stay)
		if (entrance.tag === 'waiting') entrance.settled.then((settled) => stay.settle(settled))
		else stay.settle(entrance)
		return stay
	}

	/** Admits a request of which the limit knows nothing, or nothing more. */
	admit(): DryStay {
		this.#active++
		return new DryStay(this)
	}

	/** Resolves when no request is at work: at once if that is so now. */
	onIdle(): Promise<void> {
		if (this.#active === 0) return Promise.resolve()
		this.#idle ??= deferred()
		return this.#idle.promise
	}

	/** A request is over. */
	ended(): void {
		this.#active--
		if (this.#active > 0) return
		this.#idle?.resolve()
		this.#idle = undefined
	}

	/** Ends a virtual request at this time, in ms. */
	endAt(place: Place<DryStay>, time: number): void {
		this.#ends.set(place, time)
		this.#catchUp()
	}

	/** Ends the virtual requests whose time has come, in the order of their ends. */
	#catchUp(): void {
		for (let next = this.#ends.lowest; next !== undefined; next = this.#ends.lowest) {
			const { place } = next
			if (place.key > now()) break
			this.#ends.delete(place)
			const stay = next
			asOf(place.key, () => stay.end())
		}
		this.#setTimer()
	}

	#setTimer(): void {
		const due = this.#ends.lowest?.place.key
		if (this.#timer !== undefined && due === this.#due) return
		clearTimeout(this.#timer)
		this.#timer = undefined
		if (due === undefined) return
		this.#due = due
		const alarm = (): void => {
			this.#timer = undefined
			this.#catchUp()
		}
		this.#timer = setTimeout(alarm, Math.min(LONGEST_TIMER, Math.max(0, due - now())))
		this.#timer.unref?.()
	}
}

/** The stay of a request, and the signal of its virtual request. */
class DryStay implements Stay, AbortSignalLike {
	/** Whether the virtual request has left, as the client has. */
	aborted = false
	readonly place: Place<DryStay> = new Place(this)
	readonly #dryRun: DryRun
	/** The stay of the virtual request; `undefined` as long as it waits, and if it is rejected. */
	#virtual: Stay | undefined = undefined
	#waiter: { handleEvent(): void } | undefined = undefined
	/** When and how the request has ended. */
	#ended: number | undefined = undefined
	#outcome: Outcome = 'ok'

	constructor(dryRun: DryRun) {
		this.#dryRun = dryRun
	}

	get tag(): 'admitted' {
		return 'admitted'
	}

	get waited(): number {
		return 0
	}

	get queued(): number {
		return 0
	}

	get capacity(): number {
		return Number.POSITIVE_INFINITY
	}

	get available(): number {
		return Number.POSITIVE_INFINITY
	}

	addEventListener(_type: 'abort', waiter: { handleEvent(): void }): void {
		this.#waiter = waiter
	}

	removeEventListener(): void {
		this.#waiter = undefined
	}

	/** The virtual request has been admitted, or rejected. */
	settle(settled: Stay | Rejected): void {
		if (settled.tag === 'rejected') return
		this.#virtual = settled
		this.#endVirtual()
	}

	leave(outcome: Outcome): void {
		if (this.#ended !== undefined) return
		this.#ended = now()
		this.#outcome = outcome
		if (outcome === 'abandoned' && this.#waiter !== undefined) {
			this.aborted = true
			this.#waiter.handleEvent()
		} else {
			this.#endVirtual()
		}
		this.#dryRun.ended()
	}

	/** Ends the virtual request now. */
	end(): void {
		this.#virtual?.leave(this.#outcome)
	}

	#endVirtual(): void {
		if (this.#virtual === undefined || this.#ended === undefined) return
		this.#dryRun.endAt(this.place, this.#ended + this.#virtual.waited)
	}
}
