import { checkInteger, outOfRange, wrongType } from '../../src/checks.js'
import { checkMilliseconds, SHARED_OPTIONS, type SharedOptions } from '../shared-options.js'
import type { RedisClient } from './clients.js'

/**
 * Which requests a limiter of a whole fleet admits, and how. In Express the functions are given
 * `req`, in Koa `ctx`.
 */
export interface RedisLimiterOptions<Request = object> extends SharedOptions<Request> {
	/**
	 * A client of `redis` or `ioredis` (single, Sentinel or Cluster), with Redis 7 or newer, or
	 * Valkey.
	 */
	client: RedisClient
	/**
	 * What the fleet calls the limiter, in Redis and in figures: 1 to 64 characters.
	 */
	name: string
	/** Requests at work at once in the whole fleet: an integer from 1. With `key`: for each key. */
	capacity: number
	/**
	 * Requests that may wait in the whole fleet: an integer from 0 (none waits), or `Infinity`. With
	 * `key`: for each key. Default: `1000`.
	 */
	maxQueue?: number | undefined
	/**
	 * Within this time the permits of a process that died come back, in ms, from 500 to 3_600_000. It
	 * must be the same in the whole fleet. Default: `10_000`.
	 */
	lease?: number | undefined
	/**
	 * How long Redis may take to answer before it counts as unavailable, in ms, from 10 to a quarter
	 * of `lease`. Default: `200`, or a quarter of `lease`.
	 */
	redisTimeout?: number | undefined
	/**
	 * What happens to requests while Redis is unavailable. `'local'`: the process admits as many as
	 * its share; before Redis has first answered, the share is not known, and without `localCapacity`
	 * requests are rejected. `'reject'`: they are rejected with `unavailable`. `'admit'`: all are
	 * admitted. Default: `'local'`.
	 */
	whenUnavailable?: 'local' | 'reject' | 'admit' | undefined
	/**
	 * Permits of this process while Redis is unavailable, with `'local'`: an integer from 1. With
	 * `key`: of each key. The share is what the process held, plus its part of what was free. When
	 * its lease has ended, the share is at most its part of the capacity; after three leases, it is
	 * that part. A process that is alone in its fleet has the whole capacity. Default: the share.
	 */
	localCapacity?: number | undefined
}

export const REDIS_LIMITER_OPTIONS: readonly string[] = [
	'client',
	...SHARED_OPTIONS,
	'lease',
	'redisTimeout',
	'whenUnavailable',
	'localCapacity',
]

export function checkClient(value: unknown): RedisClient {
	const client = value as
		| Partial<Record<'evalSha' | 'evalsha' | 'subscribe' | 'on', unknown>>
		| null
		| undefined
	const fits =
		typeof (client?.evalSha ?? client?.evalsha) === 'function' &&
		typeof client?.subscribe === 'function' &&
		typeof client.on === 'function'
	if (!fits) throw wrongType('client', 'a client of redis or ioredis', value)
	return value as RedisClient
}

export function checkFleetCapacity(name: 'capacity' | 'localCapacity', value: unknown): number {
	return checkInteger(name, value, 1, false)
}

export function checkLease(value: unknown): number {
	return Math.floor(checkMilliseconds('lease', value, 500, 3_600_000))
}

/**
 * With more than a quarter of the lease, there would be no time to repeat a renewal that got no
 * answer.
 */
export function checkRedisTimeout(value: unknown, lease: number): number {
	return checkMilliseconds('redisTimeout', value, 10, Math.floor(lease / 4))
}

const RULES = ['local', 'reject', 'admit'] as const

export type WhenUnavailable = (typeof RULES)[number]

export function checkWhenUnavailable(value: unknown): WhenUnavailable {
	const allowed = `one of ${RULES.map((rule) => `'${rule}'`).join(', ')}`
	if (typeof value !== 'string') throw wrongType('whenUnavailable', allowed, value)
	for (const rule of RULES) if (value === rule) return rule
	throw outOfRange('whenUnavailable', allowed, value)
}
