import type { ServerResponse } from 'node:http'
import type { Limiter } from '../limiter/limiter.js'
import type { Place } from './exchange.js'

/*
 * What a response tells its client of the limiter, in fields that are off by default: how busy a server is, is its own
 * business. RateLimit and RateLimit-Policy are those of draft-ietf-httpapi-ratelimit-headers-11 (23 May 2026), with its
 * quota unit `concurrent-requests`. Quota policies are named as their limiters. No window and no partition key: permits
 * come back when requests end, and a key is the server's way to tell clients apart, not the client's.
 */

/** The largest integer of a structured field: RFC 9651, section 3.3.1. */
const LARGEST = 999_999_999_999_999

/** Whether a limiter has anything to announce: looked at once for a middleware, so that nothing is asked at a request. */
export function announces({ serverTiming, rateLimitFields }: Limiter): boolean {
	return serverTiming || rateLimitFields
}

/** Tells the client of an admission: how long it waited, and what is left of the quota. */
export function announce(place: Place, res: ServerResponse): void {
	if (res.headersSent) return
	const { limiter, waited, available } = place
	const fields = limiter.rateLimitFields ? rateLimitFields(limiter, `r=${Math.min(available, LARGEST)}`) : {}
	if (limiter.serverTiming) fields['Server-Timing'] = `queue;dur=${Math.round(waited * 1000) / 1000}`
	for (const [name, value] of Object.entries(fields)) res.setHeader(name, joined(res, name, value))
}

/** The fields of a refusal. Nothing is left, for as long as the client is told to stay away. */
export function refusalFields(
	limiter: Limiter,
	retryAfter: number,
	res: ServerResponse,
): Record<string, string> {
	if (!limiter.rateLimitFields) return {}
	const fields = Object.entries(rateLimitFields(limiter, `r=0;t=${retryAfter}`))
	return Object.fromEntries(fields.map(([name, value]) => [name, joined(res, name, value)]))
}

function rateLimitFields({ name, capacity }: Limiter, state: string): Record<string, string> {
	// Without a bound there is no quota to tell of.
	if (capacity === Number.POSITIVE_INFINITY) return {}
	const policy = `"${name.replace(/["\\]/g, '\\$&')}"`
	const quota = Math.min(capacity, LARGEST)
	return {
		'RateLimit-Policy': `${policy};q=${quota};qu="concurrent-requests"`,
		RateLimit: `${policy};${state}`,
	}
}

/** All of them are lists: those of a limiter met before, or of another middleware, stay in it. */
function joined(res: ServerResponse, name: string, value: string): string {
	const before = res.getHeader(name)
	return before === undefined ? value : `${Array.isArray(before) ? before.join(', ') : before}, ${value}`
}
