import type { Order } from '../queue/options.js'

/**
 * The method by which the live page reads how a limiter is set. Limiters of other versions of this
 * package may lack it.
 */
export const inspect: unique symbol = Symbol.for('inflight-limit.inspect') as never

/** The limit of one key, as it is now. */
export interface KeyState {
	readonly key: string | undefined
	readonly capacity: number
	readonly active: number
	readonly queued: number
}

/** How a limiter is set, and what its figures do not tell. */
export interface Inspection {
	/**
	 * How the capacity comes about: given, given for all processes together, found by a controller, or
	 * by a function of the key.
	 */
	readonly capacity: 'given' | 'shared' | 'found' | 'by key'
	/** Whether each key has a limit of its own. */
	readonly keyed: boolean
	/** Requests that may wait now; with `key`, for each key. */
	readonly maxQueue: number
	/** In ms. */
	readonly maxWait: number
	readonly order: Order
	readonly priority: boolean
	readonly fair: boolean
	/** Whether it admits all requests, and only counts what it would do. */
	readonly dryRun: boolean
	readonly closed: boolean
	/** Requests at work whose client has left. */
	readonly abandoned: number
	/** Why the controller found this capacity, if it says so. */
	readonly reason: string | undefined
	/** The keys with a request at work or waiting. */
	keys(): Iterable<KeyState>
}
