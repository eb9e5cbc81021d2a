import {
	checkBoolean,
	checkDuration,
	checkFunction,
	checkMaxQueue,
	checkName,
	checkStatusCode,
	outOfRange,
	wrongType,
} from '../src/checks.js'

/*
 * The options that the limiters of several processes have in common: those of Redis, and those of a
 * cluster.
 */

export interface SharedOptions<Request = object> {
	/** The longest wait, in ms, from 0 to 2^31 - 1; `Infinity`: no bound. Default: `10_000`. */
	maxWait?: number | undefined
	/**
	 * A limit of its own for each key (user, tenant, model), in all processes together. `undefined`
	 * or `null`: not limited. Default: none.
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
	/**
	 * Status of a rejection: an integer from 400 to 599. 429 is answered only where the client sent
	 * too much: not for the reasons `closed`, `overloaded` and `unavailable`, where it becomes 503.
	 * Default: `503`; `429` with `key`.
	 */
	statusCode?: number | undefined
	/** Tell clients how long they waited, by `Server-Timing: queue;dur=…` (ms). Default: `false`. */
	serverTiming?: boolean | undefined
}

/** The names of these options, and of those that each entry describes itself. */
export const SHARED_OPTIONS: readonly string[] = [
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
]

/** The options that were checked, with the defaults of those that were not given. */
export interface SharedSettings {
	readonly name: string
	readonly maxQueue: number
	readonly maxWait: number
	readonly abandonedTimeout: number
	readonly stallTimeout: number
	readonly statusCode: number
	readonly serverTiming: boolean
	readonly functions: {
		readonly [Name in 'key' | 'weight' | 'skip']: SharedOptions[Name] | undefined
	}
}

export function readSharedOptions(
	options: SharedOptions & { name: string; maxQueue?: number | undefined },
): SharedSettings {
	// A default stands in for an option that was not given, and not for one of null.
	const {
		key,
		weight,
		skip,
		maxQueue = 1000,
		maxWait = 10_000,
		abandonedTimeout = 30_000,
		stallTimeout = 60_000,
		statusCode = key === undefined ? 503 : 429,
		serverTiming = false,
	} = options
	return {
		name: checkName(options.name),
		maxQueue: checkMaxQueue(maxQueue),
		maxWait: checkDuration('maxWait', maxWait),
		abandonedTimeout: checkDuration('abandonedTimeout', abandonedTimeout),
		stallTimeout: checkDuration('stallTimeout', stallTimeout),
		statusCode: checkStatusCode(statusCode),
		serverTiming: checkBoolean('serverTiming', serverTiming),
		functions: {
			key: checkFunction('key', key),
			weight: checkFunction('weight', weight),
			skip: checkFunction('skip', skip),
		},
	}
}

export function checkMilliseconds(
	name: string,
	value: unknown,
	lowest: number,
	highest: number,
): number {
	const allowed = `a number of milliseconds from ${lowest} to ${highest}`
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	if (!(value >= lowest && value <= highest)) throw outOfRange(name, allowed, value)
	return value
}
