import { setMaxListeners } from 'node:events'
import { RejectedError, type RejectionReason } from '../errors.js'
import { isFaked, now, onNextTurn } from './clock.js'
import { type Deferred, deferred } from './deferred.js'
import type { Linked } from './wait-queue.js'

/*
 * How it works: a counter of the permits held (`active`) and a queue of waiters. A caller that finds room and no waiter
 * gets a permit at once. A permit that comes back is handed to the head of the queue in the same step, so that no
 * newcomer can slip in between; what the waiter does with it runs later, from its own promise, in its own async
 * context and never on the stack of the one that released.
 */

/** The right to be at work. Its holder gives it back with `release()`, or by `using`. */
export interface Permit {
	/** How long its holder waited for it, in ms; 0 when there was room. */
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

/** The waiters, and which of them is next. The methods are O(1), and don't throw. */
export interface Queue<W> {
	/** The one that is next. */
	readonly head: W | undefined
	readonly size: number
	push(waiter: W): void
	/** The head leaves, with a permit. */
	take(waiter: W): void
	/** Any waiter leaves, without a permit. */
	remove(waiter: W): void
}

/** Measures how fast permits come back while there is no room. Times are in ms. */
export interface Meter {
	/** A caller has found no room. */
	full(time: number): void
	/** Permits have come back while there was no room. */
	returned(permits: number, time: number): void
	/** There is room again. */
	room(time: number): void
	/** Counts what was measured until now. */
	update(time: number): void
	/** The seconds after which `permits` more will have come back: an integer from 1. */
	secondsFor(permits: number): number
}

/**
 * How long permits are handed on within one turn of the event loop, in ms. Waiters that release synchronously would
 * otherwise follow each other until the queue is empty, and no socket or timer would be served meanwhile.
 */
const LONGEST_DRAIN = 10

/** One object for all listeners. */
const ONCE = { once: true } as const

/*
 * The fields of the two classes are set in their constructors alone: a field that is first defined with a default value
 * makes each object slower to create, and there may be a million of them.
 */

class HeldPermit implements Permit {
	/** `undefined` once released: the first release is the only one. */
	declare permits: Permits<Waiter> | undefined
	declare readonly weight: number
	declare waited: number

	constructor(permits: Permits<Waiter>, weight: number, waited: number) {
		this.permits = permits
		this.weight = weight
		this.waited = waited
	}

	release(): void {
		const { permits } = this
		if (permits === undefined) return
		this.permits = undefined
		permits.giveBack(this.weight)
	}

	[Symbol.dispose](): void {
		this.release()
	}
}

/** The bounds of a wait. Most waits have neither. */
interface Bounds {
	signal: AbortSignalLike | undefined
	timer: ReturnType<typeof setTimeout> | undefined
	/** The time at which `timer` is due. */
	readonly until: number
}

/**
 * A caller in the queue, and the permit that it is given: one object for both, as there may be a million of them.
 * While it waits, `waited` holds the time at which it began. It is itself the listener on its signal.
 */
export class Waiter extends HeldPermit implements Linked<Waiter> {
	declare previous: this | undefined
	declare next: this | undefined
	declare resolve: (permit: Permit | Failure) => void
	/** `undefined` if it has none, and once the wait is over. */
	declare bounds: Bounds | undefined

	/** @param since - when it began to wait, in ms. */
	constructor(permits: Permits<Waiter>, weight: number, since: number) {
		super(permits, weight, since)
		this.previous = undefined
		this.next = undefined
		this.bounds = undefined
	}

	handleEvent(): void {
		const { permits, bounds } = this
		if (permits === undefined || bounds?.signal === undefined) return
		const { reason } = bounds.signal
		// It listened once. To take off a listener that is gone would cost as much as all the rest.
		bounds.signal = undefined
		permits.reject(this, reason)
	}
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
	const { permits, bounds } = waiter
	// Its wait can be over: one fake `clearTimeout` does not stop the timers of another.
	if (permits !== undefined && bounds !== undefined) {
		permits.reject(waiter, permits.rejection('timeout', waiter.weight))
	}
}

/**
 * The mechanism of a bound on how many are at work at once: permits, and waiters in a queue that says which is next.
 *
 * It knows nothing of options, bounds on the queue, ranks or pace: those who build on it do. Every operation is O(1) if
 * those of the queue are.
 */
export class Permits<W extends Waiter> {
	readonly queue: Queue<W>
	readonly #meter: Meter
	#capacity: number
	#active = 0
	#wanted = 0
	#closed = false
	/** A caller has found no room, and there has been none since. Without it, a release only counts. */
	#full = false
	/** When the first permit of this turn of the event loop was handed on, in ms, as far as it was noted. */
	#drainingSince = Number.NEGATIVE_INFINITY
	/** The turn in which that was is not over. */
	#sameTurn = false
	/** Permits that came back too late in a long turn. They count as held until the next one. */
	#deferred = 0
	#idle: Deferred | undefined = undefined

	/** @param capacity - an integer from 0, or `Infinity`. */
	constructor(capacity: number, queue: Queue<W>, meter: Meter) {
		this.#capacity = capacity
		this.queue = queue
		this.#meter = meter
	}

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

	/** Permits that the waiters want. */
	get wanted(): number {
		return this.#wanted
	}

	/** Permits free: `capacity - active`, never below 0. */
	get available(): number {
		return Math.max(0, this.#capacity - this.#active)
	}

	get closed(): boolean {
		return this.#closed
	}

	/** Takes permits if there is room and no waiter; `undefined` otherwise, or if closed. */
	tryAcquire(weight: number): Permit | undefined {
		if (this.#active + weight > this.#capacity || this.queue.size > 0 || this.#closed) return undefined
		this.#active += weight
		return new HeldPermit(this, weight, 0)
	}

	/** A caller found no room at this time, and waits or is rejected: from now on the pace is measured. */
	noteFull(time: number): void {
		if (this.#full) return
		this.#full = true
		this.#meter.full(time)
	}

	/**
	 * Puts a new waiter into the queue.
	 *
	 * @param maxWait - the longest wait, in ms; `Infinity`: no bound.
	 * @returns a promise of its permit. It rejects with what {@link reject} is given, with the reason of `signal`, or with a
	 * {@link RejectedError} (`timeout`, `closed`).
	 * @throws what `signal.addEventListener` or a replaced `setTimeout` throws. Nothing waits then.
	 */
	wait(waiter: W, maxWait: number, signal: AbortSignalLike | undefined): Promise<Permit> {
		const { waited: since } = waiter
		const promise = new Promise<Permit | Failure>((resolve) => {
			waiter.resolve = resolve
		})
		this.noteFull(since)
		this.queue.push(waiter)
		this.#wanted += waiter.weight
		if (signal !== undefined || maxWait !== Number.POSITIVE_INFINITY) this.#bind(waiter, maxWait, signal)
		// If it goes before the others, there may be room for it.
		if (this.queue.head === waiter) this.#admit(since)
		return promise as Promise<Permit>
	}

	/** Ends a wait without a permit: the waiter's promise rejects with `error`. It must be in the queue. */
	reject(waiter: W, error: unknown): void {
		this.#leave(waiter, error)
		// It may have been the head, too heavy for the room there is, with lighter ones behind it.
		this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
	}

	/** The permits held come back to be handed on. A permit calls it. */
	giveBack(weight: number): void {
		if (this.#full) {
			const time = now()
			this.#meter.returned(weight, time)
			if (this.queue.size > 0 && this.#mustYield(time)) {
				this.#deferred += weight
				return
			}
			this.#active -= weight
			this.#admit(time)
		} else {
			this.#active -= weight
		}
		if (this.#idle !== undefined) this.#settleIdle()
	}

	/** Whether permits have been handed on for too long in this turn of the event loop. */
	#mustYield(time: number): boolean {
		if (this.#deferred > 0) return true
		if (time - this.#drainingSince <= LONGEST_DRAIN) return false
		// With a stale note, it is not known yet whether the loop has turned since.
		if (this.#sameTurn) return !isFaked()
		this.#noteTurn(time)
		return false
	}

	#noteTurn(time: number): void {
		this.#drainingSince = time
		this.#sameTurn = true
		onNextTurn(() => {
			this.#sameTurn = false
			if (this.#deferred === 0) return
			this.#noteTurn(now())
			this.#handOnDeferred()
		})
	}

	/** One by one: what is done with the first permit decides whether there is time for the next. */
	#handOnDeferred(): void {
		if (this.#deferred === 0 || now() - this.#drainingSince > LONGEST_DRAIN) return
		this.#deferred--
		this.#active--
		this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
		Promise.resolve().then(() => this.#handOnDeferred())
	}

	/**
	 * Changes the capacity, to an integer from 0, or `Infinity`. Upwards, waiters are admitted at once; downwards, holders
	 * finish first. A waiter that has become too heavy is admitted when nothing else is at work.
	 */
	resize(capacity: number): void {
		this.#capacity = capacity
		if (this.#full) this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
	}

	/** Rejects all waiters with `closed`; nobody gets a permit any more. Holders finish. */
	close(): void {
		this.#closed = true
		for (let waiter = this.queue.head; waiter !== undefined; waiter = this.queue.head) {
			this.reject(waiter, this.rejection('closed', waiter.weight))
		}
	}

	/** Resolves when no permit is held and nobody waits: at once if so now. */
	onIdle(): Promise<void> {
		if (this.#active === 0 && this.queue.size === 0) return Promise.resolve()
		this.#idle ??= deferred()
		return this.#idle.promise
	}

	/** What a caller that wants `weight` permits and is rejected now is given. */
	rejection(reason: RejectionReason, weight: number): RejectedError {
		this.#meter.update(now())
		const held = `${this.#active} of ${this.#capacity} permits are held, ${this.queue.size} callers wait`
		const retryAfter = this.#meter.secondsFor(this.#wanted + weight)
		return new RejectedError(reason, retryAfter, `Rejected (${reason}): ${held}`)
	}

	/** Hands the permits there are to the head of the queue, and to the next, until one must wait on. */
	#admit(given?: number): void {
		let time = given
		if (this.#deferred > 0 && this.queue.size === 0) {
			this.#active -= this.#deferred
			this.#deferred = 0
		}
		for (let waiter = this.queue.head; waiter !== undefined; waiter = this.queue.head) {
			// One that is too heavy for the whole capacity, since a resize, goes alone; at a capacity of 0 none goes.
			const fits =
				this.#active + waiter.weight <= this.#capacity || (this.#active === 0 && this.#capacity > 0)
			if (!fits || this.#closed) return
			time ??= now()
			// While the event loop is busy, no timer fires.
			if (waiter.bounds !== undefined && waiter.bounds.until < time) {
				this.#leave(waiter, this.rejection('timeout', waiter.weight))
				continue
			}
			this.queue.take(waiter)
			this.#wanted -= waiter.weight
			this.#active += waiter.weight
			waiter.waited = time - waiter.waited
			waiter.resolve(waiter)
			if (waiter.bounds !== undefined) unbind(waiter, waiter.bounds)
		}
		if (this.#full && this.#active < this.#capacity) {
			this.#full = false
			this.#meter.room(time ?? now())
		}
	}

	/** Ends a wait, its waiter's promise included. */
	#leave(waiter: W, error: unknown): void {
		this.#remove(waiter)
		waiter.resolve(new Failure(error))
	}

	/** Takes a waiter out of the queue, as if it had never come. */
	#remove(waiter: W): void {
		this.queue.remove(waiter)
		this.#wanted -= waiter.weight
		waiter.permits = undefined
		if (waiter.bounds !== undefined) unbind(waiter, waiter.bounds)
	}

	#bind(waiter: W, maxWait: number, signal: AbortSignalLike | undefined): void {
		const bounds: Bounds = { signal, timer: undefined, until: waiter.waited + maxWait }
		waiter.bounds = bounds
		try {
			// Many waiters on one signal, that of a shutdown for instance, are no leak: each takes its listener off again.
			// Not 0, as Node's `getMaxListeners`, which undici calls, throws for a target whose maximum is 0.
			if (signal instanceof EventTarget) setMaxListeners(Number.POSITIVE_INFINITY, signal)
			signal?.addEventListener('abort', waiter, ONCE)
			if (maxWait !== Number.POSITIVE_INFINITY) bounds.timer = setTimeout(timeOut, maxWait, waiter)
		} catch (error) {
			if (waiter.bounds === bounds) this.#remove(waiter)
			throw error
		}
		// A replaced `setTimeout` may have called back at once.
		if (waiter.bounds !== bounds) clearTimeout(bounds.timer)
	}

	#settleIdle(): void {
		if (this.#active > 0 || this.queue.size > 0) return
		this.#idle?.resolve()
		this.#idle = undefined
	}
}

/** Takes back what was set up for a waiter that has left the queue. */
function unbind(waiter: Waiter, { signal, timer }: Bounds): void {
	waiter.bounds = undefined
	try {
		if (timer !== undefined) clearTimeout(timer)
		signal?.removeEventListener('abort', waiter)
	} catch {
		// Both can be replaced by the user's. If they fail, what they leave behind finds no bounds and does nothing.
	}
}
