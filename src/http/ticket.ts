import { type Gate, type Stay, weigh } from '../limiter/gate.js'
import type { AbortSignalLike } from '../semaphore/signals.js'
import type { Outcome } from '../stats/observer.js'

/** A request's admission by a limiter, as its handler sees it. */
export interface Admission {
	/** How long the request waited, in ms; 0 when there was room. */
	readonly waited: number
	/** Requests that were queued ahead of it when it arrived; 0 when there was room. */
	readonly queued: number
	/**
	 * Is aborted when the client leaves, or the permit is lost. Pass it to `fetch`, to a database, or
	 * to other work that can stop early.
	 */
	readonly signal: AbortSignal
	/**
	 * Changes how many permits the request holds: for one whose weight is only known later. More are
	 * taken at once, even beyond the capacity: others then wait longer. What is too many is given
	 * back at once. After its permits came back, it does nothing.
	 *
	 * @throws TypeError, RangeError - `weight` is not an integer from 1.
	 * @throws Error - the limiter shares its limit with other processes, and can't change a weight.
	 */
	weigh(weight: number): void
	/**
	 * Gives the permit back early: for a long poll, or the tail of a stream. Only the first call
	 * counts. From then on a client that stalls is not cut off.
	 */
	release(): void
}

/** The exchange of a ticket. */
interface Host {
	readonly res: { readonly statusCode: number }
	/** The client has left, or the request was answered. */
	readonly ended: boolean
	/** The client has left, and the handler may still be at work. */
	readonly abandoned: boolean
	/** Is aborted when the client leaves. */
	readonly signal: AbortSignal
}

/**
 * What a request has of one gate: a place in its queue, and then permits. It is also the signal
 * that takes the request out of the queue.
 *
 * Whether the handler is done depends on the framework. Koa's middleware sees it, and says so with
 * `handlerBegins` and `handlerDone`. Express does not show it, so the end of the response counts
 * instead.
 */
export class Ticket implements Admission, AbortSignalLike {
	/** The ticket of the gate that the request met before this one. */
	outer: Ticket | undefined = undefined
	readonly gate: Gate
	readonly #exchange: Host
	#stay: Stay | undefined = undefined
	#handler: 'unseen' | 'working' | 'done' = 'unseen'
	#abandoned = false
	#over = false
	#waiter: { handleEvent(): void } | undefined = undefined
	#timer: NodeJS.Timeout | undefined = undefined

	constructor(exchange: Host, gate: Gate) {
		this.#exchange = exchange
		this.gate = gate
	}

	get tag(): 'admitted' {
		return 'admitted'
	}

	get waited(): number {
		return this.#stay?.waited ?? 0
	}

	get queued(): number {
		return this.#stay?.queued ?? 0
	}

	get capacity(): number {
		return this.#stay?.capacity ?? Number.POSITIVE_INFINITY
	}

	get available(): number {
		return this.#stay?.available ?? 0
	}

	get signal(): AbortSignal {
		const { signal } = this.#exchange
		return this.#stay?.signalWith?.(signal) ?? signal
	}

	get admitted(): boolean {
		return this.#stay !== undefined
	}

	/** Permits are held. */
	get held(): boolean {
		return this.#stay !== undefined && !this.#over
	}

	get aborted(): boolean {
		return this.#exchange.ended
	}

	addEventListener(_type: 'abort', waiter: { handleEvent(): void }): void {
		this.#waiter = waiter
	}

	removeEventListener(): void {
		this.#waiter = undefined
	}

	admit(stay: Stay): void {
		this.#stay = stay
	}

	weigh(weight: number): void {
		if (this.#stay !== undefined) weigh(this.#stay, weight)
	}

	release(): void {
		this.#over = true
		clearTimeout(this.#timer)
		this.#stay?.leave(this.#abandoned ? 'abandoned' : outcomeOf(this.#exchange.res.statusCode))
	}

	/** The request is over: if it still waits, it leaves the queue. */
	leaveQueue(): void {
		if (this.#stay === undefined) this.#waiter?.handleEvent()
	}

	/**
	 * The client has left.
	 *
	 * @param ended - whether the response shows that the handler is done.
	 * @param stalled - whether the client was cut off because it stalled.
	 * @returns whether the handler is still at work, and only the end of its response can say when it
	 * is done.
	 */
	abandon(ended: boolean, stalled: boolean): boolean {
		if (!this.held) return false
		const done = this.#handler === 'unseen' ? ended : this.#handler === 'done'
		const { abandonedTimeout } = this.gate
		this.#abandoned = !done || stalled
		if (done || abandonedTimeout === 0) {
			this.release()
			return false
		}
		this.#stay?.abandon?.()
		if (abandonedTimeout !== Number.POSITIVE_INFINITY) {
			this.#timer = setTimeout(() => this.release(), abandonedTimeout)
			this.#timer.unref?.()
		}
		return this.#handler === 'unseen'
	}

	handlerBegins(): void {
		this.#handler = 'working'
	}

	handlerDone(): void {
		this.#handler = 'done'
		if (this.#exchange.abandoned) this.release()
	}

	/** The handler has ended a response whose client has left. */
	abandonedEnd(): void {
		if (this.#handler === 'unseen') this.release()
	}
}

function outcomeOf(statusCode: number): Outcome {
	if (statusCode < 400) return 'ok'
	return statusCode < 500 ? 'client-error' : 'server-error'
}
