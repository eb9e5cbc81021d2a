import { RejectedError } from './errors.js'
import { type Counts, Figures } from './figures.js'
import type { Observer, Outcome } from './observer.js'
import {
	checkCapacity,
	checkDuration,
	checkFunction,
	checkKey,
	checkMaxQueue,
	checkName,
	checkOptions,
	checkStatusCode,
	checkWeight,
} from './options.js'
import { Pace } from './pace.js'
import { type AbortSignalLike, type Permit, Semaphore } from './semaphore.js'

/** Who may enter a {@link Limiter}, and how. In Express the functions are given `req`, in Koa `ctx`. */
export interface LimiterOptions<Request = object> {
	/** Requests at work at once: an integer from 1, or `Infinity` to only measure. With `key`: for each key. */
	capacity: number
	/** Requests that may wait: an integer from 0 (none waits), or `Infinity`. With `key`: for each key. Default: `1000`. */
	maxQueue?: number | undefined
	/** The longest wait, in ms, from 0 to 2^31 - 1; `Infinity`: no bound. Default: `30_000`. */
	maxWait?: number | undefined
	/** A limit of its own for each key (user, tenant, address). `undefined`: not limited. Default: none. */
	key?(request: Request): string | undefined
	/** How many permits this request takes: an integer from 1 to `capacity`. Default: `1`. */
	weight?(request: Request): number
	/** Lets a request through, uncounted. Default: none. */
	skip?(request: Request): boolean
	/**
	 * How long a handler may go on holding its permit after its client left, in ms, from 0 (not at all) to 2^31 - 1;
	 * `Infinity`: no bound. Default: `30_000`.
	 */
	abandonedTimeout?: number | undefined
	/** Status of a refusal: an integer from 400 to 599. Default: `503`; `429` with `key`. */
	statusCode?: number | undefined
	/** What the limiter is called in figures: 1 to 64 printable ASCII characters. Default: `'default'`. */
	name?: string | undefined
}

/** The figures of a limiter at one moment: a plain object, fit for JSON. Counts are since its start. */
export interface LimiterStats extends Counts {
	name: string
	/** `null`: no bound. With `key`: for each key. */
	capacity: number | null
	/** Permits held now. */
	active: number
	/** Requests waiting now. */
	queued: number
	/** Keys with a request at work or waiting now; 0 without `key`. */
	keys: number
}

/** @internal The options that a limiter knows. */
export const LIMITER_OPTIONS: readonly string[] = [
	'capacity',
	'maxQueue',
	'maxWait',
	'key',
	'weight',
	'skip',
	'abandonedTimeout',
	'statusCode',
	'name',
]

/**
 * Where the HTTP layer enters a limiter; and what tells one from an object of options, whichever copy of this package
 * made it.
 *
 * @internal
 */
export const enter: unique symbol = Symbol.for('inflight-limit.enter') as never

/** A request’s stay in a limiter, from its admission. */
export interface Stay {
	/** In ms. */
	readonly waited: number
	/** Requests that were waiting ahead when it arrived. */
	readonly queued: number
	/** A signal that is aborted with `client`, and also when the permit is lost. Absent where none can be lost. */
	signalWith?(client: AbortSignal): AbortSignal
	/** Ends it: gives the permit back. Only the first call counts. */
	leave(outcome: Outcome): void
}

/**
 * The admission of requests: a semaphore, or one for each key, with bounds by default and figures.
 *
 * Made once, it can be shared by several routes, apps and frameworks: `limit(limiter)`.
 */
export class Limiter {
	/** What it is called in figures. */
	readonly name: string
	/** How long a handler may go on holding its permit after its client left, in ms. */
	readonly abandonedTimeout: number
	/** Status of a refusal. */
	readonly statusCode: number
	readonly #options: { [Name in 'key' | 'weight' | 'skip']: LimiterOptions[Name] | undefined }
	readonly #bounds: { maxQueue: number; maxWait: number }
	readonly #pace = new Pace()
	/** Without `key`, the only one. */
	readonly #semaphore: Semaphore
	/** With `key`, those of the keys that have a request at work or waiting. */
	readonly #keys = new Map<string, Semaphore>()
	readonly #figures: Figures
	#capacity: number
	#closed = false

	/**
	 * @param options - the capacity, or an object with it.
	 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or unknown.
	 */
	constructor(options: number | LimiterOptions) {
		const given = typeof options === 'object' ? options : { capacity: options }
		checkOptions(given, LIMITER_OPTIONS)
		const { maxQueue = 1000, maxWait = 30_000, abandonedTimeout = 30_000, name = 'default' } = given
		this.#capacity = checkCapacity(given.capacity, 1)
		this.#bounds = { maxQueue: checkMaxQueue(maxQueue), maxWait: checkDuration('maxWait', maxWait) }
		this.abandonedTimeout = checkDuration('abandonedTimeout', abandonedTimeout)
		this.name = checkName(name)
		this.#figures = new Figures(name)
		checkFunction('key', given.key)
		checkFunction('weight', given.weight)
		checkFunction('skip', given.skip)
		this.statusCode = checkStatusCode(given.statusCode ?? (given.key === undefined ? 503 : 429))
		this.#options = { key: given.key, weight: given.weight, skip: given.skip }
		this.#semaphore = this.#newSemaphore()
	}

	/** Requests at work at once. With `key`: for each key. */
	get capacity(): number {
		return this.#capacity
	}

	/** Permits held now. */
	get active(): number {
		let active = this.#semaphore.active
		for (const semaphore of this.#keys.values()) active += semaphore.active
		return active
	}

	/** Requests waiting now. */
	get queued(): number {
		let queued = this.#semaphore.queued
		for (const semaphore of this.#keys.values()) queued += semaphore.queued
		return queued
	}

	/** The figures now, as a new plain object. */
	stats(): LimiterStats {
		return {
			name: this.name,
			capacity: this.#capacity === Number.POSITIVE_INFINITY ? null : this.#capacity,
			active: this.active,
			queued: this.queued,
			keys: this.#keys.size,
			...this.#figures.counts(),
		}
	}

	/**
	 * Changes the capacity: upwards, those who wait get in at once; downwards, those at work finish first.
	 *
	 * @throws TypeError, RangeError - `capacity` is not an integer from 1, or Infinity.
	 */
	resize(capacity: number): void {
		this.#capacity = checkCapacity(capacity, 1)
		this.#semaphore.resize(capacity)
		for (const semaphore of this.#keys.values()) semaphore.resize(capacity)
		this.#figures.resized(capacity)
	}

	/**
	 * Tells an observer of each admission, release, rejection and resize from now on.
	 *
	 * @returns a function that ends it.
	 * @throws TypeError - `observer` has none of an observer's functions, or something else in their place.
	 */
	observe(observer: Observer): () => void {
		return this.#figures.observe(observer)
	}

	/** Turns away all who wait and all who come, with `closed`. Those at work finish. There is no way back. */
	close(): void {
		this.#closed = true
		this.#semaphore.close()
		for (const semaphore of this.#keys.values()) semaphore.close()
	}

	/** Resolves when nothing is at work and nothing waits: at once if so now. */
	async onIdle(): Promise<void> {
		await this.#semaphore.onIdle()
		while (this.#keys.size > 0) {
			await Promise.all(Array.from(this.#keys.values(), (semaphore) => semaphore.onIdle()))
		}
	}

	/**
	 * Lets a request in: at once if there is room, or by a promise when it must wait.
	 *
	 * @internal
	 * @param signal - is aborted when the client has left.
	 * @returns `undefined` for a request that is not to be limited. The promise rejects with a `RejectedError`, or with
	 * the reason of `signal`.
	 * @throws what the user's functions throw, or a `TypeError` or `RangeError` for what they returned.
	 */
	[enter](request: object, signal: AbortSignalLike): Stay | Promise<Stay> | undefined {
		const options = this.#options
		if (options.skip?.(request)) return undefined
		let key: string | undefined
		let semaphore = this.#semaphore
		if (options.key !== undefined) {
			key = options.key(request)
			if (key === undefined) return undefined
			semaphore = this.#keys.get(checkKey(key)) ?? this.#newSemaphore()
		}
		const weight = options.weight === undefined ? 1 : checkWeight(options.weight(request), this.#capacity)

		const permit = signal.aborted ? undefined : semaphore.tryAcquire(weight === 1 ? undefined : { weight })
		if (permit === undefined) return this.#wait(semaphore, key, { weight, signal })
		if (key !== undefined) this.#keys.set(key, semaphore)
		return this.#admit(permit, 0, semaphore, key)
	}

	async #wait(
		semaphore: Semaphore,
		key: string | undefined,
		options: { weight: number; signal: AbortSignalLike },
	): Promise<Stay> {
		const { queued } = semaphore
		const since = performance.now()
		try {
			const permit = await semaphore.acquire(options)
			// The client can leave after the permit was handed over and before this line runs.
			if (options.signal.aborted) {
				permit.release()
				this.#forget(key, semaphore)
				throw options.signal.reason
			}
			return this.#admit(permit, queued, semaphore, key)
		} catch (error) {
			const reason = error instanceof RejectedError ? error.reason : 'aborted'
			this.#figures.rejected(reason, performance.now() - since, key, semaphore)
			throw error
		}
	}

	#admit(permit: Permit, queued: number, semaphore: Semaphore, key: string | undefined): Stay {
		const { waited } = permit
		this.#figures.admitted(waited, key, semaphore)
		const since = performance.now()
		let over = false
		const leave = (outcome: Outcome): void => {
			if (over) return
			over = true
			permit.release()
			this.#forget(key, semaphore)
			this.#figures.released(waited, performance.now() - since, outcome, key, semaphore)
		}
		return { waited, queued, leave }
	}

	/** Nothing is kept of a key whose last request is over. */
	#forget(key: string | undefined, semaphore: Semaphore): void {
		if (key !== undefined && semaphore.active === 0 && semaphore.queued === 0) this.#keys.delete(key)
	}

	#newSemaphore(): Semaphore {
		const semaphore = new Semaphore(this.#capacity, this.#bounds, this.#pace)
		if (this.#closed) semaphore.close()
		return semaphore
	}
}
