import type { ControllerFactory } from '../adaptive/controller.js'
import { QUEUE_OPTIONS, type QueueOptions } from '../queue/options.js'

/**
 * Which requests a limiter admits, and how. In Express the functions are given `req`, in Koa `ctx`.
 */
export interface LimiterOptions<Request = object> extends QueueOptions<Request> {
	/**
	 * Requests at work at once: an integer from 1, or `Infinity` to only measure; or a controller
	 * that finds it, like `adaptive()` of `inflight-limit/adaptive`. With `key`: for each key; or a
	 * function that is called with the key of each request and returns what is valid for this key
	 * from now on.
	 */
	capacity: number | ((key: string) => number) | ControllerFactory
	/**
	 * Requests that may wait: an integer from 0 (none waits), or `Infinity`. With `key`: for each
	 * key. If a controller finds the capacity: a quarter of it unless given; with `order`, `priority`
	 * or `fairBy` as many as it, and at least 20. Default: `1000`.
	 */
	maxQueue?: number | undefined
	/**
	 * The longest wait, in ms, from 0 to 2^31 - 1; 0: a request that finds no room is rejected at once
	 * (`timeout`); `Infinity`: no bound. Default: `10_000`.
	 */
	maxWait?: number | undefined
	/**
	 * A limit of its own for each key (user, tenant, address). A number or a bigint counts as the
	 * string of it. `undefined` or `null`: the request has no key, and is not limited at all; for
	 * requests without a user, return their address (`addressKey()`). A promise is an error: find the
	 * key in a middleware before this one. Default: none.
	 */
	key?(request: Request): string | number | bigint | null | undefined
	/**
	 * How many permits this request takes: an integer from 1 to `capacity`, or to 2^40 where that is
	 * `Infinity`. Default: `1`.
	 */
	weight?(request: Request): number
	/** Lets a request through, uncounted. Default: none. */
	skip?(request: Request): boolean
	/**
	 * When the answer is of no use any more, in ms since 1970; `undefined`: it is always of use. A
	 * request that can't be done by then, judged by the pace of its queue, is rejected at once. One
	 * whose deadline passes while it waits leaves the queue (`timeout`). Default: none.
	 */
	deadline?(request: Request): number | undefined
	/**
	 * Reject requests that come while the event loop is late (`overloaded`), even if there is room.
	 * When handlers compute more than they wait, requests queue in the kernel, where a capacity
	 * doesn't bound them. Default: `false`; `true` with `adaptive()`.
	 */
	eventLoop?: boolean | undefined
	/**
	 * How long a handler may hold its permit after its client left, in ms, from 0 (not at all) to
	 * 2^31 - 1; `Infinity`: no bound. Default: `30_000`.
	 */
	abandonedTimeout?: number | undefined
	/**
	 * How long a client may take nothing of what waits for it before its connection is cut off, in
	 * ms, from 0 to 2^31 - 1; `Infinity`: never. A request that has given its permit back is not cut
	 * off. Default: `60_000`.
	 */
	stallTimeout?: number | undefined
	/**
	 * Status of a rejection: an integer from 400 to 599. 429 is answered only where the client sent
	 * too much: not for the reasons `closed`, `overloaded` and `unavailable`, where it becomes 503.
	 * Default: `503`; `429` with `key`.
	 */
	statusCode?: number | undefined
	/** Tell clients how long they waited, by `Server-Timing: queue;dur=…` (ms). Default: `false`. */
	serverTiming?: boolean | undefined
	/**
	 * Tell clients the capacity, and what is left of it, by `RateLimit-Policy` and `RateLimit`. With
	 * `key`: of their own key. Default: `false`.
	 */
	rateLimitFields?: boolean | undefined
	/**
	 * Admit every request at once, and only count what the limiter would do: how many would wait, how
	 * long, and be rejected. Not with a controller. Default: `false`.
	 */
	dryRun?: boolean | undefined
	/**
	 * What the limiter is called in figures: 1 to 64 characters, without control characters. In the
	 * `RateLimit` fields all but printable ASCII is encoded as in a URL. Default: `'default'`.
	 */
	name?: string | undefined
}

/** @internal The options that a limiter knows. */
export const LIMITER_OPTIONS: readonly string[] = [
	'capacity',
	'maxQueue',
	'maxWait',
	'key',
	'weight',
	'skip',
	...QUEUE_OPTIONS,
	'deadline',
	'eventLoop',
	'abandonedTimeout',
	'stallTimeout',
	'statusCode',
	'serverTiming',
	'rateLimitFields',
	'dryRun',
	'name',
]
