import {
	checkDuration,
	checkKey,
	checkOptions,
	checkSignal,
	checkSkip,
	checkWeight,
	wrongType,
} from '../../src/checks.js'
import { coded, RejectedError, withoutStack } from '../../src/errors.js'
import {
	type Entrance,
	enter,
	type Gate,
	type Rejected,
	SKIPPED,
	type Stay,
} from '../../src/limiter/gate.js'
import { type Inspection, inspect } from '../../src/limiter/inspection.js'
import type { LimiterStats } from '../../src/limiter/limiter.js'
import type { AcquireOptions } from '../../src/semaphore/semaphore.js'
import { type AbortSignalLike, hasAborted } from '../../src/semaphore/signals.js'
import { Figures } from '../../src/stats/figures.js'
import type { Observer, Outcome } from '../../src/stats/observer.js'
import { readSharedOptions, type SharedSettings } from '../shared-options.js'
import { awake } from './awake.js'
import type { Caller } from './caller.js'
import type { KeyQueue } from './key-queue.js'
import { either } from './lease.js'
import {
	checkClient,
	checkFleetCapacity,
	checkLease,
	checkRedisTimeout,
	checkWhenUnavailable,
	REDIS_LIMITER_OPTIONS,
	type RedisLimiterOptions,
} from './options.js'
import type { FleetPermit } from './permit.js'
import { FleetSemaphore } from './semaphore.js'

/**
 * The figures of a limiter in one process, and of its fleet, at one moment: a plain object, fit for
 * JSON.
 */
export interface RedisLimiterStats extends LimiterStats {
	/** Whether Redis answers. */
	available: boolean
	/** The whole fleet, as Redis last reported it. */
	fleet: { processes: number; active: number; queued: number }
}

/** Options for taking a permit of a fleet. */
export interface FleetAcquireOptions extends AcquireOptions {
	/** The key whose limit applies: any string. Required if the limiter has the option `key`. */
	key?: string | undefined
}

const ACQUIRE_OPTIONS = ['weight', 'signal', 'maxWait', 'key']

/**
 * One limit for a whole fleet of processes, kept by Redis. Made by {@link redisLimiter}; used like
 * a `Limiter`: `limit(limiter)`.
 */
export class RedisLimiter implements Gate {
	/** The name of the limiter in Redis and in figures. */
	readonly name: string
	/** How long a handler may hold its permit after its client left, in ms. */
	readonly abandonedTimeout: number
	/** How long a client may take nothing of what waits for it, in ms. */
	readonly stallTimeout: number
	/** Status of a rejection. */
	readonly statusCode: number
	/** Whether clients are told how long they waited. */
	readonly serverTiming: boolean
	/** Always `false`: only Redis knows what is left of the capacity of the fleet. */
	readonly rateLimitFields: boolean = false
	readonly #options: SharedSettings['functions']
	readonly #maxQueue: number
	readonly #maxWait: number
	readonly #figures: Figures
	readonly #semaphore: FleetSemaphore

	/** @internal */
	constructor(options: RedisLimiterOptions<never>) {
		checkOptions(options, REDIS_LIMITER_OPTIONS)
		const { lease = 10_000 } = options
		checkLease(lease)
		const { redisTimeout = Math.min(200, lease / 4) } = options
		const { client, whenUnavailable = 'local', localCapacity } = options
		checkClient(client)
		const settings = readSharedOptions(options as RedisLimiterOptions)
		const capacity = checkFleetCapacity('capacity', options.capacity)
		this.name = settings.name
		this.abandonedTimeout = settings.abandonedTimeout
		this.stallTimeout = settings.stallTimeout
		this.statusCode = settings.statusCode
		this.serverTiming = settings.serverTiming
		this.#maxQueue = settings.maxQueue
		this.#maxWait = settings.maxWait
		this.#options = settings.functions
		checkWhenUnavailable(whenUnavailable)
		if (localCapacity !== undefined) checkFleetCapacity('localCapacity', localCapacity)
		this.#figures = new Figures(this.name)
		this.#semaphore = new FleetSemaphore(this.#figures, {
			client,
			name: this.name,
			keyed: this.#options.key !== undefined,
			capacity,
			maxQueue: this.#maxQueue,
			lease,
			redisTimeout: checkRedisTimeout(redisTimeout, lease),
			whenUnavailable,
			localCapacity,
		})
	}

	/** Requests at work at once in the whole fleet. With `key`: for each key. */
	get capacity(): number {
		return this.#semaphore.fleet.capacity
	}

	/** Permits held by this process. */
	get active(): number {
		return this.#semaphore.active
	}

	/** Requests of this process that wait. */
	get queued(): number {
		return this.#semaphore.queued
	}

	/** Whether Redis answers. */
	get available(): boolean {
		return this.#semaphore.available
	}

	/**
	 * The figures of this process now, and those of the fleet as Redis last reported them, as a new
	 * plain object.
	 */
	stats(): RedisLimiterStats {
		const { capacity, processes, active, queued } = this.#semaphore.fleet
		return {
			name: this.name,
			capacity,
			active: this.active,
			queued: this.queued,
			keys: this.#semaphore.keys.size,
			available: this.available,
			fleet: { processes, active, queued },
			...this.#figures.counts(),
		}
	}

	/** @internal */
	[inspect](): Inspection {
		const { capacity } = this
		return {
			capacity: 'shared',
			keyed: this.#options.key !== undefined,
			maxQueue: this.#maxQueue,
			maxWait: this.#maxWait,
			order: 'fifo',
			priority: false,
			fair: false,
			dryRun: false,
			closed: this.#semaphore.closed,
			abandoned: this.#figures.leftBehind,
			reason: undefined,
			keys: () =>
				Array.from(this.#semaphore.keys.values(), ({ key, active, queued }) => ({
					key,
					capacity,
					active,
					queued,
				})),
		}
	}

	/**
	 * Calls an observer at each admission, release, rejection and resize in this process from now on,
	 * and when Redis becomes unavailable or is back.
	 *
	 * @returns a function that ends it.
	 * @throws TypeError - `observer` has none of an observer's functions, or something else in their
	 * place.
	 */
	observe(observer: Observer): () => void {
		return this.#figures.observe(observer)
	}

	/**
	 * Changes the capacity of the whole fleet: upwards, waiting requests are admitted at once;
	 * downwards, those at work finish first.
	 *
	 * @returns a promise that resolves when Redis has the new capacity. While Redis is unavailable,
	 * it resolves at once, and Redis gets the capacity when it is back.
	 * @throws TypeError, RangeError - `capacity` is not an integer from 1.
	 */
	resize(capacity: number): Promise<void> {
		checkFleetCapacity('capacity', capacity)
		return this.#semaphore.resize(capacity)
	}

	/**
	 * Takes a permit, after waiting for one if need be.
	 *
	 * @returns a promise of the permit. It rejects as that of a semaphore does, and with the reason
	 * `unavailable` as the option `whenUnavailable` says.
	 */
	async acquire(options: FleetAcquireOptions = {}): Promise<FleetPermit> {
		checkOptions(options, ACQUIRE_OPTIONS)
		checkSignal(options.signal)
		if (options.maxWait !== undefined) checkDuration('maxWait', options.maxWait)
		checkAcquireKey(options.key, this.#options.key !== undefined)
		const weight = options.weight === undefined ? 1 : checkWeight(options.weight, this.capacity)
		const maxWait = options.maxWait ?? this.#maxWait
		const admission = this.#admission(
			this.#semaphore.queueOf(options.key),
			weight,
			options.signal,
			maxWait,
		)
		return this.#counted(
			await (maxWait === Number.POSITIVE_INFINITY ? admission : awake(admission)),
		)
	}

	/**
	 * Runs `task` with a permit of the fleet, which is given back when the task is over, however it
	 * ends.
	 *
	 * @returns a promise of the task's result. It rejects as the task does, or as {@link acquire}
	 * does; a task whose `signal` was aborted before its turn is never run.
	 */
	async run<T>(
		task: (permit: FleetPermit) => T | PromiseLike<T>,
		options?: FleetAcquireOptions,
	): Promise<T> {
		if (typeof task !== 'function') throw wrongType('task', 'a function', task)
		const permit = await this.acquire(options)
		try {
			// The signal can be aborted after the permit was handed over and before this line runs.
			if (options?.signal?.aborted) throw options.signal.reason
			return await task(permit)
		} finally {
			permit.release()
		}
	}

	/**
	 * Rejects all requests that wait in this process and all that come, with `closed`. Those at work
	 * finish. It can't be undone.
	 */
	close(): void {
		this.#semaphore.close()
	}

	/**
	 * Resolves when nothing is at work and nothing waits in this process, and Redis has been informed
	 * (if it answers).
	 */
	onIdle(): Promise<void> {
		return this.#semaphore.onIdle()
	}

	/** @internal */
	[enter](request: object, signal: AbortSignalLike): Entrance {
		const options = this.#options
		if (signal.aborted) return this.#abortedBefore()
		if (options.skip !== undefined && checkSkip(options.skip(request))) return this.#skipped(signal)
		let key: string | undefined
		if (options.key !== undefined) {
			key = checkKey(options.key(request))
			if (key === undefined) return this.#skipped(signal)
		}
		const weight =
			options.weight === undefined ? 1 : checkWeight(options.weight(request), this.capacity)
		return { tag: 'waiting', settled: this.#settled(this.#semaphore.queueOf(key), weight, signal) }
	}

	/** One of the functions may have answered the request: then its handler must not run. */
	#skipped(signal: AbortSignalLike): Entrance {
		return signal.aborted ? this.#abortedBefore() : SKIPPED
	}

	/** A request that was over before it entered. */
	#abortedBefore(): Rejected {
		this.#figures.rejected('aborted', 0, undefined, this)
		const error = withoutStack(() =>
			this.#semaphore.rejection('aborted', this.#semaphore.queueOf(undefined)),
		)
		return { tag: 'rejected', error }
	}

	async #settled(
		queue: KeyQueue<Caller>,
		weight: number,
		signal: AbortSignalLike,
	): Promise<Stay | Rejected> {
		try {
			return this.#stay(await this.#admission(queue, weight, signal, this.#maxWait))
		} catch (error) {
			const rejected =
				error instanceof RejectedError
					? error
					: withoutStack(() => this.#semaphore.rejection('aborted', queue))
			return { tag: 'rejected', error: rejected }
		}
	}

	#stay(caller: Caller): Stay {
		const { abandon, leave } = this.#leaving(caller)
		const { waited, ahead } = caller
		let both: AbortSignal | undefined
		const signalWith = (client: AbortSignal): AbortSignal => {
			both ??= either(client, caller.signal)
			return both
		}
		return {
			tag: 'admitted',
			waited,
			queued: ahead,
			capacity: this.capacity,
			available: 0,
			signalWith,
			abandon,
			leave,
		}
	}

	/** A permit that is counted when it is given back. */
	#counted(caller: Caller): FleetPermit {
		const { leave } = this.#leaving(caller)
		caller.release = () => leave('ok')
		return caller
	}

	#leaving(caller: Caller): { abandon: () => void; leave: (outcome: Outcome) => void } {
		const { waited, queue } = caller
		this.#figures.admitted(waited, queue.key, this.#gauge(queue))
		const since = performance.now()
		let over = false
		let abandoned = false
		const abandon = (): void => {
			if (over || abandoned) return
			abandoned = true
			this.#figures.leftBehind++
		}
		const leave = (outcome: Outcome): void => {
			if (over) return
			over = true
			if (abandoned) this.#figures.leftBehind--
			this.#semaphore.giveBack(caller)
			this.#figures.released(
				waited,
				performance.now() - since,
				outcome,
				queue.key,
				this.#gauge(queue),
			)
		}
		return { abandon, leave }
	}

	#gauge(queue: KeyQueue<Caller>): { active: number; queued: number } {
		return queue.key === undefined ? this : queue
	}

	async #admission(
		queue: KeyQueue<Caller>,
		weight: number,
		signal: AbortSignalLike | undefined,
		maxWait: number,
	): Promise<Caller> {
		const since = performance.now()
		try {
			if (signal?.aborted) throw signal.reason
			const caller = await this.#semaphore.acquire(queue, weight, signal, maxWait)
			// The client can leave after the permit was handed over and before this line runs.
			if (signal !== undefined && hasAborted(signal)) {
				this.#semaphore.giveBack(caller)
				throw signal.reason
			}
			return caller
		} catch (error) {
			const reason = error instanceof RejectedError ? error.reason : 'aborted'
			this.#figures.rejected(reason, performance.now() - since, queue.key, this.#gauge(queue))
			throw error
		}
	}
}

function checkAcquireKey(key: unknown, required: boolean): void {
	if (required) {
		if (typeof key !== 'string') throw wrongType('key', 'a string', key)
	} else if (key !== undefined) {
		const message = 'key is for a limiter with the option key; this one has none'
		throw coded('ERR_INFLIGHT_MISSING_OPTION', new TypeError(message))
	}
}

/**
 * A limiter that a whole fleet of processes shares, through Redis or Valkey.
 *
 * ```ts
 * const renders = redisLimiter({ client, name: 'renders', capacity: 10 })
 * app.post('/render', limit(renders), render)
 * await renders.run(() => callPartner())
 * ```
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or
 * unknown.
 */
export function redisLimiter(options: RedisLimiterOptions<never>): RedisLimiter {
	return new RedisLimiter(options)
}
