/**
 * The order of waiters with the same rights.
 *
 * - `fifo`: first in, first out.
 * - `lifo`: last in, first out.
 * - `adaptive`: first in, first out, while the queue becomes empty now and then. Once it has a
 *   standing queue, last in, first out; and at each arrival, waiters that have waited longer than a
 *   short target leave.
 */
export type Order = 'fifo' | 'lifo' | 'adaptive'

/** Which queued request is next, and which one must leave a full queue. */
export interface QueueOptions<Request = object> {
	/**
	 * The order of requests with the same rights. `'fifo'`: first in, first out. `'lifo'`: last in,
	 * first out. `'adaptive'`: first in, first out while the queue becomes empty now and then; when
	 * it has not been empty for 100 ms, last in, first out, and at each arrival, requests that have
	 * waited longer than 5 ms are rejected (`timeout`). If permits come back more slowly than one in
	 * 5 ms, both times grow in proportion. While the order is last in, first out, a full queue evicts
	 * the oldest request (`evicted`). Default: `'fifo'`.
	 */
	order?: Order | undefined
	/**
	 * Any number but `NaN`: requests of a higher priority go first. A full queue evicts the last
	 * request of the lowest priority for one of a higher priority. Default: none.
	 */
	priority?(request: Request): number
	/**
	 * With `priority`: the share of the turns that lower priorities get, one after the other, while
	 * higher ones wait; and their share of the places in a full queue. From 0 (they may never get a
	 * turn) to 0.5. Default: `0`.
	 */
	lowerShare?: number | undefined
	/**
	 * The flow that a request belongs to (its user or tenant). The capacity is divided between flows:
	 * each gets an equal share, or less if it wants less. A full queue evicts the last of the flow
	 * that has most requests waiting. Default: none.
	 */
	fairBy?(request: Request): string | number | bigint
	/**
	 * With `fairBy`: the weight of a flow, from 0.001 to 1_000_000, as its requests come. A flow with
	 * twice the weight gets twice the share of the capacity, and of the places in a full queue. What
	 * it doesn't want is divided among the others. Default: `1` for each flow.
	 */
	share?(flow: string): number
}

/** @internal The names of these options. */
export const QUEUE_OPTIONS: readonly string[] = [
	'order',
	'priority',
	'lowerShare',
	'fairBy',
	'share',
]
