import { checkWeight, LONGEST_TIMER } from '../checks.js'
import type { Rank } from '../queue/group.js'
import { Heap, Place } from '../queue/heap.js'
import { asOf, now } from '../semaphore/clock.js'
import { type Deferred, deferred } from '../semaphore/deferred.js'
import type { AbortSignalLike } from '../semaphore/signals.js'
import type { Outcome } from '../stats/observer.js'
import type { Rejected, Stay } from './gate.js'
import type { Partition } from './partition.js'

/*
 * How it works: each request is admitted at once. The partition is given a virtual request in its
 * place, which waits or is rejected as if the limit were enforced. What a request does, like its
 * end, its virtual request does later, by the time that it has waited: so both hold their permits
 * for the same time, and that time is known when it is needed.
 *
 *   request           |── at work ──|
 *   virtual request   |── waits ────|── at work ──|
 *
 * A timer can be late. What happens then happens as of the time at which it was due, and before
 * anything that comes later.
 */

/** Admits all requests, and lets virtual ones take part in the limit. */
export class DryRun {
	/** What virtual requests will do, by the time in ms. */
	readonly #agenda: Heap<() => void> = new Heap()
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

	/** Does something at this time, in ms. */
	at(time: number, act: () => void): void {
		this.#agenda.set(new Place(act), time)
		this.#catchUp()
	}

	/** Does everything whose time has come, in the order of the times. */
	#catchUp(): void {
		for (
			let next = this.#agenda.first;
			next !== undefined && next.key <= now();
			next = this.#agenda.first
		) {
			this.#agenda.delete(next)
			asOf(next.key, next.owner)
		}
		this.#setTimer()
	}

	#setTimer(): void {
		const due = this.#agenda.first?.key
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
	readonly #dryRun: DryRun
	/** What becomes of the virtual request; `undefined` as long as it waits. */
	#virtual: Stay | Rejected | undefined = undefined
	/** What the request did while its virtual request waited. */
	#done: { time: number; act: (virtual: Stay) => void }[] = []
	#waiter: { handleEvent(): void } | undefined = undefined
	#over = false

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
		this.#virtual = settled
		for (const { time, act } of this.#done) this.#follow(time, act)
		this.#done = []
	}

	weigh(weight: number): void {
		checkWeight(weight, Number.POSITIVE_INFINITY)
		if (!this.#over) this.#follow(now(), (virtual) => virtual.weigh?.(weight))
	}

	abandon(): void {
		if (!this.#over) this.#follow(now(), (virtual) => virtual.abandon?.())
	}

	leave(outcome: Outcome): void {
		if (this.#over) return
		this.#over = true
		if (outcome === 'abandoned' && this.#waiter !== undefined) {
			this.aborted = true
			this.#waiter.handleEvent()
		} else {
			this.#follow(now(), (virtual) => virtual.leave(outcome))
		}
		this.#dryRun.ended()
	}

	/** What the request does at this time, its virtual request does later. */
	#follow(time: number, act: (virtual: Stay) => void): void {
		const virtual = this.#virtual
		if (virtual === undefined) this.#done.push({ time, act })
		else if (virtual.tag === 'admitted') this.#dryRun.at(time + virtual.waited, () => act(virtual))
	}
}
