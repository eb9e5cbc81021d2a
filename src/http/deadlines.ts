import type { IncomingHttpHeaders } from 'node:http'

/*
 * Readers for the option `deadline`. A client can write anything into a header, unless your proxy
 * sets it: a value that can't be true is ignored. A false deadline gains nothing, as a deadline
 * never moves a request forward: one that is too early gets the request rejected sooner, and one
 * that is too late leaves it waiting until `maxWait`.
 */

type Headed =
	| { readonly headers: IncomingHttpHeaders }
	| { readonly req: { readonly headers: IncomingHttpHeaders } }

function header(request: Headed, name: string): string {
	const value = ('req' in request ? request.req : request).headers[name]
	return typeof value === 'string' ? value.trim() : ''
}

/** A start that is older than this, in ms, is ignored: the clock of the proxy must be wrong. */
const OLDEST = 3_600_000

const STARTS = ['x-request-start', 'x-queue-start']

/**
 * Converts a time since 1970 to ms. Its size tells whether it is in s, ms, µs or ns, until the year
 * 5138.
 */
function milliseconds(time: number): number {
	if (time < 1e11) return time * 1e3
	if (time < 1e14) return time
	return time < 1e17 ? time / 1e3 : time / 1e6
}

/**
 * When the first proxy received a request, in ms since 1970, from its header `X-Request-Start` or
 * `X-Queue-Start`. So it includes the time that passed before Node read the request. The forms are
 * those of nginx (`t=1700000000.123`), Apache (`t=1700000000123456`), Heroku (`1700000000123`) and
 * their like.
 *
 * ```ts
 * limit({ capacity: 10, deadline: (req) => requestStart(req) + 2_000 })
 * ```
 *
 * @param request - Express's `req`, Koa's `ctx`, or a request of `node:http`.
 * @returns the present time, if neither header has a time that is in the past and at most an hour
 * ago.
 */
export function requestStart(request: Headed): number {
	const now = Date.now()
	for (const name of STARTS) {
		const time = /^(?:t=)?(\d{10,19}(?:\.\d{1,9})?)$/.exec(header(request, name))?.[1]
		const start = milliseconds(Number(time))
		if (start <= now && start >= now - OLDEST) return start
	}
	return now
}

const GRPC_UNITS: Record<string, number> = {
	H: 3_600_000,
	M: 60_000,
	S: 1_000,
	m: 1,
	u: 1e-3,
	n: 1e-6,
}

/**
 * The headers that may say how long the sender of a request waits for its answer, with a function
 * that reads each, in ms.
 */
const TIMEOUTS: Record<string, (value: string) => number> = {
	/** https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */
	'grpc-timeout': (value) => {
		const [, amount, unit = ''] = /^(\d{1,8})([HMSmun])$/.exec(value) ?? []
		return Number(amount) * (GRPC_UNITS[unit] ?? 0)
	},
	/** Set by Envoy's router. */
	'x-envoy-expected-rq-timeout-ms': (value) => (/^\d{1,12}$/.test(value) ? Number(value) : 0),
	/** RFC 7240, section 4.3. */
	prefer: (value) =>
		Number(/(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)/i.exec(value)?.[1]) * 1_000,
}

/**
 * When the sender of a request stops waiting for its answer, in ms since 1970: {@link
 * requestStart}, and the shortest time that its headers `grpc-timeout`,
 * `x-envoy-expected-rq-timeout-ms` and `Prefer: wait=` (seconds) allow.
 *
 * ```ts
 * limit({ capacity: 10, deadline: requestDeadline })
 * ```
 *
 * @param request - Express's `req`, Koa's `ctx`, or a request of `node:http`.
 * @returns `undefined` if none of them gives a time above 0.
 */
export function requestDeadline(request: Headed): number | undefined {
	let shortest = Number.POSITIVE_INFINITY
	for (const [name, read] of Object.entries(TIMEOUTS)) {
		const timeout = read(header(request, name))
		if (timeout > 0 && timeout < shortest) shortest = timeout
	}
	return shortest === Number.POSITIVE_INFINITY ? undefined : requestStart(request) + shortest
}
