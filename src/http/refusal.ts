import { STATUS_CODES } from 'node:http'
import type { RejectedError } from '../errors.js'

/**
 * Why a request is refused, and how to say so. Frameworks answer accordingly when it is thrown or passed to `next`:
 * Express and Koa both honour `status`, `headers` and `expose`.
 */
export interface Rejection extends RejectedError {
	readonly status: number
	readonly headers: Readonly<Record<string, string>>
	readonly expose: boolean
}

/** The problem types that draft-ietf-httpapi-ratelimit-headers-10, section 6, registers with IANA, with their titles. */
const PROBLEMS: Record<number, { type: string; title: string } | undefined> = {
	429: {
		type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
		title: 'Request cannot be satisfied as assigned quota has been exceeded',
	},
	503: {
		type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity',
		title: 'Request cannot be satisfied due to temporary server capacity constraints',
	},
}

export function rejectionWith(error: RejectedError, status: number): Rejection {
	return Object.assign(error, { status, headers: { 'Retry-After': String(error.retryAfter) }, expose: true })
}

interface Answer {
	readonly headers: Readonly<Record<string, string>>
	readonly body: string
}

/** There are few: one for each status in use, reason, and second from 1 to 60. Under load, it is the same again and again. */
const ANSWERS = new Map<string, Answer>()

/** The default answer: an RFC 9457 problem. It tells nothing of the limiter’s figures, which are not the client’s. */
export function refusalOf({ status, reason, retryAfter, headers }: Rejection): Answer {
	const name = `${status} ${reason} ${retryAfter}`
	const known = ANSWERS.get(name)
	if (known !== undefined) return known
	const { type, title } = PROBLEMS[status] ?? {
		type: 'about:blank',
		title: STATUS_CODES[status] ?? 'Refused',
	}
	const detail = `Too many requests are being worked on. Try again in ${retryAfter} s.`
	const body = JSON.stringify({ type, title, status, detail, reason })
	const contents = {
		'Content-Type': 'application/problem+json',
		'Content-Length': String(Buffer.byteLength(body)),
	}
	const answer = { headers: { ...headers, ...contents }, body }
	ANSWERS.set(name, answer)
	return answer
}
