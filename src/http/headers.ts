import type { ServerResponse } from 'node:http'
import type { RejectedError } from '../errors.js'
import type { Gate } from '../limiter/gate.js'
import type { Ticket } from './ticket.js'

/*
 * The fields in which a response tells its client about the limiter. They are off by default, as
 * they show how busy the server is. RateLimit and RateLimit-Policy follow
 * draft-ietf-httpapi-ratelimit-headers-11 (23 May 2026), with its quota unit `concurrent-requests`.
 * The quota policy has the name of the limiter. There is no window, as permits come back when
 * requests end; and no partition key, as the key is internal to the server.
 */

/** The largest integer of a structured field: RFC 9651, section 3.3.1. */
const LARGEST = 999_999_999_999_999

/** Tells the client of an admission: how long it waited, and what is left of the quota. */
export function announce({ gate, waited, capacity, available }: Ticket, res: ServerResponse): void {
	if (!(gate.serverTiming || gate.rateLimitFields) || res.headersSent) return
	const fields = gate.rateLimitFields
		? rateLimitFields(gate, capacity, `r=${Math.min(available, LARGEST)}`)
		: {}
	if (gate.serverTiming) fields['Server-Timing'] = `queue;dur=${Math.round(waited * 1000) / 1000}`
	for (const [name, value] of Object.entries(fields)) res.setHeader(name, joined(res, name, value))
}

/** The fields of a rejection. No permits are left until the client may try again. */
export function rejectionFields(
	gate: Gate,
	{ capacity, retryAfter }: RejectedError,
	res: ServerResponse,
): Record<string, string> {
	if (!gate.rateLimitFields) return {}
	const fields = Object.entries(rateLimitFields(gate, capacity, `r=0;t=${retryAfter}`))
	return Object.fromEntries(fields.map(([name, value]) => [name, joined(res, name, value)]))
}

function rateLimitFields({ name }: Gate, capacity: number, state: string): Record<string, string> {
	// Without a bound there is no quota.
	if (capacity === Number.POSITIVE_INFINITY) return {}
	// A string of a structured field is ASCII.
	const ascii = name.replace(/[^\x20-\x7e]+|%/gu, encodeURIComponent)
	const policy = `"${ascii.replace(/["\\]/g, '\\$&')}"`
	const quota = Math.min(capacity, LARGEST)
	return {
		'RateLimit-Policy': `${policy};q=${quota};qu="concurrent-requests"`,
		RateLimit: `${policy};${state}`,
	}
}

/** Each of these fields is a list: values that another limiter or middleware has set stay in it. */
function joined(res: ServerResponse, name: string, value: string): string {
	const before = res.getHeader(name)
	return before === undefined
		? value
		: `${Array.isArray(before) ? before.join(', ') : before}, ${value}`
}
