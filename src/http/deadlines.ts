import type { IncomingHttpHeaders } from 'node:http'

/*
 * Readers for the option `deadline`. A header is whatever its sender wants it to be, unless a proxy
 * of yours sets it: what can't be true is treated as not there. Nothing can be won by it, as a
 * deadline never lets anyone go first; who lies is refused sooner, or waits until `maxWait`.
 */

type Headed =
	| { readonly headers: IncomingHttpHeaders }
	| { readonly req: { readonly headers: IncomingHttpHeaders } }

function header(request: Headed, name: string): string {
	const value = ('req' in request ? request.req : request).headers[name]
	return typeof value === 'string' ? value.trim() : ''
}

/** Proxies and clocks that are further behind than this, in ms, are wrong. */
const OLDEST = 3_600_000

const STARTS = ['x-request-start', 'x-queue-start']

/** A time since 1970 in s, ms, µs or ns, which its size tells apart until the year 5138; to ms. */
function milliseconds(time: number): number {
	if (time < 1e11) return time * 1e3
	if (time < 1e14) return time
	return time < 1e17 ? time / 1e3 : time / 1e6
}

/**
 * When the first proxy received a request, in ms since 1970, from its header `X-Request-Start` or
 * `X-Queue-Start`. It tells of the time that was lost before Node read the request. The forms are
 * those of nginx (`t=1700000000.123`), Apache (`t=1700000000123456`), Heroku (`1700000000123`) and
 * their like.
 *
 * ```ts
 * limit({ capacity: 10, deadline: (req) => requestStart(req) + 2_000 })
 * ```
 *
 * @param request - Express's `req`, Koa's `ctx`, or a request of `node:http`.
 * @returns now, if none of the two is there, or each tells of the future, of more than an hour ago,
 * or of no time.
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

const GRPC_UNITS: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 }

/**
 * How long the sender of a request waits for its answer, in ms, by each of the headers that may say
 * so.
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
	prefer: (value) => Number(/(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:[,;]|$)/i.exec(value)?.[1]) * 1_000,
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
