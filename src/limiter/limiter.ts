import {
	type Controller,
	type ControllerFactory,
	checkController,
	checkFound,
} from '../adaptive/controller.js'
import {
	checkBoolean,
	checkCapacity,
	checkDeadline,
	checkDuration,
	checkFunction,
	checkKey,
	checkMaxQueue,
	checkName,
	checkOptions,
	checkSkip,
	checkStatusCode,
	checkWeight,
	LONGEST_TIMER,
} from '../checks.js'
import { inWords, RejectedError, withoutStack } from '../errors.js'
import { type Rank, RankedWaiter } from '../queue/group.js'
import type { Order } from '../queue/line.js'
import type { ScheduledQueue } from '../queue/scheduled-queue.js'
import { Scheduling } from '../queue/scheduling.js'
import * as clock from '../semaphore/clock.js'
import { Pace } from '../semaphore/pace.js'
import { type AbortSignalLike, type Permit, Permits, Waiter } from '../semaphore/permits.js'
import { WaitQueue } from '../semaphore/wait-queue.js'
import { type Counts, Figures } from '../stats/figures.js'
import type { Observer, Outcome } from '../stats/observer.js'
import { type Entrance, enter, type Gate, type Rejected, SKIPPED, type Stay } from './gate.js'

/** Who may enter a {@link Limiter}, and how. In Express the functions are given `req`, in Koa `ctx`. */
export interface LimiterOptions<Request = object> {
	/**
	 * Requests at work at once: an integer from 1, or `Infinity` to only measure; or a controller that finds it, like
	 * `adaptive()` of `inflight-limit/adaptive`. With `key`: for each key.
	 */
	capacity: number | ControllerFactory
	/**
	 * Requests that may wait: an integer from 0 (none waits), or `Infinity`. With `key`: for each key. If a controller finds
	 * the capacity, a quarter of it unless given; with `order`, `priority` or `fairBy`, as many as it, and at least 20.
	 * Default: `1000`.
	 */
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
	 * Who goes first of those with the same rights: `'fifo'`, who came first; `'lifo'`, who came last; `'adaptive'`, who
	 * came first while the queue empties now and then, and once it has not been empty for 100 ms, who came last, while
	 * those who have waited longer than 5 ms leave with each newcomer (`timeout`). Where permits come back more slowly than one
	 * in 5 ms, both times grow in proportion. Where the last goes first, a full queue evicts the oldest (`evicted`).
	 * Default: `'fifo'`.
	 */
	order?: Order | undefined
	/**
	 * Who goes before whom: any number but `NaN`, higher first. A full queue evicts the last of the lowest for a higher
	 * one. Default: none.
	 */
	priority?(request: Request): number
	/**
	 * With `priority`: the share of the turns, from 0 to 0.5, that lower priorities get, each of them in turn, while
	 * higher ones wait; and of the places in a full queue. 0: they may wait in vain. Default: `0`.
	 */
	lowerShare?: number | undefined
	/**
	 * Between whom the capacity is divided (user, tenant): each gets an equal share, or less if it wants less. A full
	 * queue evicts the last of whoever has most waiting. Default: none.
	 */
	fairBy?(request: Request): string
	/**
	 * When the answer is of no use any more, in ms since 1970; `undefined`: always of use. A request that can't be done by then,
	 * judged by the pace of its queue, is refused at once, and one whose deadline passes while it waits leaves the queue
	 * (`timeout`). Default: none.
	 */
	deadline?(request: Request): number | undefined
	/**
	 * How long a handler may go on holding its permit after its client left, in ms, from 0 (not at all) to 2^31 - 1;
	 * `Infinity`: no bound. Default: `30_000`.
	 */
	abandonedTimeout?: number | undefined
	/**
	 * How long a client may take nothing of what waits for it before its connection is cut off, in ms, from 0 to 2^31 - 1;
	 * `Infinity`: never. A request that has given its permit back is not cut off. Default: `60_000`.
	 */
	stallTimeout?: number | undefined
	/** Status of a refusal: an integer from 400 to 599. Default: `503`; `429` with `key`. */
	statusCode?: number | undefined
	/** Tell clients how long they waited, by `Server-Timing: queue;dur=…` (ms). Default: `false`. */
	serverTiming?: boolean | undefined
	/**
	 * Tell clients the capacity, and what is left of it, by `RateLimit-Policy` and `RateLimit`. With `key`: of their own key.
	 * Default: `false`.
	 */
	rateLimitFields?: boolean | undefined
	/** What the limiter is called in figures: 1 to 64 printable ASCII characters. Default: `'default'`. */
	name?: string | undefined
}

/** The figures of a limiter at one moment: a plain object, fit for JSON. Counts are since its start. */
export interface LimiterStats extends Counts {
	name: string
	/** `null`: no bound. With `key`: for each key; when each finds its own, that of a new one. */
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
	'order',
	'priority',
	'lowerShare',
	'fairBy',
	'deadline',
	'abandonedTimeout',
	'stallTimeout',
	'statusCode',
	'serverTiming',
	'rateLimitFields',
	'name',
]

const WARNING = { type: 'InflightLimitWarning', code: 'INFLIGHT_CONTROLLER' }

/** What a limiter keeps whose capacity is found by controllers. */
interface Finding {
	readonly factory: ControllerFactory
	/** One for each semaphore. */
	readonly controllers: WeakMap<Permits<Waiter>, Controller>
	/** The heaviest that a request may be. */
	readonly heaviest: number
	/** How many may wait was not given. */
	readonly shortQueue: boolean
}

/** How a request stands in a queue that asks for it. */
interface Standing {
	readonly queue: ScheduledQueue<RankedWaiter>
	readonly rank: Rank
}

/**
 * The admission of requests: a semaphore, or one for each key, with bounds by default and figures.
 *
 * Made once, it can be shared by several routes, apps and frameworks: `limit(limiter)`.
 */
export class Limiter implements Gate {
	/** What it is called in figures. */
	readonly name: string
	/** How long a handler may go on holding its permit after its client left, in ms. */
	readonly abandonedTimeout: number
	/** How long a client may take nothing of what waits for it, in ms. */
	readonly stallTimeout: number
	/** Status of a refusal. */
	readonly statusCode: number
	/** Whether clients are told how long they waited. */
	readonly serverTiming: boolean
	/** Whether clients are told the capacity, and what is left of it. */
	readonly rateLimitFields: boolean
	readonly #options: { [Name in 'key' | 'weight' | 'skip' | 'deadline']: LimiterOptions[Name] | undefined }
	/** `undefined`: first come, first served. */
	readonly #scheduling: Scheduling | undefined
	readonly #bounds: { maxQueue: number; maxWait: number }
	readonly #pace = new Pace()
	/** Without `key`, the only one. */
	readonly #semaphore: Permits<Waiter>
	readonly #paces = new WeakMap<Permits<Waiter>, Pace>()
	/** With `key`, those of the keys that have a request at work or waiting. */
	readonly #keys = new Map<string, Permits<Waiter>>()
	readonly #figures: Figures
	/** How the capacity is found; `undefined` if it was given as a number. */
	readonly #finding: Finding | undefined
	/** What was given, or what a controller begins with. */
	#capacity: number
	#closed = false
	/** A failing controller is reported once. */
	#warned = false

	/**
	 * @param options - the capacity, or an object with it.
	 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or unknown.
	 */
	constructor(options: number | ControllerFactory | LimiterOptions) {
		const given = typeof options === 'object' ? options : { capacity: options }
		checkOptions(given, LIMITER_OPTIONS)
		// Its readable members pass for options; its `key` and what else it hides would be lost.
		if (enter in given)
			throw new TypeError('options must be a capacity or an object of options; got a Limiter')
		const { maxQueue = 1000, maxWait = 30_000, abandonedTimeout = 30_000, name = 'default' } = given
		let controller: Controller | undefined
		if (typeof given.capacity === 'function') {
			controller = checkController(given.capacity)
			this.#capacity = controller.initial
			this.#finding = {
				factory: given.capacity,
				controllers: new WeakMap(),
				heaviest: controller.max ?? Number.POSITIVE_INFINITY,
				shortQueue: given.maxQueue === undefined,
			}
		} else {
			this.#capacity = checkCapacity(given.capacity, 1)
		}
		this.#bounds = { maxQueue: checkMaxQueue(maxQueue), maxWait: checkDuration('maxWait', maxWait) }
		this.abandonedTimeout = checkDuration('abandonedTimeout', abandonedTimeout)
		this.stallTimeout = checkDuration('stallTimeout', given.stallTimeout ?? 60_000)
		this.name = checkName(name)
		this.#figures = new Figures(name)
		checkFunction('key', given.key)
		checkFunction('weight', given.weight)
		checkFunction('skip', given.skip)
		this.statusCode = checkStatusCode(given.statusCode ?? (given.key === undefined ? 503 : 429))
		this.serverTiming = checkBoolean('serverTiming', given.serverTiming ?? false)
		this.rateLimitFields = checkBoolean('rateLimitFields', given.rateLimitFields ?? false)
		checkFunction('deadline', given.deadline)
		this.#options = { key: given.key, weight: given.weight, skip: given.skip, deadline: given.deadline }
		const scheduling = new Scheduling(given)
		this.#scheduling = scheduling.plain ? undefined : scheduling
		this.#semaphore = this.#newSemaphore(controller)
	}

	/** Requests at work at once. With `key`: for each key; when each finds its own, that of a new one. */
	get capacity(): number {
		return this.#options.key === undefined ? this.#semaphore.capacity : this.#capacity
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
		const { capacity } = this
		return {
			name: this.name,
			capacity: capacity === Number.POSITIVE_INFINITY ? null : capacity,
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
	 * @throws Error - a controller finds the capacity.
	 */
	resize(capacity: number): void {
		if (this.#finding !== undefined) throw new Error('resize: the capacity is found by a controller')
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

	/** @internal */
	[enter](request: object, signal: AbortSignalLike): Entrance {
		const options = this.#options
		if (signal.aborted) return this.#aborted(undefined, this.#semaphore)
		if (options.skip !== undefined && checkSkip(options.skip(request))) return SKIPPED
		let key: string | undefined
		let semaphore = this.#semaphore
		if (options.key !== undefined) {
			key = options.key(request)
			if (key === undefined) return SKIPPED
			semaphore = this.#keys.get(checkKey(key)) ?? this.#newSemaphore()
		}
		const weight = options.weight === undefined ? 1 : this.#weigh(options.weight(request), semaphore)
		if (this.#finding?.controllers.get(semaphore)?.refuses?.(request) && !this.#closed) {
			const error = withoutStack(() => semaphore.rejection('queue-full', weight))
			this.#figures.rejected('queue-full', 0, key, semaphore)
			return { tag: 'rejected', error }
		}
		const standing = this.#standingOf(request, semaphore, weight)
		const left = options.deadline === undefined ? Number.POSITIVE_INFINITY : this.#timeLeft(request)
		// One of the functions may have ended the request.
		if (signal.aborted) return this.#aborted(key, semaphore)

		if (left > 0) {
			const permit = semaphore.tryAcquire(weight)
			if (permit !== undefined) {
				if (key !== undefined) this.#keys.set(key, semaphore)
				standing?.queue.hold(standing.rank)
				return this.#admit(permit, 0, semaphore, key, standing)
			}
		}
		const now = clock.now()
		const error = withoutStack(() => this.#refusal(semaphore, standing, { weight, left, now }))
		if (error === undefined) {
			return { tag: 'waiting', settled: this.#wait(semaphore, key, standing, { weight, left, now, signal }) }
		}
		this.#figures.rejected(error.reason, 0, key, semaphore)
		return { tag: 'rejected', error }
	}

	#aborted(key: string | undefined, semaphore: Permits<Waiter>): Rejected {
		this.#figures.rejected('aborted', 0, key, semaphore)
		return { tag: 'rejected', error: withoutStack(() => semaphore.rejection('aborted', 1)) }
	}

	#standingOf(request: object, semaphore: Permits<Waiter>, weight: number): Standing | undefined {
		if (this.#scheduling === undefined) return undefined
		// It is the one that it was made with.
		const queue = semaphore.queue as unknown as ScheduledQueue<RankedWaiter>
		return { queue, rank: this.#scheduling.rank(request, weight) }
	}

	/** The time until the answer is of no use any more, in ms. */
	#timeLeft(request: object): number {
		return checkDeadline(this.#options.deadline?.(request)) - Date.now()
	}

	/** Why a request that got no permit may not wait for one either; `undefined`: it may. */
	#refusal(
		semaphore: Permits<Waiter>,
		standing: Standing | undefined,
		{ weight, left, now }: { weight: number; left: number; now: number },
	): RejectedError | undefined {
		if (this.#closed) return semaphore.rejection('closed', weight)
		if (left <= 0) return semaphore.rejection('timeout', weight)
		if (left !== Number.POSITIVE_INFINITY) {
			const ahead = standing?.queue.ahead(standing.rank) ?? semaphore.wanted
			if (left <= this.#forecast(semaphore, ahead + weight, now))
				return semaphore.rejection('timeout', weight)
		}
		// Who takes the place of another makes the queue no longer, even where it has become too long, as the capacity shrank.
		const takesPlace = standing !== undefined && this.#makeWay(semaphore, standing, now)
		if (!takesPlace && semaphore.queued >= this.#roomToWait(semaphore)) {
			return semaphore.rejection('queue-full', weight)
		}
		semaphore.noteFull(now)
		if (semaphore.queued >= this.#bounds.maxQueue) return semaphore.rejection('queue-full', weight)
		return this.#bounds.maxWait === 0 ? semaphore.rejection('timeout', weight) : undefined
	}

	/** In how many ms a request is done that goes once `wanted` permits are given, its own included; 0 with nothing measured. */
	#forecast(semaphore: Permits<Waiter>, wanted: number, now: number): number {
		const pace = this.#paces.get(semaphore) as Pace
		semaphore.noteFull(now)
		pace.update(now)
		// As many permits as are held come back while it is at work itself.
		return pace.timeFor(wanted + semaphore.active)
	}

	/**
	 * Sends away those who have waited too long and, if the queue is full, one who has less right to wait.
	 *
	 * @returns whether there was such a one.
	 */
	#makeWay(semaphore: Permits<Waiter>, { queue, rank }: Standing, now: number): boolean {
		let waiter = queue.overstayed(rank, now)
		while (waiter !== undefined) {
			semaphore.reject(waiter, semaphore.rejection('timeout', waiter.weight))
			waiter = queue.overstayed(rank, now)
		}
		if (queue.size < Math.min(this.#bounds.maxQueue, this.#roomToWait(semaphore))) return false
		waiter = queue.lessEntitled(rank, now)
		if (waiter !== undefined) semaphore.reject(waiter, semaphore.rejection('evicted', waiter.weight))
		return waiter !== undefined
	}

	async #wait(
		semaphore: Permits<Waiter>,
		key: string | undefined,
		standing: Standing | undefined,
		{ weight, left, now, signal }: { weight: number; left: number; now: number; signal: AbortSignalLike },
	): Promise<Stay | Rejected> {
		const { queued } = semaphore
		const longest = Math.min(this.#bounds.maxWait, left)
		const maxWait = longest > LONGEST_TIMER ? Number.POSITIVE_INFINITY : longest
		let error: unknown
		try {
			const waiter =
				standing === undefined
					? new Waiter(semaphore, weight, now)
					: new RankedWaiter(semaphore, standing.rank, now)
			const permit = await semaphore.wait(waiter, maxWait, signal)
			// The request can be over after the permit was handed to it and before this line runs.
			if (!signal.aborted) return this.#admit(permit, queued, semaphore, key, standing)
			this.#giveBack(permit, semaphore, key, standing)
		} catch (caught) {
			error = caught
		}
		if (!(error instanceof RejectedError)) error = withoutStack(() => semaphore.rejection('aborted', weight))
		const rejected: Rejected = { tag: 'rejected', error: error as RejectedError }
		this.#figures.rejected(rejected.error.reason, clock.now() - now, key, semaphore)
		this.#forget(key, semaphore)
		return rejected
	}

	#admit(
		permit: Permit,
		queued: number,
		semaphore: Permits<Waiter>,
		key: string | undefined,
		standing: Standing | undefined,
	): Stay {
		const { waited } = permit
		const { available } = semaphore
		this.#figures.admitted(waited, key, semaphore)
		const since = performance.now()
		let over = false
		const leave = (outcome: Outcome): void => {
			if (over) return
			over = true
			if (this.#finding !== undefined) this.#adapt(semaphore, key, since, outcome)
			this.#giveBack(permit, semaphore, key, standing)
			this.#figures.released(waited, performance.now() - since, outcome, key, semaphore)
		}
		return { tag: 'admitted', waited, queued, available, leave }
	}

	#giveBack(
		permit: Permit,
		semaphore: Permits<Waiter>,
		key: string | undefined,
		standing: Standing | undefined,
	): void {
		// First, as who is next depends on it.
		standing?.queue.release(standing.rank)
		permit.release()
		this.#forget(key, semaphore)
	}

	/** Nothing is kept of a key whose last request is over. */
	#forget(key: string | undefined, semaphore: Permits<Waiter>): void {
		if (key !== undefined && semaphore.active === 0 && semaphore.queued === 0) this.#keys.delete(key)
	}

	/** One that is heavier than the capacity that was found is no fault of its sender: it takes all there is. */
	#weigh(weight: number, semaphore: Permits<Waiter>): number {
		if (this.#finding === undefined) return checkWeight(weight, this.#capacity)
		return Math.min(checkWeight(weight, this.#finding.heaviest), semaphore.capacity)
	}

	/**
	 * How many may wait. Under a capacity that was found, the queue need only bridge the gaps between arrivals: a longer
	 * one would add to each wait, and nothing to what is served.
	 */
	#roomToWait(semaphore: Permits<Waiter>): number {
		if (!this.#finding?.shortQueue) return Number.POSITIVE_INFINITY
		// To choose who goes next, there must be some to choose from.
		return this.#scheduling === undefined
			? Math.ceil(semaphore.capacity / 4)
			: Math.max(20, semaphore.capacity)
	}

	/** Tells the controller of a request that is over, before its permit is given on, and does what it says. */
	#adapt(semaphore: Permits<Waiter>, key: string | undefined, since: number, outcome: Outcome): void {
		const { active, queued } = semaphore
		const now = performance.now()
		try {
			const controller = this.#finding?.controllers.get(semaphore) as Controller
			const capacity = controller.sample({ held: now - since, active, queued, outcome, now })
			if (capacity === semaphore.capacity) return
			semaphore.resize(checkFound(capacity, controller))
			this.#figures.resized(capacity, key)
		} catch (error) {
			// It must not cost the permit.
			if (!this.#warned) process.emitWarning(`The controller of a limiter failed: ${inWords(error)}`, WARNING)
			this.#warned = true
		}
	}

	#newSemaphore(controller = this.#finding && checkController(this.#finding.factory)): Permits<Waiter> {
		// Each key's own: what one client sends must not get others refused. What all have in common is better than nothing for
		// `Retry-After`.
		const pace = new Pace(this.#pace)
		const queue = this.#scheduling?.newQueue<RankedWaiter>(pace)
		const capacity = controller === undefined ? this.#capacity : controller.initial
		const semaphore: Permits<Waiter> =
			queue === undefined
				? new Permits(capacity, new WaitQueue<Waiter>(), pace)
				: new Permits(capacity, queue, pace)
		this.#paces.set(semaphore, pace)
		if (controller !== undefined) this.#finding?.controllers.set(semaphore, controller)
		if (this.#closed) semaphore.close()
		return semaphore
	}
}
