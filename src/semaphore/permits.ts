import { checkWeight } from '../checks.js'
import { RejectedError, type RejectionReason } from '../errors.js'
import { isFaked, now, onNextTurn } from './clock.js'
import { type Deferred, deferred } from './deferred.js'
import type { Permit } from './permit.js'
import { type AbortSignalLike, hasAborted, listen, reasonOf, unlisten } from './signals.js'
import type { Linked } from './wait-queue.js'

/*
 * How it works: a counter of the permits held (`active`) and a queue of waiters. A caller that
 * finds room and no waiter gets a permit at once. A permit that comes back is handed to the head of
 * the queue in the same step, so no newcomer can take it. The code of the waiter runs later, from
 * its own promise and in its own async context, never on the stack of the caller that released the
 * permit.
 */

/** The waiters, in an order of its own. The methods are O(1), and don't throw. */
export interface Queue<W> {
	/** The waiter that is next. */
	readonly head: W | undefined
	readonly size: number
	push(waiter: W): void
	/** Removes the head, which gets its permits. */
	take(waiter: W): void
	/** Removes any waiter, which gets no permits. */
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
	/** Adds a measurement, until `time`, if there is no room. */
	update(time: number): void
	/** The time until `permits` more have come back, in s: an integer from 1. */
	secondsFor(permits: number): number
	/**
	 * The time after which a caller that wants `weight` permits should come back, in s: an integer
	 * from 1. It is expected at that time. `wanted` is the number of permits that the waiters want,
	 * `taken` the number of permits ever taken.
	 */
	promise(weight: number, wanted: number, taken: number, time: number): number
}

/**
 * The longest time for which permits are handed on within one turn of the event loop, in ms.
 * Without this bound, waiters that release at once would be admitted one after the other until the
 * queue is empty, and no socket or timer would be served meanwhile.
 */
const LONGEST_DRAIN = 10

/*
 * The fields of the two classes below are set only in their constructors: initial values in the
 * class body make an object slower to create, and there may be a million of them.
 */

class HeldPermit implements Permit {
	/** `undefined` once it is released, so that only the first release counts. */
	declare permits: Permits<Waiter> | undefined
	declare weight: number
	declare waited: number

	constructor(permits: Permits<Waiter>, weight: number, waited: number) {
		this.permits = permits
		this.weight = weight
		this.waited = waited
	}

	weigh(weight: number): void {
		checkWeight(weight, Number.POSITIVE_INFINITY)
		const { permits } = this
		if (permits === undefined) return
		const more = weight - this.weight
		this.weight = weight
		if (more > 0) permits.takeMore(more)
		else if (more < 0) permits.giveBack(-more)
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

/** The bounds of a wait. Waits without bounds don't have this object. */
interface Bounds {
	signal: AbortSignalLike | undefined
	timer: ReturnType<typeof setTimeout> | undefined
	/** The time at which `timer` is due. */
	readonly until: number
}

/**
 * A caller in the queue, which becomes the permit that it is given: one object for both, as there
 * may be a million of them. While it waits, `waited` is the time at which it began. It is itself
 * the listener on its signal.
 */
export class Waiter extends HeldPermit implements Linked<Waiter> {
	declare previous: this | undefined
	declare next: this | undefined
	declare resolve: (permit: Permit | Failure) => void
	/** `undefined` without bounds, and once the wait is over. */
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
		permits.reject(this, reasonOf(bounds.signal))
	}
}

/**
 * A promise that is resolved with this rejects. So a waiter needs only `resolve`: keeping `reject`
 * too would make it a third larger. Resolving with a rejected promise instead would be slower: Node
 * tracks each as an unhandled rejection for a while.
 */
class Failure {
	readonly #error: unknown

	constructor(error: unknown) {
		this.#error = error
	}

	// biome-ignore lint/suspicious/noThenProperty: it must be a thenable.
	then(_resolve: unknown, reject: (error: unknown) => void): void {
		reject(this.#error)
	}
}

function timeOut(waiter: Waiter): void {
	const { permits, bounds } = waiter
	// The wait can be over already: a fake `clearTimeout` does not stop a real timer.
	if (permits !== undefined && bounds !== undefined) {
		permits.reject(waiter, permits.rejection('timeout', waiter.weight))
	}
}

/**
 * The mechanism of a limit: permits, and waiters in a queue that decides which one is next.
 *
 * Options, the bound on the queue, ranks and the pace are the business of the code that uses it.
 * Every operation is O(1) if those of the queue are.
 */
export class Permits<W extends Waiter> {
	readonly queue: Queue<W>
	readonly #meter: Meter
	#capacity: number
	#active = 0
	#wanted = 0
	/** Permits that were ever taken. */
	#taken = 0
	#closed = false
	/**
	 * Whether the semaphore is full: a caller found no room, and there has been none since. Otherwise
	 * a release only changes the count.
	 */
	#full = false
	/** The time, in ms, at which a turn of the event loop began to hand on permits, as last noted. */
	#drainingSince = Number.NEGATIVE_INFINITY
	/** Whether that turn still runs. */
	#sameTurn = false
	/**
	 * Permits that came back after `LONGEST_DRAIN` in one turn. They count as held until the next
	 * turn.
	 */
	#deferred = 0
	#idle: Deferred | undefined = undefined
	readonly #virtual: boolean

	/**
	 * @param capacity - an integer from 0, or `Infinity`.
	 * @param virtual - whether nothing real waits, so that a wait does not keep the process alive.
	 */
	constructor(capacity: number, queue: Queue<W>, meter: Meter, virtual = false) {
		this.#capacity = capacity
		this.queue = queue
		this.#meter = meter
		this.#virtual = virtual
	}

	get capacity(): number {
		return this.#capacity
	}

	/** Permits held. Above `capacity` only after a `resize` downwards or a `weigh` upwards. */
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
		if (this.#active + weight > this.#capacity || this.queue.size > 0 || this.#closed)
			return undefined
		this.#active += weight
		this.#taken += weight
		return new HeldPermit(this, weight, 0)
	}

	/**
	 * To be called when a caller finds no room, whether it waits or is rejected: the pace is measured
	 * from then on.
	 */
	noteFull(time: number): void {
		if (this.#full) return
		this.#full = true
		this.#meter.full(time)
	}

	/**
	 * Puts a new waiter into the queue.
	 *
	 * @param maxWait - the longest wait, in ms; `Infinity`: no bound.
	 * @returns a promise of its permit. It rejects with what {@link reject} is given, with the reason
	 * of `signal`, or with a {@link RejectedError} (`timeout`, `closed`).
	 * @throws what `signal.addEventListener` or a replaced `setTimeout` throws. The waiter is not
	 * queued then.
	 */
	wait(waiter: W, maxWait: number, signal: AbortSignalLike | undefined): Promise<Permit> {
		const { waited: since } = waiter
		const promise = new Promise<Permit | Failure>((resolve) => {
			waiter.resolve = resolve
		})
		this.noteFull(since)
		this.queue.push(waiter)
		this.#wanted += waiter.weight
		if (signal !== undefined || maxWait !== Number.POSITIVE_INFINITY)
			this.#bind(waiter, maxWait, signal)
		// If it goes before a waiter that was too heavy, there may be room for it now.
		if (this.queue.head === waiter) this.#admit(since)
		return promise as Promise<Permit>
	}

	/**
	 * Ends a wait without a permit: the waiter's promise rejects with `error`. It must be in the
	 * queue.
	 */
	reject(waiter: W, error: unknown): void {
		this.#leave(waiter, error)
		// It may have been a head that was too heavy. There may be room for the lighter ones behind it.
		this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
	}

	/** Takes more permits for a holder, whether there is room or not. Called by a permit. */
	takeMore(weight: number): void {
		this.#active += weight
		this.#taken += weight
	}

	/** Takes back permits, and hands them on. Called by a permit. */
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

	/** Whether permits have been handed on for too long within this turn of the event loop. */
	#mustYield(time: number): boolean {
		if (this.#deferred > 0) return true
		if (time - this.#drainingSince <= LONGEST_DRAIN) return false
		// If the noted turn is over, this is the first permit of a new turn.
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

	/**
	 * Hands on deferred permits one by one: the code that gets the first one may use up the time for
	 * the next.
	 */
	#handOnDeferred(): void {
		if (this.#deferred === 0 || now() - this.#drainingSince > LONGEST_DRAIN) return
		// As many as the head of the queue needs.
		const needed = this.#active + (this.queue.head?.weight ?? 0) - this.#capacity
		const given = Math.min(this.#deferred, Math.max(1, needed))
		this.#deferred -= given
		this.#active -= given
		this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
		Promise.resolve().then(() => this.#handOnDeferred())
	}

	/**
	 * Changes the capacity, to an integer from 0, or `Infinity`. Upwards, waiters are admitted at
	 * once; downwards, holders finish first. A waiter that has become too heavy is admitted when
	 * nothing else is at work.
	 */
	resize(capacity: number): void {
		this.#capacity = capacity
		if (this.#full) this.#admit()
		if (this.#idle !== undefined) this.#settleIdle()
	}

	/** Rejects all waiters and newcomers with `closed`. Holders finish. */
	close(): void {
		this.#closed = true
		for (let waiter = this.queue.head; waiter !== undefined; waiter = this.queue.head) {
			this.reject(waiter, this.rejection('closed', waiter.weight))
		}
	}

	/** Resolves when no permit is held and no caller waits: at once if that is so now. */
	onIdle(): Promise<void> {
		if (this.#active === 0 && this.queue.size === 0) return Promise.resolve()
		this.#idle ??= deferred()
		return this.#idle.promise
	}

	/** The error for a caller that wants `weight` permits and is rejected now. */
	rejection(reason: RejectionReason, weight: number): RejectedError {
		const time = now()
		// A caller that was aborted has left. After `closed`, it should go to another process. Neither
		// is expected back.
		const expected = reason !== 'aborted' && reason !== 'closed'
		if (!expected) this.#meter.update(time)
		const seconds = expected
			? this.#meter.promise(weight, this.#wanted, this.#taken, time)
			: this.#meter.secondsFor(this.#wanted + weight)
		return new RejectedError(reason, seconds, this)
	}

	/**
	 * Hands free permits to the head of the queue, again and again, until there is no room for it.
	 */
	#admit(given?: number): void {
		let time = given
		if (this.#deferred > 0 && this.queue.size === 0) {
			this.#active -= this.#deferred
			this.#deferred = 0
		}
		for (let waiter = this.queue.head; waiter !== undefined; waiter = this.queue.head) {
			// A waiter that a resize made too heavy for the whole capacity is admitted alone; at capacity
			// 0, none is.
			const fits =
				this.#active + waiter.weight <= this.#capacity || (this.#active === 0 && this.#capacity > 0)
			if (!fits || this.#closed) return
			time ??= now()
			if (waiter.bounds !== undefined && this.#hasEnded(waiter, waiter.bounds, time)) continue
			this.queue.take(waiter)
			this.#wanted -= waiter.weight
			this.#active += waiter.weight
			this.#taken += waiter.weight
			waiter.waited = time - waiter.waited
			waiter.resolve(waiter)
			if (waiter.bounds !== undefined) unbind(waiter, waiter.bounds)
		}
		if (this.#full && this.#active < this.#capacity) {
			this.#full = false
			this.#meter.room(time ?? now())
		}
	}

	/**
	 * Rejects a waiter whose wait has ended, although its listener or its timer was not called yet:
	 * other listeners on the same signal can be called first, and a timer can't fire while the event
	 * loop is busy.
	 */
	#hasEnded(waiter: W, { signal, until }: Bounds, time: number): boolean {
		const aborted = signal !== undefined && hasAborted(signal)
		if (!aborted && until >= time) return false
		this.#leave(waiter, aborted ? reasonOf(signal) : this.rejection('timeout', waiter.weight))
		return true
	}

	/** Removes a waiter, and rejects its promise. */
	#leave(waiter: W, error: unknown): void {
		this.#remove(waiter)
		waiter.resolve(new Failure(error))
	}

	/** Removes a waiter from the queue. */
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
			if (signal !== undefined) listen(signal, waiter)
			if (maxWait !== Number.POSITIVE_INFINITY) bounds.timer = setTimeout(timeOut, maxWait, waiter)
			if (this.#virtual) bounds.timer?.unref?.()
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

/** Clears the timer and removes the listener of a waiter that has left the queue. */
function unbind(waiter: Waiter, { signal, timer }: Bounds): void {
	waiter.bounds = undefined
	try {
		if (timer !== undefined) clearTimeout(timer)
	} catch {
		// It may be the user's own function. A timer or listener that is left behind finds no bounds,
		// and does nothing.
	}
	if (signal !== undefined) unlisten(signal, waiter)
}
