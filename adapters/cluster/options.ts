import {
	checkBoolean,
	checkDuration,
	checkFunction,
	checkInteger,
	checkMaxQueue,
	checkName,
	checkStatusCode,
	LONGEST_TIMER,
	outOfRange,
	readOptions,
	wrongType,
} from '../../src/checks.js'

/**
 * Which requests a limiter of all processes of a cluster admits, and how. In Express the functions
 * are given `req`, in Koa `ctx`.
 */
export interface ClusterLimiterOptions<Request = object> {
	/**
	 * What the limiter is called, in all processes and in figures: 1 to 64 printable ASCII characters.
	 */
	name: string
	/**
	 * Requests at work at once in all processes together: an integer from 1. With `key`: for each
	 * key. It must be the same in all processes.
	 */
	capacity: number
	/**
	 * Requests that may wait in all processes together: an integer from 0 (none waits), or
	 * `Infinity`. With `key`: for each key. It must be the same in all processes. Default: `1000`.
	 */
	maxQueue?: number | undefined
	/**
	 * The longest wait, in ms, from 0 to 2^31 - 1; `Infinity`: no bound. It must be the same in all
	 * processes. Default: `10_000`.
	 */
	maxWait?: number | undefined
	/**
	 * A limit of its own for each key (user, tenant, model) in all processes together. `undefined` or
	 * `null`: not limited. Default: none.
	 */
	key?(request: Request): string | number | bigint | null | undefined
	/** How many permits this request takes: an integer from 1 to `capacity`. Default: `1`. */
	weight?(request: Request): number
	/** Lets a request through, uncounted. Default: none. */
	skip?(request: Request): boolean
	/**
	 * How long a handler may go on holding its permit after its client left, in ms, from 0 (not at
	 * all) to 2^31 - 1; `Infinity`: no bound. Default: `30_000`.
	 */
	abandonedTimeout?: number | undefined
	/**
	 * How long a client may take nothing of what waits for it before its connection is cut off, in
	 * ms, from 0 to 2^31 - 1; `Infinity`: never. A request that has given its permit back is not cut
	 * off. Default: `60_000`.
	 */
	stallTimeout?: number | undefined
	/** Status of a rejection: an integer from 400 to 599. Default: `503`; `429` with `key`. */
	statusCode?: number | undefined
	/** Tell clients how long they waited, by `Server-Timing: queue;dur=…` (ms). Default: `false`. */
	serverTiming?: boolean | undefined
	/**
	 * How long the primary may take to answer a worker before it counts as unavailable, in ms, from
	 * 10 to 2^31 - 1. Then requests are rejected with `unavailable`. Default: `1_000`.
	 */
	primaryTimeout?: number | undefined
}

export const CLUSTER_LIMITER_OPTIONS: readonly string[] = [
	'name',
	'capacity',
	'maxQueue',
	'maxWait',
	'key',
	'weight',
	'skip',
	'abandonedTimeout',
	'stallTimeout',
	'statusCode',
	'serverTiming',
	'primaryTimeout',
]

type Functions = 'key' | 'weight' | 'skip'

/** Options that were checked, with the defaults of those that were not given. */
export type Settings = {
	readonly [Name in Exclude<keyof ClusterLimiterOptions, Functions>]-?: NonNullable<
		ClusterLimiterOptions[Name]
	>
} & { readonly [Name in Functions]: ClusterLimiterOptions[Name] | undefined }

export function readClusterOptions(options: ClusterLimiterOptions<never>): Settings {
	const given = readOptions(options as ClusterLimiterOptions, CLUSTER_LIMITER_OPTIONS)
	return {
		name: checkName(given.name),
		capacity: checkInteger('capacity', given.capacity, 1, false),
		maxQueue: checkMaxQueue(given.maxQueue ?? 1000),
		maxWait: checkDuration('maxWait', given.maxWait ?? 10_000),
		key: checkFunction('key', given.key),
		weight: checkFunction('weight', given.weight),
		skip: checkFunction('skip', given.skip),
		abandonedTimeout: checkDuration('abandonedTimeout', given.abandonedTimeout ?? 30_000),
		stallTimeout: checkDuration('stallTimeout', given.stallTimeout ?? 60_000),
		statusCode: checkStatusCode(given.statusCode ?? (given.key === undefined ? 503 : 429)),
		serverTiming: checkBoolean('serverTiming', given.serverTiming ?? false),
		primaryTimeout: checkPrimaryTimeout(given.primaryTimeout ?? 1_000),
	}
}

function checkPrimaryTimeout(value: unknown): number {
	const allowed = `a number of milliseconds from 10 to ${LONGEST_TIMER}`
	if (typeof value !== 'number') throw wrongType('primaryTimeout', allowed, value)
	if (!(value >= 10 && value <= LONGEST_TIMER)) throw outOfRange('primaryTimeout', allowed, value)
	return value
}

/** The options that must be the same in all processes, in words. */
export function termsOf({ capacity, maxQueue, maxWait, key }: Settings): string {
	return `capacity ${capacity}, maxQueue ${maxQueue}, maxWait ${maxWait}, ${key === undefined ? 'no key' : 'key'}`
}
