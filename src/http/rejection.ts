import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { RejectedError, RejectionReason } from '../errors.js'
import type { Gate } from '../limiter/gate.js'
import { rejectionFields } from './headers.js'

/**
 * Why a request is rejected, and with what to answer. `status` and `headers` follow the options of
 * its limiter.
 */
export type Rejection = RejectedError

/**
 * The problem types that draft-ietf-httpapi-ratelimit-headers-11, section 5, registers with IANA,
 * with their titles.
 */
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

/** What the problem is, where it is not that too many requests are being worked on. */
const DETAILS: Partial<Record<RejectionReason, string>> = {
	closed: 'The server is shutting down.',
	overloaded: 'The server is overloaded.',
	unavailable: 'The server cannot tell whether there is room.',
}

/**
 * Makes an error the rejection of one request.
 *
 * @param res - the response that will carry it.
 */
export function rejectionBy(gate: Gate, error: RejectedError, res: ServerResponse): Rejection {
	// 429 says that the client has sent too much, which is not so for the reasons that have a detail
	// of their own.
	const statusCode = gate.statusCode === 429 && error.reason in DETAILS ? 503 : gate.statusCode
	const headers: Record<string, string> = { ...error.headers, ...rejectionFields(gate, error, res) }
	// The next request of this connection would find the server closed too. Without this, a client
	// that keeps its connections busy keeps a server from closing.
	if (error.reason === 'closed' && res.req.httpVersionMajor === 1) headers.Connection = 'close'
	return Object.assign(error, { status: statusCode, statusCode, headers })
}

interface Content {
	readonly headers: Readonly<Record<string, string>>
	readonly body: string
}

/**
 * The answers made so far, by status, reason and `Retry-After` (1 to 60 s). Under load, most
 * rejections share one.
 */
const CONTENTS = new Map<string, Content>()

/** The default answer: an RFC 9457 problem, without any figures of the limiter. */
export function answerTo(rejection: Rejection): Content {
	const { headers, body } = contentOf(rejection)
	return { headers: { ...rejection.headers, ...headers }, body }
}

function contentOf({ status, reason, retryAfter }: Rejection): Content {
	const name = `${status} ${reason} ${retryAfter}`
	const known = CONTENTS.get(name)
	if (known !== undefined) return known
	const { type, title } = PROBLEMS[status] ?? {
		type: 'about:blank',
		title: STATUS_CODES[status] ?? 'Rejected',
	}
	const problem = DETAILS[reason] ?? 'Too many requests are being worked on.'
	const detail = `${problem} Try again in ${retryAfter} s.`
	const body = JSON.stringify({ type, title, status, detail, reason })
	const headers = {
		'Content-Type': 'application/problem+json',
		'Content-Length': String(Buffer.byteLength(body)),
	}
	const content = { headers, body }
	CONTENTS.set(name, content)
	return content
}
