import {
	checkDuration,
	checkKey,
	checkOptions,
	checkSignal,
	checkSkip,
	checkWeight,
	wrongType,
} from '../../src/checks.js'
import { coded, RejectedError, type RejectionReason, withoutStack } from '../../src/errors.js'
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
import { type Deferred, deferred } from '../../src/semaphore/deferred.js'
import { Pace } from '../../src/semaphore/pace.js'
import type { AbortSignalLike, AcquireOptions } from '../../src/semaphore/semaphore.js'
import { hasAborted, listen, unlisten } from '../../src/semaphore/signals.js'
import { Figures } from '../../src/stats/figures.js'
import type { Observer, Outcome } from '../../src/stats/observer.js'
import { readSharedOptions, type SharedSettings } from '../shared-options.js'
import { Alone } from './alone.js'
import { awake } from './awake.js'
import { Caller, type FleetPermit } from './caller.js'
import { KeyQueue } from './key-queue.js'
import { either } from './lease.js'
import { linkOf } from './link.js'
import { Membership, type MembershipOwner } from './membership.js'
import {
	checkClient,
	checkFleetCapacity,
	checkLease,
	checkRedisTimeout,
	checkWhenUnavailable,
	REDIS_LIMITER_OPTIONS,
	type RedisLimiterOptions,
} from './options.js'
import { acquire, type Claim, release } from './protocol.js'
import { warnOfClient, warnOfEviction, warnOfOutage, warnOfReturn } from './warnings.js'

/*
 * All callers of this process that wait for one key are in one queue, in order of arrival. While
 * Redis answers, each of them has asked it for a permit, and is admitted when Redis grants one.
 * While Redis is unavailable, they are admitted by the rule of `whenUnavailable`, from the head of
 * the same queue. When Redis is back, it learns of all permits held, and the callers that still
 * wait ask again, with the tickets that Redis gave them before.
 */

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
 * How many callers may await an answer of Redis at once. More would queue in the connection, and
 * could get no answer within `redisTimeout`.
 */
const AT_ONCE = 200

/** Stands for `Infinity` in commands to Redis. */
const UNBOUNDED = Number.MAX_SAFE_INTEGER

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
	readonly #lease: number
	readonly #membership: Membership
	/** For the time in which Redis is unavailable. */
	readonly #alone: Alone
	readonly #figures: Figures
	/** The pace of all keys. */
	readonly #pace = new Pace()
	/** Without `key`, the only queue. */
	readonly #only: KeyQueue<Caller>
	/** With `key`, the queues of the keys that have a request at work or waiting in this process. */
	readonly #keys = new Map<string, KeyQueue<Caller>>()
	/** Callers that wait, by their ids. */
	readonly #callers = new Map<string, Caller>()
	/** Those for which Redis has not been asked in this session, in order of arrival. */
	readonly #unasked = new Set<Caller>()
	/** Those for which Redis is being asked. */
	#asking = new Set<Caller>()
	readonly #held = new Map<string, Caller>()
	/** Those whose release Redis has not confirmed in this session. */
	#returning = new Set<Caller>()
	#active = 0
	#closed = false
	#idle: Deferred | undefined = undefined

	/** @internal */
	constructor(options: RedisLimiterOptions<never>) {
		checkOptions(options, REDIS_LIMITER_OPTIONS)
		this.#lease = checkLease(options.lease ?? 10_000)
		const { redisTimeout = Math.min(200, this.#lease / 4) } = options
		const { whenUnavailable = 'local', localCapacity } = options
		checkClient(options.client)
		const settings = readSharedOptions(options as RedisLimiterOptions)
		const capacity = checkFleetCapacity('capacity', options.capacity)
		this.name = settings.name
		this.abandonedTimeout = settings.abandonedTimeout
		this.stallTimeout = settings.stallTimeout
		this.statusCode = settings.statusCode
		this.serverTiming = settings.serverTiming
		this.#maxQueue = Math.min(settings.maxQueue, UNBOUNDED)
		this.#maxWait = settings.maxWait
		this.#options = settings.functions
		checkWhenUnavailable(whenUnavailable)
		if (localCapacity !== undefined) checkFleetCapacity('localCapacity', localCapacity)
		this.#figures = new Figures(this.name)
		this.#only = new KeyQueue<Caller>(undefined, undefined)
		const link = linkOf(options.client)
		this.#membership = new Membership(this.#owner(), {
			link,
			name: this.name,
			keyed: this.#options.key !== undefined,
			capacity,
			lease: this.#lease,
			redisTimeout: checkRedisTimeout(redisTimeout, this.#lease),
		})
		this.#alone = new Alone(this.#membership, whenUnavailable, localCapacity)
		// Later, as most programs add the listener after they have made the limiter.
		process.nextTick(() => {
			if (link.fragile) warnOfClient(this.name)
		})
	}

	/** Requests at work at once in the whole fleet. With `key`: for each key. */
	get capacity(): number {
		return this.#membership.fleet.capacity
	}

	/** Permits held by this process. */
	get active(): number {
		return this.#active
	}

	/** Requests of this process that wait. */
	get queued(): number {
		return this.#callers.size
	}

	/** Whether Redis answers. */
	get available(): boolean {
		return this.#membership.available
	}

	/**
	 * The figures of this process now, and those of the fleet as Redis last reported them, as a new
	 * plain object.
	 */
	stats(): RedisLimiterStats {
		const { capacity, processes, active, queued } = this.#membership.fleet
		return {
			name: this.name,
			capacity,
			active: this.active,
			queued: this.queued,
			keys: this.#keys.size,
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
			maxQueue: this.#maxQueue === UNBOUNDED ? Number.POSITIVE_INFINITY : this.#maxQueue,
			maxWait: this.#maxWait,
			order: 'fifo',
			priority: false,
			fair: false,
			dryRun: false,
			closed: this.#closed,
			abandoned: this.#figures.leftBehind,
			reason: undefined,
			keys: () =>
				Array.from(this.#keys.values(), ({ key, active, queued }) => ({
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
		const told = this.#membership.resize(capacity)
		this.#figures.resized(capacity)
		this.#admitAllAlone()
		return told
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
		const admission = this.#admission(this.#queueOf(options.key), weight, options.signal, maxWait)
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
		this.#closed = true
		this.#rejectAll('closed')
		this.#settleIdle()
	}

	/**
	 * Resolves when nothing is at work and nothing waits in this process, and Redis has been informed
	 * (if it answers).
	 */
	async onIdle(): Promise<void> {
		while (this.#active > 0 || this.#callers.size > 0) {
			this.#idle ??= deferred()
			await this.#idle.promise
		}
		await this.#membership.quiet()
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
		return { tag: 'waiting', settled: this.#settled(this.#queueOf(key), weight, signal) }
	}

	/** One of the functions may have answered the request: then its handler must not run. */
	#skipped(signal: AbortSignalLike): Entrance {
		return signal.aborted ? this.#abortedBefore() : SKIPPED
	}

	/** A request that was over before it entered. */
	#abortedBefore(): Rejected {
		this.#figures.rejected('aborted', 0, undefined, this)
		const error = withoutStack(() => this.#rejection('aborted', this.#queueOf(undefined)))
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
					: withoutStack(() => this.#rejection('aborted', queue))
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
			this.#giveBack(caller)
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
			const caller = await this.#wait(queue, weight, signal, maxWait)
			// The client can leave after the permit was handed over and before this line runs.
			if (signal !== undefined && hasAborted(signal)) {
				this.#giveBack(caller)
				throw signal.reason
			}
			return caller
		} catch (error) {
			const reason = error instanceof RejectedError ? error.reason : 'aborted'
			this.#figures.rejected(reason, performance.now() - since, queue.key, this.#gauge(queue))
			throw error
		}
	}

	/** The queue of a key in this process. */
	#queueOf(key: string | undefined): KeyQueue<Caller> {
		if (key === undefined) return this.#only
		return this.#keys.get(key) ?? new KeyQueue<Caller>(key, this.#pace)
	}

	#queues(): Iterable<KeyQueue<Caller>> {
		return this.#options.key === undefined ? [this.#only] : this.#keys.values()
	}

	/** Nothing is kept of a key whose last request is over. */
	#forget(queue: KeyQueue<Caller>): void {
		if (queue.key !== undefined && queue.empty) this.#keys.delete(queue.key)
	}

	#wait(
		queue: KeyQueue<Caller>,
		weight: number,
		signal: AbortSignalLike | undefined,
		maxWait: number,
	): Promise<Caller> {
		if (this.#closed) throw this.#rejection('closed', queue)
		const membership = this.#membership
		membership.check()
		membership.use()
		if (membership.state !== 'in') {
			if (!membership.available && this.#alone.rule === 'reject')
				throw this.#rejection('unavailable', queue)
			// While Redis is unavailable, each process also has its share of the queue. Until that is
			// decided, some of the callers will still be admitted, so more may wait.
			const bound = membership.available
				? this.#maxQueue + this.capacity
				: Math.ceil(this.#maxQueue / membership.fleet.processes)
			if (queue.queued >= bound && !this.#alone.hasRoom(queue, weight))
				throw this.#rejection('queue-full', queue)
		}
		if (queue.key !== undefined) this.#keys.set(queue.key, queue)
		const caller = new Caller(this, queue, weight, maxWait)
		const promise = new Promise<Caller>((resolve, reject) => {
			caller.admitted = () => resolve(caller)
			caller.rejected = reject
		})
		queue.waiting.push(caller)
		this.#callers.set(caller.id, caller)
		this.#unasked.add(caller)
		if (signal !== undefined) this.#cancelBy(signal, caller)
		if (caller.state === 'over') return promise
		if (membership.state === 'in') {
			this.#askMore()
		} else {
			this.#bound(caller)
			this.#admitAlone(queue)
		}
		return promise
	}

	#cancelBy(signal: AbortSignalLike, caller: Caller): void {
		caller.cancel = signal
		try {
			listen(signal, caller)
		} catch (error) {
			this.reject(caller, error)
		}
	}

	/**
	 * Asks Redis for permits for the next callers. Until Redis has been seen to answer, for one only.
	 */
	#askMore(): void {
		for (const caller of this.#unasked) {
			const { state } = this.#membership
			const most = state === 'in' ? AT_ONCE : state === 'trying' ? 1 : 0
			if (this.#asking.size >= most) return
			this.#ask(caller)
		}
	}

	async #ask(caller: Caller): Promise<void> {
		const asking = this.#asking
		this.#unasked.delete(caller)
		asking.add(caller)
		await this.#askOne(caller)
		asking.delete(caller)
		if (this.#unasked.size > 0) this.#askMore()
	}

	/** Asks Redis for a permit. */
	async #askOne(caller: Caller): Promise<void> {
		caller.asked = 'asking'
		const { queue, ticket, maxWait } = caller
		// A caller that was queued before is not rejected because the queue is full.
		const maxQueue = ticket > 0 ? UNBOUNDED : maxWait === 0 ? 0 : this.#maxQueue
		const answer = await this.#membership.ask(acquire(caller, { maxQueue, lease: this.#lease }))
		// The session is over: the caller will be asked for again, or be admitted without Redis.
		if (answer === undefined) return
		this.#membership.learn(answer.active)
		if (answer.is === 'full') {
			queue.inFleet = answer.queued
			if (caller.state === 'waiting') {
				caller.asked = 'no'
				const reason = maxWait === 0 && this.#maxQueue > 0 ? 'timeout' : 'queue-full'
				this.reject(caller, this.#rejection(reason, queue))
			}
			return
		}
		if (answer.is === 'queued') caller.ticket = answer.ticket
		// The message with the permit came before this answer: the permit is in use already.
		if (caller.state === 'held') return
		if (caller.state === 'over') {
			this.#release(caller)
		} else if (answer.is === 'queued') {
			caller.asked = 'queued'
			if (ticket === 0) caller.ahead = answer.ahead
			queue.inFleet = answer.ahead + 1
			this.#bound(caller)
		} else {
			this.#grant(caller, answer.token)
		}
	}

	async #return(caller: Caller): Promise<void> {
		const returning = this.#returning
		returning.add(caller)
		await this.#release(caller)
		returning.delete(caller)
	}

	/** Ends a permit, or a wait, in Redis. */
	async #release(claim: Claim): Promise<void> {
		const active = await this.#membership.ask(release(claim))
		if (active !== undefined) this.#membership.learn(active)
	}

	/** Bounds the wait of a caller. */
	#bound(caller: Caller): void {
		if (caller.maxWait === Number.POSITIVE_INFINITY || caller.timer !== undefined) return
		const left = Math.max(0, caller.since + caller.maxWait - performance.now())
		caller.timer = setTimeout(
			() => this.reject(caller, this.#rejection('timeout', caller.queue)),
			left,
		).unref()
	}

	#admit(caller: Caller): void {
		this.#leaveQueue(caller)
		caller.state = 'held'
		caller.waited = performance.now() - caller.since
		this.#held.set(caller.id, caller)
		this.#active += caller.weight
		caller.queue.active += caller.weight
		caller.admitted()
	}

	/** Admits a caller for which Redis has granted a permit. */
	#grant(caller: Caller, token: number): void {
		caller.token = token
		caller.leased = true
		this.#membership.see(token)
		this.#admit(caller)
	}

	#leaveQueue(caller: Caller): void {
		caller.queue.waiting.remove(caller)
		this.#callers.delete(caller.id)
		this.#unasked.delete(caller)
		if (caller.cancel !== undefined) unlisten(caller.cancel, caller)
		caller.cancel = undefined
		clearTimeout(caller.timer)
	}

	#giveBack(caller: Caller): void {
		const { queue } = caller
		caller.state = 'over'
		this.#held.delete(caller.id)
		this.#active -= caller.weight
		queue.active -= caller.weight
		// In any other state, Redis learns of the remaining permits when this process joins again.
		if (this.#serving) this.#return(caller)
		else this.#admitAlone(queue)
		this.#forget(queue)
		this.#settleIdle()
	}

	/** Whether commands go to Redis. */
	get #serving(): boolean {
		const { state } = this.#membership
		return state === 'in' || state === 'trying'
	}

	/** @internal Ends a wait without a permit. */
	reject(caller: Caller, error: unknown): void {
		if (caller.state !== 'waiting') return
		caller.state = 'over'
		this.#leaveQueue(caller)
		// A caller that still awaits the answer is released when it comes: so the cancel can't arrive
		// at Redis before the request.
		if (this.#serving && caller.asked === 'queued') this.#release(caller)
		caller.rejected(error)
		this.#admitAlone(caller.queue)
		this.#forget(caller.queue)
		this.#settleIdle()
	}

	/** @internal Checks whether the lease has ended. */
	check(): void {
		this.#membership.check()
	}

	/** Admits the callers of one key for which there is room while Redis is unavailable. */
	#admitAlone(queue: KeyQueue<Caller>): void {
		for (let head = queue.waiting.head; head !== undefined; head = queue.waiting.head) {
			if (!this.#alone.hasRoom(queue, head.weight)) return
			this.#admit(head)
		}
	}

	#admitAllAlone(): void {
		for (const queue of this.#queues()) this.#admitAlone(queue)
	}

	#rejectAll(reason: RejectionReason): void {
		for (const caller of this.#callers.values())
			this.reject(caller, this.#rejection(reason, caller.queue))
	}

	#owner(): MembershipOwner {
		const limiter = this
		return {
			held: () => [...this.#held.values()],
			waiting: (most) => this.#queuedInRedis(most),
			get idle() {
				return limiter.#active === 0 && limiter.#callers.size === 0
			},
			joined: (held) => {
				for (const permit of held) {
					const caller = this.#held.get(permit.id)
					if (caller !== undefined) caller.leased = true
					else this.#release(permit)
				}
				this.#askMore()
				return this.#asking.size > 0
			},
			opened: () => {
				for (const queue of this.#queues()) {
					queue.kept = 0
					this.#forget(queue)
				}
				this.#askMore()
			},
			lost: () => {
				for (const queue of this.#queues()) queue.kept = queue.active
				this.#learnOfReturning()
				this.#asking = new Set()
				for (const caller of this.#callers.values()) {
					caller.asked = 'no'
					// The answer may never come, so the wait is bounded here.
					this.#bound(caller)
					// Moves it to the end: so all are in order of arrival.
					this.#unasked.delete(caller)
					this.#unasked.add(caller)
				}
			},
			availability: (available, reason) => this.#availability(available, reason),
			resume: () => this.#admitAllAlone(),
			granted: (id, token) => {
				const caller = this.#callers.get(id)
				if (caller === undefined) return
				this.#grant(caller, token)
				caller.queue.measure(token)
			},
			resized: (capacity) => {
				this.#figures.resized(capacity)
			},
			lapsed: () => {
				for (const caller of this.#held.values()) if (caller.leased) caller.lose()
				this.#admitAllAlone()
			},
			evictable: (policy) => warnOfEviction(this.name, policy),
		}
	}

	/**
	 * The session ends while permits are on their way back to Redis. It has given them to nobody else
	 * if no other process waits: so they are free, as far as is known.
	 */
	#learnOfReturning(): void {
		const { active, queued } = this.#membership.fleet
		let own = 0
		for (const caller of this.#callers.values()) if (caller.asked === 'queued') own++
		if (queued <= own) {
			let returning = 0
			for (const { weight } of this.#returning) returning += weight
			this.#membership.learn(active - returning)
		}
		this.#returning = new Set()
	}

	/**
	 * Callers that wait in Redis: the oldest of each key. With many keys, each call returns other
	 * keys.
	 */
	#queuedInRedis(most: number): Claim[] {
		const found: Claim[] = []
		const each = this.#options.key === undefined ? most : 1
		for (const queue of [...this.#queues()]) {
			let left = each
			for (
				let caller = queue.waiting.head;
				caller !== undefined && left > 0;
				caller = caller.next
			) {
				if (caller.asked !== 'queued') continue
				found.push(caller)
				left--
			}
			if (left < each && queue.key !== undefined) {
				// Moves the key to the end of the map.
				this.#keys.delete(queue.key)
				this.#keys.set(queue.key, queue)
			}
			if (found.length === most) break
		}
		return found
	}

	#availability(available: boolean, reason: unknown): void {
		if (available) warnOfReturn(this.name)
		else warnOfOutage(this.name, reason, this.#alone)
		this.#figures.availability(available)
		if (available) return
		if (this.#alone.rule === 'reject') this.#rejectAll('unavailable')
		this.#admitAllAlone()
	}

	#rejection(reason: RejectionReason, queue: KeyQueue<Caller>): RejectedError {
		const { active, queued, capacity } = this.#membership.fleet
		const load =
			queue.key === undefined
				? { active, queued, capacity }
				: { active: queue.active, queued: queue.queued, capacity }
		return new RejectedError(reason, queue.retryAfter, load)
	}

	#settleIdle(): void {
		if (this.#active > 0 || this.#callers.size > 0) return
		if (this.#closed) this.#membership.close()
		this.#idle?.resolve()
		this.#idle = undefined
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
