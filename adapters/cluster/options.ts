import { checkInteger, LONGEST_TIMER, readOptions } from '../../src/checks.js'
import {
	checkMilliseconds,
	readSharedOptions,
	SHARED_OPTIONS,
	type SharedOptions,
	type SharedSettings,
} from '../shared-options.js'

/**
 * Which requests a limiter of all processes of a cluster admits, and how. In Express the functions
 * are given `req`, in Koa `ctx`. `capacity`, `maxQueue`, `maxWait`, and whether there is a `key`,
 * must be the same in all processes.
 */
export interface ClusterLimiterOptions<Request = object> extends SharedOptions<Request> {
	/**
	 * What the limiter is called, in all processes and in figures: 1 to 64 characters.
	 */
	name: string
	/**
	 * Requests at work at once in all processes together: an integer from 1. With `key`: for each
	 * key.
	 */
	capacity: number
	/**
	 * Requests that may wait in all processes together: an integer from 0 (none waits), or
	 * `Infinity`. With `key`: for each key. Default: `1000`.
	 */
	maxQueue?: number | undefined
	/**
	 * How long the primary may take to answer a worker before it counts as unavailable, in ms, from
	 * 10 to 2^31 - 1. Then requests are rejected with `unavailable`. Default: `1_000`.
	 */
	primaryTimeout?: number | undefined
}

export const CLUSTER_LIMITER_OPTIONS: readonly string[] = [...SHARED_OPTIONS, 'primaryTimeout']

/** The options that were checked, with the defaults of those that were not given. */
export interface Settings extends SharedSettings {
	readonly capacity: number
	readonly primaryTimeout: number
	/** The options that must be the same in all processes, in words. */
	readonly terms: string
}

export function readClusterOptions(options: ClusterLimiterOptions<never>): Settings {
	const given = readOptions(options as ClusterLimiterOptions, CLUSTER_LIMITER_OPTIONS)
	const shared = readSharedOptions(given)
	const capacity = checkInteger('capacity', given.capacity, 1, false)
	const { maxQueue, maxWait } = shared
	const { primaryTimeout = 1_000 } = given
	const key = given.key === undefined ? 'no key' : 'key'
	return {
		...shared,
		capacity,
		primaryTimeout: checkMilliseconds('primaryTimeout', primaryTimeout, 10, LONGEST_TIMER),
		terms: `capacity ${capacity}, maxQueue ${maxQueue}, maxWait ${maxWait}, ${key}`,
	}
}
