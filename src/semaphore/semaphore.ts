import { setMaxListeners } from 'node:events'
import {
	checkCapacity,
	checkDuration,
	checkMaxQueue,
	checkOptions,
	checkSignal,
	checkWeight,
} from '../checks.js'
import { RejectedError, type RejectionReason } from '../errors.js'
import type { Rank } from '../queue/group.js'
import { Pace } from '../stats/pace.js'
import { type Deferred, deferred } from './deferred.js'
import { type Linked, WaitQueue } from './wait-queue.js'

/*
 * How it works: a counter of the permits held (`active`) and a queue of those who wait. Who finds room and nobody
 * waiting gets a permit at once. A permit that comes back is handed to the head of the queue in the same step, so
 * that no newcomer can slip in between; what the waiter does with it runs later, from its own promise, in its own
 * async context and never on the stack of the one who released.
 */

/** The right to be at work. Whoever has it gives it back with `release()`, or by `using`. */
export interface Permit {
	/** How long its owner waited for it, in ms; 0 when there was room. */
	readonly waited: number
	/** Gives the permit back. Only the first call counts. */
	release(): void
	[Symbol.dispose](): void
}

/** What is needed of an `AbortSignal`. A real one fits. */
export interface AbortSignalLike {
	readonly aborted: boolean
	readonly reason?: unknown
	addEventListener(type: 'abort', listener: { handleEvent(): void }, options: { once: true }): void
	removeEventListener(type: 'abort', listener: { handleEvent(): void }): void
}

export interface SemaphoreOptions {
	/** How many callers may wait: an integer from 0. More are rejected with `queue-full`. Default: `Infinity`. */
	maxQueue?: number | undefined
	/** The longest wait, in ms, from 0 to 2^31 - 1. Then the caller is rejected with `timeout`. Default: `Infinity`. */
	maxWait?: number | undefined
}

export interface TryAcquireOptions {
	/** How many permits to take at once: an integer from 1 to the capacity. Default: `1`. */
	weight?: number | undefined
}

export interface AcquireOptions extends TryAcquireOptions {
	/** Ends the wait when it is aborted. Default: none. */
	signal?: AbortSignalLike | undefined
	/**
	 * The longest wait of this caller, in ms, from 0 to 2^31 - 1, or `Infinity`. It doesn't keep a process alive that has nothing
	 * else to do. Default: that of the semaphore.
	 */
	maxWait?: number | undefined
}

const SEMAPHORE_OPTIONS = ['maxQueue', 'maxWait']
const ACQUIRE_OPTIONS = ['weight', 'signal', 'maxWait']

/** One object for all listeners. */
const ONCE = { once: true } as const

/** Nobody has found the semaphore full since it last had room. */
const NEVER = -1

/** How often a stretch without room is added to the pace while it lasts, in ms. */
const PACE_INTERVAL = 1_000

class HeldPermit implements Permit {
	/** `undefined` once released: the first release is the only one. */
	semaphore: Semaphore | undefined
	readonly weight: number
	waited = 0

	constructor(semaphore: Semaphore, weight: number) {
		this.semaphore = semaphore
		this.weight = weight
	}

	release(): void {
		const { semaphore } = this
		if (semaphore === undefined) return
		this.semaphore = undefined
		semaphore.giveBack(this.weight)
	}

	[Symbol.dispose](): void {
		this.release()
	}
}

/**
 * A caller in the queue, and the permit that it is given: one object for both, as there may be a million of them.
 * While it waits, `waited` holds the time at which it began. It is itself the listener on its signal.
 */
class Waiter extends HeldPermit implements Linked<Waiter> {
	previous: Waiter | undefined = undefined
	next: Waiter | undefined = undefined
	resolve!: (permit: Permit | Failure) => void
	/** What must be undone when the wait ends; most have neither. */
	bounds:
		| { signal: AbortSignalLike | undefined; timer: NodeJS.Timeout | undefined; readonly until: number }
		| undefined = undefined

	handleEvent(): void {
		const { semaphore, bounds } = this
		if (semaphore === undefined || bounds?.signal === undefined) return
		const { reason } = bounds.signal
		// It listened once: there is nothing to take off again, which costs as much as all the rest.
		bounds.signal = undefined
		semaphore.drop(this, reason)
	}
}

/** A caller in a queue that asks more of it than when it came. */
export class RankedWaiter extends Waiter {
	declare previous: RankedWaiter | undefined
	declare next: RankedWaiter | undefined
	readonly rank: Rank

	constructor(semaphore: Semaphore, weight: number, rank: Rank) {
		super(semaphore, weight)
		this.rank = rank
	}
}

/** Those who wait, and which of them is next. The methods are O(1). */
export interface Queue {
	/** Who is next. */
	readonly head: Waiter | undefined
	readonly size: number
	push(waiter: Waiter): void
	/** The head leaves, with a permit. */
	take(waiter: Waiter): void
	/** Anyone leaves, without. */
	remove(waiter: Waiter): void
}

/**
 * Resolving a promise with this rejects it. So a waiter keeps only `resolve`: a closure for `reject` would make each
 * a third larger, and a rejected promise in its place would go through the tracking of unhandled rejections twice.
 */
class Failure {
	readonly #error: unknown

	constructor(error: unknown) {
		this.#error = error
	}

	// biome-ignore lint/suspicious/noThenProperty: to be a thenable is what it is for.
	then(_resolve: unknown, reject: (error: unknown) => void): void {
		reject(this.#error)
	}
}

function timeOut(waiter: Waiter): void {
	const { semaphore } = waiter
	semaphore?.drop(waiter, semaphore.rejection('timeout', waiter.weight))
}

/**
 * A bound on how many are at work at once: `capacity` permits, handed out first come, first served.
 *
 * ```ts
 * const connections = new Semaphore(3)
 * await Promise.all(urls.map((url) => connections.run(() => fetch(url))))
 * ```
 *
 * Every operation is O(1), leaving the queue from its middle included.
 */
export class Semaphore {
	readonly #maxQueue: number
	readonly #maxWait: number
	readonly #pace: Pace
	/** @internal Who waits. */
	readonly queue: Queue
	#capacity: number
	#active = 0
	/** Permits that the waiters want. */
	#wanted = 0
	#closed = false
	/** Since when there has been no room, as far as anyone noticed; and the permits that came back meanwhile. */
	#fullSince = NEVER
	#returned = 0
	#idle: Deferred | undefined = undefined

	/**
	 * @param capacity - Permits there are: an integer from 0 (nobody gets in until `resize`), or `Infinity`.
	 * @throws TypeError, RangeError - an option is of the wrong type, out of range, or unknown.
	 */
	constructor(capacity: number, options?: SemaphoreOptions)
	/** @internal With the measured pace of all semaphores of one kind, and a queue other than first come, first served. */
	constructor(capacity: number, options: SemaphoreOptions, pace: Pace, queue?: Queue)
	constructor(
		capacity: number,
		options: SemaphoreOptions = {},
		pace: Pace = new Pace(),
		queue: Queue = new WaitQueue<Waiter>(),
	) {
		checkOptions(options, SEMAPHORE_OPTIONS)
		const { maxQueue = Number.POSITIVE_INFINITY, maxWait = Number.POSITIVE_INFINITY } = options
		this.#capacity = checkCapacity(capacity, 0)
		this.#maxQueue = checkMaxQueue(maxQueue)
		this.#maxWait = checkDuration('maxWait', maxWait)
		this.#pace = pace
		this.queue = queue
	}

	/** Permits there are. */
	get capacity(): number {
		return this.#capacity
	}

	/** Permits held. Above `capacity` only after a `resize` downwards, until holders finish. */
	get active(): number {
		return this.#active
	}

	/** Callers waiting. */
	get queued(): number {
		return this.queue.size
	}

	/** Permits free: `capacity - active`, never below 0. */
	get available(): number {
		return Math.max(0, this.#capacity - this.#active)
	}

	/**
	 * Takes a permit if there is room and nobody waits; never waits itself.
	 *
	 * @returns the permit, or `undefined`: no room, someone is waiting, or the semaphore is closed.
	 * @throws TypeError, RangeError - an option is of the wrong type, out of range, or unknown.
	 */
	tryAcquire(options?: TryAcquireOptions): Permit | undefined {
		return this.#take(options === undefined ? 1 : this.#checked(options))
	}

	/**
	 * Takes a permit, after waiting for one if need be.
	 *
	 * @returns a promise of the permit. It rejects with a {@link RejectedError} when the queue is full, the longest
	 * wait has passed or the semaphore is closed; with the reason of `signal` when that is aborted (a permit is then
	 * never taken); with a `TypeError` or `RangeError` for an option of the wrong type, out of range, or unknown.
	 */
	acquire(options?: AcquireOptions): Promise<Permit> {
		try {
			const weight = options === undefined ? 1 : this.#checked(options)
			const signal = options?.signal
			if (signal?.aborted) return Promise.reject(signal.reason)
			const permit = this.#take(weight)
			return permit === undefined ? this.#wait(weight, options) : Promise.resolve(permit)
		} catch (error) {
			return Promise.reject(error)
		}
	}

	/**
	 * Runs `task` with a permit, which is given back when the task is over, however it ends.
	 *
	 * @returns a promise of the task's result. It rejects as the task does, or as {@link acquire} does; a task whose
	 * `signal` was aborted before its turn is never run.
	 */
	async run<T>(task: (permit: Permit) => T | PromiseLike<T>, options?: AcquireOptions): Promise<T> {
		if (typeof task !== 'function') throw new TypeError(`task must be a function; got ${String(task)}`)
		const permit =
			(options?.signal?.aborted ? undefined : this.tryAcquire(options)) ?? (await this.acquire(options))
		try {
			// The signal can be aborted after the permit was handed over and before this line runs.
			if (options?.signal?.aborted) throw options.signal.reason
			return await task(permit)
		} finally {
			permit.release()
		}
	}

	/**
	 * Changes the capacity. Upwards, waiters get in at once; downwards, holders finish first. A waiter that has become
	 * too heavy for the new capacity gets in when nothing else is at work.
	 *
	 * @throws TypeError, RangeError - `capacity` is not an integer from 0, or Infinity.
	 */
	resize(capacity: number): void {
		this.#capacity = checkCapacity(capacity, 0)
		if (this.#fullSince !== NEVER) this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
	}

	/** Rejects all who wait and all who come, with `closed`. Holders finish. There is no way back. */
	close(): void {
		this.#closed = true
		for (let waiter = this.queue.head; waiter !== undefined; waiter = this.queue.head) {
			this.drop(waiter, this.rejection('closed', waiter.weight))
		}
	}

	/** Resolves when nothing is active and nobody waits: at once if so now. */
	onIdle(): Promise<void> {
		if (this.#active === 0 && this.queue.size === 0) return Promise.resolve()
		this.#idle ??= deferred()
		return this.#idle.promise
	}

	/** @internal The end of a permit. */
	giveBack(weight: number): void {
		this.#active -= weight
		if (this.#fullSince !== NEVER) {
			this.#returned += weight
			this.#admit()
		}
		if (this.#idle !== undefined) this.#settleIdle()
	}

	/** @internal The end of a wait without a permit. */
	drop(waiter: Waiter, error: unknown): void {
		this.#sendAway(waiter, error)
		// It may have been the head, too heavy for the room there is, with lighter ones behind it.
		this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
	}

	#sendAway(waiter: Waiter, error: unknown): void {
		this.queue.remove(waiter)
		this.#leave(waiter)
		waiter.semaphore = undefined
		waiter.resolve(new Failure(error))
	}

	/** The weight asked for, when all is well with the options. */
	#checked(options: AcquireOptions): number {
		checkOptions(options, ACQUIRE_OPTIONS)
		checkSignal(options.signal)
		if (options.maxWait !== undefined) checkDuration('maxWait', options.maxWait)
		return options.weight === undefined ? 1 : checkWeight(options.weight, this.#capacity)
	}

	#take(weight: number): Permit | undefined {
		if (this.#active + weight > this.#capacity || this.queue.size > 0 || this.#closed) return undefined
		this.#active += weight
		return new HeldPermit(this, weight)
	}

	#wait(weight: number, options: AcquireOptions | undefined): Promise<Permit> {
		const now = performance.now()
		const maxWait = options?.maxWait ?? this.#maxWait
		const refusal = this.refusal(weight, maxWait, now)
		return refusal === undefined ? this.wait(weight, maxWait, options?.signal, now) : Promise.reject(refusal)
	}

	/** @internal Why a caller that got no permit may not wait for one either, at the time `now`; `undefined`: it may. */
	refusal(weight: number, maxWait: number, now: number): RejectedError | undefined {
		if (this.#closed) return this.rejection('closed', weight)
		if (this.#fullSince === NEVER) this.#fullSince = now
		else if (now - this.#fullSince > PACE_INTERVAL) this.#measure(now)
		if (this.queue.size >= this.#maxQueue) return this.rejection('queue-full', weight)
		return maxWait === 0 ? this.rejection('timeout', weight) : undefined
	}

	/** @internal The wait of a caller that may, from `now`. It has a rank if the queue asks for one. */
	wait(
		weight: number,
		maxWait: number,
		signal: AbortSignalLike | undefined,
		now: number,
		rank?: Rank,
	): Promise<Permit> {
		const waiter = rank === undefined ? new Waiter(this, weight) : new RankedWaiter(this, weight, rank)
		waiter.waited = now
		const promise = new Promise<Permit | Failure>((resolve) => {
			waiter.resolve = resolve
		})
		if (signal !== undefined || maxWait !== Number.POSITIVE_INFINITY) {
			// Many waiters on one signal, that of a shutdown for instance, are no leak: each takes its listener off again.
			if (signal instanceof EventTarget) setMaxListeners(0, signal)
			signal?.addEventListener('abort', waiter, ONCE)
			const timer = maxWait === Number.POSITIVE_INFINITY ? undefined : setTimeout(timeOut, maxWait, waiter)
			timer?.unref()
			waiter.bounds = { signal, timer, until: now + maxWait }
		}
		this.queue.push(waiter)
		this.#wanted += weight
		// Before the others, there may be room for it.
		if (rank !== undefined && this.queue.head === waiter) this.#admit()
		return promise as Promise<Permit>
	}

	/** Hands the permits there are to the head of the queue, and to the next, until one must wait on. */
	#admit(): void {
		let now = NEVER
		for (let waiter = this.queue.head; waiter !== undefined; waiter = this.queue.head) {
			// Who is too heavy for the whole capacity, since a resize, goes alone; at a capacity of 0 nobody goes.
			const fits =
				this.#active + waiter.weight <= this.#capacity || (this.#active === 0 && this.#capacity > 0)
			if (!fits || this.#closed) return
			if (now === NEVER) now = performance.now()
			// While the event loop is busy, no timer fires.
			if (waiter.bounds !== undefined && waiter.bounds.until < now) {
				this.#sendAway(waiter, this.rejection('timeout', waiter.weight))
				continue
			}
			this.queue.take(waiter)
			this.#leave(waiter)
			this.#active += waiter.weight
			waiter.waited = now - waiter.waited
			waiter.resolve(waiter)
		}
		if (this.#active < this.#capacity && this.#fullSince !== NEVER) {
			this.#measure(now === NEVER ? performance.now() : now)
			this.#fullSince = NEVER
		}
	}

	/** What is left of a waiter that is no longer in the queue. */
	#leave(waiter: Waiter): void {
		this.#wanted -= waiter.weight
		const { bounds } = waiter
		if (bounds === undefined) return
		bounds.signal?.removeEventListener('abort', waiter)
		clearTimeout(bounds.timer)
		waiter.bounds = undefined
	}

	#measure(now: number): void {
		this.#pace.add(this.#returned, now - this.#fullSince, now)
		this.#fullSince = now
		this.#returned = 0
	}

	/**
	 * @internal In how many ms, from `now`, a caller that got no permit would be done, when `ahead` permits go to others first;
	 * 0 with nothing measured.
	 */
	forecast(weight: number, now: number, ahead: number = this.#wanted): number {
		// Whoever is refused by it must not keep it from being measured.
		if (this.#fullSince === NEVER) this.#fullSince = now
		else this.#measure(now)
		// As many permits as are held come back while it is at work itself.
		return this.#pace.timeFor(ahead + weight + this.#active)
	}

	/** @internal What a caller turned away now is given. */
	rejection(reason: RejectionReason, weight: number): RejectedError {
		if (this.#fullSince !== NEVER) this.#measure(performance.now())
		const held = `${this.#active} of ${this.#capacity} permits are held, ${this.queue.size} callers wait`
		return new RejectedError(
			reason,
			this.#pace.secondsFor(this.#wanted + weight),
			`Rejected (${reason}): ${held}`,
		)
	}

	#settleIdle(): void {
		if (this.#active > 0 || this.queue.size > 0) return
		this.#idle?.resolve()
		this.#idle = undefined
	}
}
