import {
	checkCapacity,
	checkDuration,
	checkMaxQueue,
	checkOptions,
	checkSignal,
	checkWeight,
	wrongType,
} from '../checks.js'
import { now } from './clock.js'
import { Pace } from './pace.js'
import type { Permit } from './permit.js'
import { Permits, Waiter } from './permits.js'
import type { AbortSignalLike } from './signals.js'
import { WaitQueue } from './wait-queue.js'

export interface SemaphoreOptions {
	/**
	 * How many callers may wait: an integer from 0. More are rejected with `queue-full`. Default:
	 * `Infinity`.
	 */
	maxQueue?: number | undefined
	/**
	 * The longest wait, in ms, from 0 to 2^31 - 1. Then the caller is rejected with `timeout`.
	 * Default: `Infinity`.
	 */
	maxWait?: number | undefined
}

export interface TryAcquireOptions {
	/**
	 * How many permits to take at once: an integer from 1 to the capacity, or to 2^40 where that is
	 * `Infinity`. Default: `1`.
	 */
	weight?: number | undefined
}

export interface AcquireOptions extends TryAcquireOptions {
	/** Ends the wait when it is aborted; the caller then gets no permit. Default: none. */
	signal?: AbortSignalLike | undefined
	/**
	 * The longest wait of this caller, in ms, from 0 to 2^31 - 1, or `Infinity`: no bound. A wait
	 * with a bound keeps the process alive until it ends; one without does not. Default: that of the
	 * semaphore.
	 */
	maxWait?: number | undefined
}

const SEMAPHORE_OPTIONS = ['maxQueue', 'maxWait']
const ACQUIRE_OPTIONS = ['weight', 'signal', 'maxWait']

/**
 * Limits how many tasks are at work at once: `capacity` permits, given first come, first served.
 *
 * ```ts
 * const connections = new Semaphore(3)
 * await Promise.all(urls.map((url) => connections.run(async () => (await fetch(url)).text())))
 * ```
 *
 * Every operation is O(1), also when a caller leaves from the middle of the queue.
 */
export class Semaphore {
	readonly #permits: Permits<Waiter>
	readonly #maxQueue: number
	readonly #maxWait: number

	/**
	 * @param capacity - Permits there are: an integer from 0 (no caller is admitted until `resize`),
	 * or `Infinity`.
	 * @throws TypeError, RangeError - an option is of the wrong type, out of range, or unknown.
	 */
	constructor(capacity: number, options: SemaphoreOptions = {}) {
		checkOptions(options, SEMAPHORE_OPTIONS)
		const { maxQueue = Number.POSITIVE_INFINITY, maxWait = Number.POSITIVE_INFINITY } = options
		this.#permits = new Permits(checkCapacity(capacity, 0), new WaitQueue<Waiter>(), new Pace())
		this.#maxQueue = checkMaxQueue(maxQueue)
		this.#maxWait = checkDuration('maxWait', maxWait)
	}

	/** Permits there are. */
	get capacity(): number {
		return this.#permits.capacity
	}

	/**
	 * Permits held. Above `capacity` only after a `resize` downwards or a `weigh` upwards, until
	 * holders finish.
	 */
	get active(): number {
		return this.#permits.active
	}

	/** Callers waiting. */
	get queued(): number {
		return this.#permits.queued
	}

	/** Permits free: `capacity - active`, never below 0. */
	get available(): number {
		return this.#permits.available
	}

	/**
	 * Takes a permit if there is room and no caller waits. It never waits.
	 *
	 * @returns the permit; `undefined` if there is no room, a caller waits, or the semaphore is
	 * closed.
	 * @throws TypeError, RangeError - an option is of the wrong type, out of range, or unknown.
	 */
	tryAcquire(options?: TryAcquireOptions): Permit | undefined {
		return this.#permits.tryAcquire(options === undefined ? 1 : this.#checked(options))
	}

	/**
	 * Takes a permit, after waiting for one if need be.
	 *
	 * @returns a promise of the permit. It rejects with a {@link RejectedError} when the queue is
	 * full, the longest wait has passed or the semaphore is closed; with the reason of `signal` when
	 * that is aborted (a permit is then never taken); with a `TypeError` or `RangeError` for an
	 * option of the wrong type, out of range, or unknown.
	 */
	acquire(options?: AcquireOptions): Promise<Permit> {
		try {
			const weight = options === undefined ? 1 : this.#checked(options)
			const signal = options?.signal
			if (signal?.aborted) return Promise.reject(signal.reason)
			const permit = this.#permits.tryAcquire(weight)
			return permit === undefined ? this.#wait(weight, options) : Promise.resolve(permit)
		} catch (error) {
			return Promise.reject(error)
		}
	}

	/**
	 * Runs `task` with a permit, which is given back when the task has ended, also if it throws.
	 *
	 * @returns a promise of the task's result. It rejects as the task does, or as {@link acquire}
	 * does; a task whose `signal` was aborted before its turn is never run.
	 */
	async run<T>(task: (permit: Permit) => T | PromiseLike<T>, options?: AcquireOptions): Promise<T> {
		if (typeof task !== 'function') throw wrongType('task', 'a function', task)
		const permit =
			(options?.signal?.aborted ? undefined : this.tryAcquire(options)) ??
			(await this.acquire(options))
		try {
			// The signal can be aborted after the permit was handed over and before this line runs.
			if (options?.signal?.aborted) throw options.signal.reason
			return await task(permit)
		} finally {
			permit.release()
		}
	}

	/**
	 * Changes the capacity. Upwards, waiters are admitted at once; downwards, holders finish first. A
	 * waiter that is too heavy for the new capacity is admitted when nothing else is at work.
	 *
	 * @throws TypeError, RangeError - `capacity` is not an integer from 0, or Infinity.
	 */
	resize(capacity: number): void {
		this.#permits.resize(checkCapacity(capacity, 0))
	}

	/** Rejects all waiters and newcomers with `closed`. Holders finish. It can't be undone. */
	close(): void {
		this.#permits.close()
	}

	/** Resolves when no permit is held and no caller waits: at once if that is so now. */
	onIdle(): Promise<void> {
		return this.#permits.onIdle()
	}

	/** Checks the options, and returns the weight. */
	#checked(options: AcquireOptions): number {
		checkOptions(options, ACQUIRE_OPTIONS)
		checkSignal(options.signal)
		if (options.maxWait !== undefined) checkDuration('maxWait', options.maxWait)
		return options.weight === undefined ? 1 : checkWeight(options.weight, this.#permits.capacity)
	}

	#wait(weight: number, options: AcquireOptions | undefined): Promise<Permit> {
		const permits = this.#permits
		if (permits.closed) throw permits.rejection('closed', weight)
		const time = now()
		permits.noteFull(time)
		if (permits.queued >= this.#maxQueue) throw permits.rejection('queue-full', weight)
		const maxWait = options?.maxWait ?? this.#maxWait
		if (maxWait === 0) throw permits.rejection('timeout', weight)
		return permits.wait(new Waiter(permits, weight, time), maxWait, options?.signal)
	}
}
