import { checkInteger, wrongType } from '../../src/options.js'
import type { RedisClient } from './connection.js'

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

function checkMilliseconds(name: string, value: unknown, lowest: number, highest: number): number {
	const allowed = `a number of milliseconds from ${lowest} to ${highest}`
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	if (!(value >= lowest && value <= highest)) throw new RangeError(`${name} must be ${allowed}; got ${value}`)
	return value
}

export function checkLease(value: unknown): number {
	return Math.floor(checkMilliseconds('lease', value, 500, 3_600_000))
}

/** With more than a quarter of the lease, a renewal that got no answer could not be repeated in time. */
export function checkRedisTimeout(value: unknown, lease: number): number {
	return checkMilliseconds('redisTimeout', value, 10, Math.floor(lease / 4))
}

const RULES = ['local', 'reject', 'admit'] as const

export function checkWhenUnavailable(value: unknown): (typeof RULES)[number] {
	const allowed = `one of ${RULES.map((rule) => `'${rule}'`).join(', ')}`
	if (typeof value !== 'string') throw wrongType('whenUnavailable', allowed, value)
	for (const rule of RULES) if (value === rule) return rule
	throw new RangeError(`whenUnavailable must be ${allowed}; got ${JSON.stringify(value)}`)
}
