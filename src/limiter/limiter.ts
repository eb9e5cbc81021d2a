import {
	type ControllerFactory,
	checkController,
	isControllerFactory,
} from '../adaptive/controller.js'
import { type EventLoopMonitor, type EventLoopStats, eventLoop } from '../adaptive/event-loop.js'
import {
	checkBoolean,
	checkCapacity,
	checkDeadline,
	checkDuration,
	checkFunction,
	checkKey,
	checkMaxQueue,
	checkName,
	checkSkip,
	checkStatusCode,
	readOptions,
	wrongType,
} from '../checks.js'
import { coded } from '../errors.js'
import { Scheduling } from '../queue/scheduling.js'
import { Pace } from '../semaphore/pace.js'
import type { Permit } from '../semaphore/permit.js'
import type { AbortSignalLike } from '../semaphore/signals.js'
import { type Counts, Figures } from '../stats/figures.js'
import type { Observer } from '../stats/observer.js'
import { DryRun } from './dry-run.js'
import { type Entrance, enter, type Gate, SKIPPED } from './gate.js'
import { type Inspection, inspect } from './inspection.js'
import { LIMITER_OPTIONS, type LimiterOptions } from './options.js'
import { type Common, Partition } from './partition.js'
import { acquireTask, runTask, type TaskOptions } from './tasks.js'

/**
 * The figures of a limiter at one moment: a plain object, fit for JSON. Counts are since its start.
 */
export interface LimiterStats extends Counts {
	name: string
	/**
	 * `null`: no bound. With `key`: for each key; with a controller, that of a new key; with a
	 * function, `null`.
	 */
	capacity: number | null
	/** Permits held now. */
	active: number
	/** Requests waiting now. */
	queued: number
	/** Keys with a request at work or waiting now; 0 without `key`. */
	keys: number
	/**
	 * Only with the option `dryRun`: all other figures say what the limiter would do, and no request
	 * waited or was rejected.
	 */
	dryRun?: true
	/** The state of the event loop; only with the option `eventLoop`. */
	eventLoop?: EventLoopStats
}

/**
 * The admission of requests: a partition, or one for each key, with bounds by default, and figures.
 *
 * Made once, it can be shared by several routes, apps and frameworks, with `limit(limiter)`, and by
 * tasks that are no requests, with `limiter.run(task, context)`.
 */
export class Limiter implements Gate {
	/** What it is called in figures. With `dryRun`, it ends with ` (dry run)`. */
	readonly name: string
	/** How long a handler may hold its permit after its client left, in ms. */
	readonly abandonedTimeout: number
	/** How long a client may take nothing of what waits for it, in ms. */
	readonly stallTimeout: number
	/** Status of a rejection. */
	readonly statusCode: number
	/** Whether clients are told how long they waited. */
	readonly serverTiming: boolean
	/** Whether clients are told the capacity, and what is left of it. */
	readonly rateLimitFields: boolean
	readonly #options: {
		[Name in 'key' | 'weight' | 'skip' | 'deadline']: LimiterOptions[Name] | undefined
	}
	readonly #common: Common
	/** How the capacity of each partition is found; `undefined` if it was given. */
	readonly #factory: ControllerFactory | undefined
	/** The capacity of each key, if each has its own. */
	readonly #capacityOf: ((key: string) => number) | undefined
	/** Tells whether the event loop is late; `undefined` without the option `eventLoop`. */
	readonly #loop: EventLoopMonitor | undefined
	/** Admits all requests, with the option `dryRun`. */
	readonly #dryRun: DryRun | undefined
	/** Without `key`, the only partition. */
	readonly #partition: Partition
	/** With `key`, the partitions in which a request is at work or waits. */
	readonly #partitions: Map<string, Partition> = new Map()
	/** The capacity that was given, or the one that a controller begins with. */
	#capacity: number
	#closed = false

	/**
	 * @param options - the capacity, or an object with it.
	 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or
	 * unknown.
	 */
	constructor(options: number | ControllerFactory | LimiterOptions) {
		const alone = typeof options !== 'object' || isControllerFactory(options)
		const given = readOptions(alone ? { capacity: options } : options, LIMITER_OPTIONS)
		// A limiter must not be taken for options: its public properties would be used, and its `key`
		// and other private options would be lost.
		if (typeof options === 'object' && enter in options)
			throw wrongType(
				'options',
				'a capacity or an object of options',
				options,
				'share it by limit(limiter)',
			)
		const {
			maxQueue = 1000,
			maxWait = 10_000,
			abandonedTimeout = 30_000,
			stallTimeout = 60_000,
		} = given
		const { statusCode = given.key === undefined ? 503 : 429, name = 'default' } = given
		const { serverTiming = false, rateLimitFields = false, dryRun = false } = given
		const { capacity } = given
		this.#factory = isControllerFactory(capacity) ? capacity : undefined
		this.#capacityOf = typeof capacity === 'function' ? capacity : undefined
		if (this.#capacityOf !== undefined && given.key === undefined) throw needsKey(capacity)
		const controller = this.#factory && checkController(this.#factory)
		this.#capacity = this.#capacityOf
			? Number.POSITIVE_INFINITY
			: (controller?.initial ?? checkCapacity(capacity, 1))
		this.#dryRun = checkBoolean('dryRun', dryRun) ? new DryRun() : undefined
		if (dryRun && controller !== undefined) throw notFound(capacity)
		const { eventLoop: byLoop = controller?.eventLoop ?? false } = given
		this.#loop = checkBoolean('eventLoop', byLoop) ? eventLoop : undefined
		checkMaxQueue(maxQueue)
		checkDuration('maxWait', maxWait)
		this.abandonedTimeout = checkDuration('abandonedTimeout', abandonedTimeout)
		checkDuration('stallTimeout', stallTimeout)
		this.stallTimeout = dryRun ? Number.POSITIVE_INFINITY : stallTimeout
		this.name = dryRun ? `${checkName(name)} (dry run)` : checkName(name)
		this.#options = {
			key: checkFunction('key', given.key),
			weight: checkFunction('weight', given.weight),
			skip: checkFunction('skip', given.skip),
			deadline: checkFunction('deadline', given.deadline),
		}
		this.statusCode = checkStatusCode(statusCode)
		this.serverTiming = checkBoolean('serverTiming', serverTiming) && !dryRun
		this.rateLimitFields = checkBoolean('rateLimitFields', rateLimitFields) && !dryRun
		const scheduling = new Scheduling(given)
		this.#common = {
			maxQueue,
			maxWait,
			scheduling: scheduling.plain ? undefined : scheduling,
			shortQueue: controller !== undefined && given.maxQueue === undefined,
			figures: new Figures(this.name),
			pace: new Pace(),
			dryRun,
			forget: (partition) => this.#forget(partition),
		}
		this.#partition = new Partition(this.#common, undefined, controller ?? this.#capacity)
	}

	/**
	 * Requests at work at once. With `key`: for each key; with a controller, that of a new key; with
	 * a function, `Infinity`.
	 */
	get capacity(): number {
		return this.#options.key === undefined ? this.#partition.capacity : this.#capacity
	}

	/** Permits held now. */
	get active(): number {
		let active = this.#partition.active
		for (const partition of this.#partitions.values()) active += partition.active
		return active
	}

	/** Requests waiting now. */
	get queued(): number {
		let queued = this.#partition.queued
		for (const partition of this.#partitions.values()) queued += partition.queued
		return queued
	}

	/**
	 * Whether any limiter of this process rejected a request in the last second because the event
	 * loop was late. Use it in the route that tells a load balancer whether to send more requests.
	 * Always `false` without the option `eventLoop`.
	 */
	get overloaded(): boolean {
		return this.#loop?.overloaded === true
	}

	/** The figures now, as a new plain object. */
	stats(): LimiterStats {
		const { capacity } = this
		return {
			name: this.name,
			capacity: capacity === Number.POSITIVE_INFINITY ? null : capacity,
			active: this.active,
			queued: this.queued,
			keys: this.#partitions.size,
			...(this.#dryRun && { dryRun: true }),
			...(this.#loop && { eventLoop: this.#loop.stats() }),
			...this.#common.figures.counts(),
		}
	}

	/**
	 * Changes the capacity: upwards, waiting requests are admitted at once; downwards, those at work
	 * finish first.
	 *
	 * @throws TypeError, RangeError - `capacity` is not an integer from 1, or Infinity.
	 * @throws Error - the capacity is found by a controller, or is a function of the key.
	 */
	resize(capacity: number): void
	/**
	 * Changes the capacity of one key at once, if `capacity` is a function of the key: for the
	 * requests that wait. At the next request of the key, what the function returns is valid again;
	 * so let it return the new capacity before. For a key that has nothing at work and nothing
	 * waiting, it does nothing.
	 *
	 * @throws TypeError, RangeError - `key` is no key, or `capacity` is not an integer from 1, or
	 * Infinity.
	 * @throws Error - the capacity is no function of the key.
	 */
	resize(key: string | number | bigint, capacity: number): void
	resize(first: string | number | bigint, second?: number): void {
		if (second === undefined) this.#resizeAll(first)
		else this.#resizeKey(first, second)
	}

	#resizeAll(given: unknown): void {
		if (this.#factory !== undefined || this.#capacityOf !== undefined) {
			throw fixed(this.#factory === undefined ? 'a function of the key' : 'found by a controller')
		}
		const capacity = checkCapacity(given, 1)
		this.#capacity = capacity
		this.#partition.resize(capacity)
		for (const partition of this.#partitions.values()) partition.resize(capacity)
		this.#common.figures.resized(capacity)
	}

	#resizeKey(key: unknown, given: unknown): void {
		if (this.#capacityOf === undefined) throw fixed('no function of the key')
		if (!['string', 'number', 'bigint'].includes(typeof key)) {
			throw wrongType('key', 'a string, a number or a bigint', key)
		}
		const capacity = checkCapacity(given, 1)
		const partition = this.#partitions.get(String(key))
		if (partition !== undefined) this.#resizeOne(partition, capacity)
	}

	#resizeOne(partition: Partition, capacity: number): void {
		if (capacity === partition.capacity) return
		partition.resize(capacity)
		this.#common.figures.resized(capacity, partition.key)
	}

	/**
	 * Tells an observer of each admission, release, rejection and resize from now on.
	 *
	 * @returns a function that ends it.
	 * @throws TypeError - `observer` has none of an observer's functions, or something else in their
	 * place.
	 */
	observe(observer: Observer): () => void {
		return this.#common.figures.observe(observer)
	}

	/**
	 * Rejects all requests that wait and all that come, with `closed`. Those at work finish. It can't
	 * be undone.
	 */
	close(): void {
		this.#closed = true
		this.#partition.close()
		for (const partition of this.#partitions.values()) partition.close()
	}

	/** Resolves when nothing is at work and nothing waits: at once if so now. */
	async onIdle(): Promise<void> {
		if (this.#dryRun !== undefined) return this.#dryRun.onIdle()
		await this.#partition.onIdle()
		while (this.#partitions.size > 0) {
			await Promise.all(Array.from(this.#partitions.values(), (partition) => partition.onIdle()))
		}
	}

	/**
	 * Takes a permit for something that is no request, after waiting for it if need be. It is treated
	 * as a request of this context: by its key, weight, priority, flow and deadline.
	 *
	 * @param context - what the functions of the options are given.
	 * @returns a promise of the permit. If `skip` or `key` exempts the context, the permit is not
	 * counted. It rejects with a `RejectedError`, with the reason of `signal`, or with what the
	 * functions of the options throw.
	 */
	acquire(context: object = {}, options: TaskOptions = {}): Promise<Permit> {
		return acquireTask(this, context, options)
	}

	/**
	 * Runs `task` with a permit, which is given back when the task is over, however it ends. A task
	 * that throws counts as a request that was answered with a status of 500.
	 *
	 * @param context - what the functions of the options are given.
	 * @returns a promise of the task's result. It rejects as the task does, or as {@link acquire}
	 * does; a task whose `signal` was aborted before its turn is never run.
	 */
	run<T>(
		task: (permit: Permit) => T | PromiseLike<T>,
		context: object = {},
		options: TaskOptions = {},
	): Promise<T> {
		return runTask(this, task, context, options)
	}

	/** @internal */
	[enter](request: object, signal: AbortSignalLike): Entrance {
		const { skip, key: keyOf, weight: weightOf, deadline } = this.#options
		if (signal.aborted) return this.#partition.reject('aborted', 1)
		let partition = this.#partition
		if (skip !== undefined && checkSkip(skip(request))) return this.#skipped(signal)
		if (keyOf !== undefined) {
			const key = checkKey(keyOf(request))
			if (key === undefined) return this.#skipped(signal)
			partition = this.#partitionOf(key)
		}
		const weight = weightOf === undefined ? 1 : partition.checkWeight(weightOf(request))
		if (!this.#closed && this.#loop?.isLate(request)) {
			const rejected = partition.reject('overloaded', weight)
			return this.#dryRun?.admit() ?? rejected
		}
		const rank = this.#common.scheduling?.rank(request, weight)
		const left =
			deadline === undefined
				? Number.POSITIVE_INFINITY
				: checkDeadline(deadline(request)) - Date.now()
		// One of the functions may have ended the request.
		if (signal.aborted) return partition.reject('aborted', weight)
		// Before it enters, as observers can call this limiter. And one of the functions above can have
		// made another partition of this key.
		const { key } = partition
		if (key !== undefined) {
			partition = this.#partitions.get(key) ?? partition
			this.#partitions.set(key, partition)
			if (this.#closed) partition.close()
		}
		const entrance =
			this.#dryRun?.enter(partition, weight, rank, left) ??
			partition.enter(weight, rank, left, signal)
		if (key !== undefined && partition.idle) this.#forget(partition)
		return entrance
	}

	/** One of the functions may have answered the request: then its handler must not run. */
	#skipped(signal: AbortSignalLike): Entrance {
		return signal.aborted ? this.#partition.reject('aborted', 1) : SKIPPED
	}

	/** A later partition can have the same key. */
	#forget(partition: Partition): void {
		const key = partition.key as string
		if (this.#partitions.get(key) === partition) this.#partitions.delete(key)
	}

	/** @internal */
	[inspect](): Inspection {
		const { maxWait, scheduling, figures } = this.#common
		const found = this.#factory === undefined ? 'given' : 'found'
		return {
			capacity: this.#capacityOf === undefined ? found : 'by key',
			keyed: this.#options.key !== undefined,
			maxQueue: this.#partition.maxQueue,
			maxWait,
			order: scheduling?.order ?? 'fifo',
			priority: scheduling?.priority ?? false,
			fair: scheduling?.fair ?? false,
			dryRun: this.#dryRun !== undefined,
			closed: this.#closed,
			abandoned: figures.leftBehind,
			reason: this.#partition.reason,
			keys: () => this.#partitions.values(),
		}
	}

	#partitionOf(key: string): Partition {
		const given =
			this.#capacityOf === undefined
				? this.#capacity
				: checkCapacity(this.#capacityOf(key), 1, 'what capacity returns')
		const known = this.#partitions.get(key)
		if (known !== undefined) {
			if (this.#capacityOf !== undefined) this.#resizeOne(known, given)
			return known
		}
		const partition = new Partition(
			this.#common,
			key,
			this.#factory === undefined ? given : checkController(this.#factory),
		)
		return partition
	}
}

function fixed(how: string): Error {
	const message = `resize must not be called: the capacity is ${how}`
	return coded('ERR_INFLIGHT_CAPACITY_FOUND', new Error(message))
}

function notFound(capacity: unknown): Error {
	const remedy = 'what a controller finds depends on what it lets through'
	return wrongType(
		'capacity with dryRun',
		'an integer from 1, Infinity, or a function of the key',
		capacity,
		remedy,
	)
}

function needsKey(capacity: unknown): Error {
	const remedy =
		'a controller is what a call returns, as in capacity: adaptive(); a function of the key needs the option key'
	return wrongType('capacity', 'an integer from 1, Infinity, or a controller', capacity, remedy)
}
