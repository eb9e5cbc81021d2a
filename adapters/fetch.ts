import type { UnderlyingSource } from 'node:stream/web'
import {
	checkDuration,
	checkFunction,
	checkOptions,
	LONGEST_TIMER,
	wrongType,
} from '../src/checks.js'
import type { SharedLimiter } from '../src/http/setup.js'
import { enter, type Stay } from '../src/limiter/gate.js'
import { Limiter } from '../src/limiter/limiter.js'
import { LIMITER_OPTIONS, type LimiterOptions } from '../src/limiter/options.js'
import { NEVER_ABORTED } from '../src/limiter/tasks.js'
import type { AbortSignalLike } from '../src/semaphore/signals.js'
import type { Outcome } from '../src/stats/observer.js'
import { Pauses } from './pauses.js'

export { RejectedError, type RejectionReason } from '../src/errors.js'
export { Limiter, type LimiterStats } from '../src/limiter/limiter.js'

/** The global `fetch`, that of undici, or another one that follows the Fetch standard. */
export type FetchFunction = (
	input: never,
	init?: never,
) => Promise<{ readonly status: number; readonly body: unknown }>

/**
 * What `key`, `weight`, `priority` and the other functions of the options are given: a call of
 * `fetch`.
 */
export interface FetchContext<F extends FetchFunction = typeof globalThis.fetch> {
	/** The URL that is asked for. Reading it throws if the input is not an absolute URL. */
	readonly url: URL
	/** The first argument of the call. */
	readonly input: Parameters<F>[0]
	/** The second argument of the call. */
	readonly init: Parameters<F>[1]
}

/** The options that only concern the answers of a server. */
const OF_SERVERS = [
	'abandonedTimeout',
	'stallTimeout',
	'statusCode',
	'serverTiming',
	'rateLimitFields',
] as const

/** The options of a `Limiter` that have a meaning for calls of `fetch`. */
export type OutboundOptions<F extends FetchFunction = typeof globalThis.fetch> = Omit<
	LimiterOptions<FetchContext<F>>,
	(typeof OF_SERVERS)[number]
> & { [Name in (typeof OF_SERVERS)[number]]?: never }

/** What fetches, and how long a body may stay unread. */
export interface FetchOptions<F extends FetchFunction = typeof globalThis.fetch> {
	/** The function that fetches. Default: the global `fetch`, looked up at each call. */
	fetch?: F | undefined
	/**
	 * How long a body may hold its permit while nothing reads it, before its first read and between
	 * two reads, in ms, from 0 to 2^31 - 1; `Infinity`: no bound. Then the body is cancelled, and
	 * later reads of it reject with a `TimeoutError`. The first time, a warning of the process is
	 * emitted. Default: `60_000`.
	 */
	unreadTimeout?: number | undefined
	/**
	 * The longest time, in ms, for which the `Retry-After` of a 429 or 503 is obeyed: until then, other
	 * calls to that origin are made later. They hold their permits meanwhile. From 0 (it is not obeyed)
	 * to 2^31 - 1, or `Infinity`. Default: `0`.
	 */
	maxRetryAfter?: number | undefined
}

/** A `fetch` with a limit. */
export interface LimitedFetch<F extends FetchFunction = typeof globalThis.fetch> {
	(...args: Parameters<F>): ReturnType<F>
	/** Its limiter: for figures, to close it, or to share it. */
	readonly limiter: Limiter
}

/**
 * A `fetch` that has at most `capacity` responses open at a time: a call holds its permit until the
 * body of its response has been read to its end, cancelled, has failed, or was collected as
 * garbage. Calls above `capacity` wait in a queue.
 *
 * ```ts
 * const limitedFetch = limitFetch(3)
 * const page = await limitedFetch(url, { signal })
 * console.log(await page.text())
 * ```
 *
 * The promise of a call rejects as that of `fetch` does, or with a `RejectedError`. If the signal
 * is aborted while the call waits, it rejects with the reason of the signal, and no request is
 * made.
 *
 * @param limit - the capacity, or an object with it, or a {@link Limiter} to share.
 * @param options - what fetches, and how long a body may stay unread.
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or
 * unknown.
 */
export function limitFetch<F extends FetchFunction = typeof globalThis.fetch>(
	limit: number | OutboundOptions<F> | SharedLimiter,
	options: FetchOptions<F> = {},
): LimitedFetch<F> {
	const limiter = readLimiter(limit as number | LimiterOptions | SharedLimiter)
	checkOptions(options, ['fetch', 'unreadTimeout', 'maxRetryAfter'])
	const { unreadTimeout = 60_000, maxRetryAfter = 0 } = options
	const given = checkFunction('fetch', options.fetch) as typeof globalThis.fetch | undefined
	checkDuration('unreadTimeout', unreadTimeout)
	checkDuration('maxRetryAfter', maxRetryAfter)
	const pauses = maxRetryAfter === 0 ? undefined : new Pauses(maxRetryAfter)
	let warned = false

	function warn(): void {
		if (warned) return
		warned = true
		process.emitWarning(
			`A body held a permit of the limiter ${JSON.stringify(limiter.name)} for ${unreadTimeout} ms ` +
				'and nothing read it: it was cancelled. Read each body to its end, or cancel it.',
			{ type: 'InflightLimitWarning', code: 'INFLIGHT_UNREAD_BODY' },
		)
	}

	async function limitedFetch(
		input: string | URL | Request,
		init?: RequestInit | undefined,
	): Promise<Response> {
		const own = signalOf(input, init)
		const stay = await admit(limiter, contextOf(input, init), own ?? NEVER_ABORTED)
		const fetch = given ?? globalThis.fetch
		if (stay === undefined) return fetch(input, init)
		// If the permit can be lost, the request is aborted when it is.
		const signal = stay.signalWith?.(own ?? new AbortController().signal) ?? own
		const end = (failed: boolean, status: number): void => {
			stay.leave(!failed ? outcomeOf(status) : signal?.aborted ? 'abandoned' : 'server-error')
		}
		try {
			// The signal can be aborted after the permit was handed over and before this line runs.
			signal?.throwIfAborted()
			if (pauses !== undefined) await pauses.over(originOf(input), signal)
			const response = await fetch(
				input,
				signal === own ? init : { ...init, signal: signal ?? null },
			)
			if (typeof response !== 'object' || response === null) throw noResponse(response)
			pauses?.note(originOf(response.url || input), response)
			const { status, body } = response
			if (body === null || body === undefined || response.bodyUsed) {
				end(false, status)
				return response
			}
			checkResponse(response)
			if (response.headers.get('content-length') === '0') {
				end(false, status)
				return response
			}
			const source = new Source(body, unreadTimeout, warn, (failed) => end(failed, status))
			return withBody(response, source)
		} catch (error) {
			end(true, 0)
			throw error
		}
	}
	return Object.assign(limitedFetch, { limiter }) as unknown as LimitedFetch<F>
}

function readLimiter(limit: number | LimiterOptions | SharedLimiter): Limiter {
	if (typeof limit !== 'object' || limit === null) return new Limiter(limit)
	if (enter in limit) return limit as Limiter
	checkOptions(
		limit,
		LIMITER_OPTIONS.filter((name) => !(OF_SERVERS as readonly string[]).includes(name)),
	)
	return new Limiter(limit as LimiterOptions)
}

function contextOf(input: string | URL | Request, init: RequestInit | undefined): FetchContext {
	return {
		input,
		init,
		get url() {
			return new URL(urlOf(input))
		},
	}
}

function urlOf(input: string | URL | Request): string | URL {
	return typeof input === 'object' && 'url' in input ? input.url : input
}

/** `''` for what is no absolute URL: `fetch` will say so. */
function originOf(input: string | URL | Request): string {
	const url = String(urlOf(input))
	return URL.canParse(url) ? new URL(url).origin : ''
}

/** As `fetch` does: a signal of `null` takes away that of the `Request`. */
function signalOf(
	input: string | URL | Request,
	init: RequestInit | undefined,
): AbortSignal | undefined {
	if (init?.signal !== undefined) return init.signal ?? undefined
	return typeof input === 'object' && 'signal' in input ? input.signal : undefined
}

/** @returns the stay, once there is room; `undefined`: this call is not limited. */
async function admit(
	limiter: Limiter,
	context: FetchContext,
	signal: AbortSignalLike,
): Promise<Stay | undefined> {
	let entrance = limiter[enter](context, signal)
	if (entrance.tag === 'waiting') {
		// The permit may come back only by the timer of an unread body, which does not keep the process
		// alive. So this timer does.
		const alive = setTimeout(() => {}, LONGEST_TIMER)
		entrance = await entrance.settled
		clearTimeout(alive)
	}
	if (entrance.tag === 'rejected') {
		throw entrance.error.reason === 'aborted' ? signal.reason : entrance.error
	}
	return entrance.tag === 'admitted' ? entrance : undefined
}

/**
 * A response of another implementation, such as that of node-fetch, has a body whose end can't be
 * observed.
 */
function checkResponse(response: Response): void {
	const { getReader } = response.body as { getReader?: unknown }
	const { error } = response.constructor as { error?: unknown }
	if (typeof getReader !== 'function' || typeof error !== 'function') throw noResponse(response)
}

function noResponse(value: unknown): TypeError {
	return wrongType('what fetch resolves to', 'a Response whose body is a ReadableStream', value)
}

function outcomeOf(status: number): Outcome {
	if (status >= 500) return 'server-error'
	return status >= 400 ? 'client-error' : 'ok'
}

/**
 * The source of the body that a caller reads. It reads from the response's own body on demand, so
 * it observes each way in which a body can be read, cancelled or fail.
 *
 * It has no reference to the stream that it feeds, so that the stream can be collected as garbage.
 */
class Source {
	/** Only a byte stream can have readers that bring their own buffer. */
	readonly type: 'bytes' | undefined
	readonly #reader: ReadableStreamDefaultReader<Uint8Array>
	readonly #unreadTimeout: number
	readonly #warn: () => void
	#timer: NodeJS.Timeout | undefined
	#ended = false
	/** Why the body was cancelled here, and not by its reader. */
	#failure: Error | undefined

	constructor(
		body: ReadableStream<Uint8Array>,
		unreadTimeout: number,
		warn: () => void,
		onEnd: (failed: boolean) => void,
	) {
		this.type = isByteStream(body) ? 'bytes' : undefined
		this.#reader = body.getReader()
		this.#unreadTimeout = unreadTimeout
		this.#warn = warn
		const end = (failed: boolean): void => {
			this.#ended = true
			clearTimeout(this.#timer)
			onEnd(failed)
		}
		// Settles once: when all was read, on cancellation, or on an error, also while nothing reads.
		this.#reader.closed.then(
			() => end(false),
			() => end(true),
		)
		this.#awaitRead()
	}

	async pull(
		controller: ReadableByteStreamController | ReadableStreamDefaultController,
	): Promise<void> {
		clearTimeout(this.#timer)
		if (this.#failure !== undefined) throw this.#failure
		const { done, value } = await this.#reader.read()
		if (!done) {
			controller.enqueue(value)
			this.#awaitRead()
			return
		}
		controller.close()
		if ('byobRequest' in controller) controller.byobRequest?.respond(0)
	}

	cancel(reason: unknown): Promise<void> {
		return this.#reader.cancel(reason)
	}

	#awaitRead(): void {
		if (this.#ended || this.#unreadTimeout === Number.POSITIVE_INFINITY) return
		this.#timer = setTimeout(() => this.#giveUp(), this.#unreadTimeout)
		this.#timer.unref()
	}

	#giveUp(): void {
		this.#failure = new DOMException(
			`The body was not read for ${this.#unreadTimeout} ms`,
			'TimeoutError',
		)
		this.cancel(this.#failure).catch(() => {})
		this.#warn()
	}
}

function isByteStream(stream: ReadableStream): boolean {
	try {
		stream.getReader({ mode: 'byob' }).releaseLock()
		return true
	} catch {
		return false
	}
}

/** The last resort: cancels the bodies of responses that were collected as garbage. */
const collected = new FinalizationRegistry<Source>((source) => {
	source.cancel('The body was collected').catch(() => {})
})

/** The same response, with the body that `source` feeds. */
function withBody(response: Response, source: Source): Response {
	const stream = new ReadableStream(source as object as UnderlyingSource, { highWaterMark: 0 })
	collected.register(stream, source)
	const Class = response.constructor as typeof Response
	return withFacts(new Class(stream, { headers: response.headers }), {
		url: { value: response.url },
		// Set here, as servers also send statuses that the constructor rejects, such as 999.
		status: { value: response.status },
		statusText: { value: response.statusText },
		ok: { value: response.ok },
		redirected: { value: response.redirected },
		type: { value: response.type },
	})
}

/** Sets the properties of a response that only `fetch` itself can set, such as `url`. */
function withFacts(response: Response, facts: PropertyDescriptorMap): Response {
	const { clone } = response
	return Object.defineProperties(response, {
		...facts,
		clone: { value: () => withFacts(clone.call(response), facts) },
	})
}
