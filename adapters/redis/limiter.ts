import { setMaxListeners } from 'node:events'
import {
	checkBoolean,
	checkDuration,
	checkFunction,
	checkMaxQueue,
	checkName,
	checkOptions,
	checkSignal,
	checkSkip,
	checkStatusCode,
	checkWeight,
	wrongType,
} from '../../src/checks.js'
import { RejectedError, type RejectionReason, withoutStack } from '../../src/errors.js'
import { type Entrance, enter, type Gate, type Rejected, SKIPPED, type Stay } from '../../src/limiter/gate.js'
import type { LimiterStats } from '../../src/limiter/limiter.js'
import { type Deferred, deferred } from '../../src/semaphore/deferred.js'
import { Pace } from '../../src/semaphore/pace.js'
import type { AbortSignalLike, AcquireOptions } from '../../src/semaphore/semaphore.js'
import { WaitQueue } from '../../src/semaphore/wait-queue.js'
import { Figures } from '../../src/stats/figures.js'
import type { Observer, Outcome } from '../../src/stats/observer.js'
import { Caller, type FleetPermit } from './caller.js'
import { connectionOf } from './connection.js'
import { ASKED, Fleet, type Held, type Member } from './fleet.js'
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

/*
 * All who wait in this process stand in one queue, in the order in which they came. While Redis answers, each has asked it
 * for a permit, and gets in when Redis says so. While Redis is away, they get in by the rule of `whenUnavailable`, from the
 * head of the same queue. When it is back, it is told of all who are at work, and those who still wait ask again, with the
 * tickets that Redis once gave them.
 */

/** The figures of a limiter in one process, and of its fleet, at one moment: a plain object, fit for JSON. */
export interface RedisLimiterStats extends LimiterStats {
	/** Whether Redis answers. */
	available: boolean
	/** The whole fleet, as Redis last said. */
	fleet: { processes: number; active: number; queued: number }
}

const ACQUIRE_OPTIONS = ['weight', 'signal', 'maxWait']

/** One object for all listeners. */
const ONCE = { once: true } as const

/** For Redis, which knows no other infinity. */
const UNBOUNDED = Number.MAX_SAFE_INTEGER

/**
 * One limit for a whole fleet of processes, kept by Redis. Made by {@link redisLimiter}; used like a `Limiter`:
 * `limit(limiter)`.
 */
export class RedisLimiter implements Gate {
	/** What the fleet calls it, in Redis and in figures. */
	readonly name: string
	/** How long a handler may go on holding its permit after its client left, in ms. */
	readonly abandonedTimeout: number
	/** How long a client may take nothing of what waits for it, in ms. */
	readonly stallTimeout: number
	/** Status of a refusal. */
	readonly statusCode: number
	/** Whether clients are told how long they waited. */
	readonly serverTiming: boolean
	/** What is left of the fleet’s capacity is known to Redis only: clients are not told. */
	readonly rateLimitFields: boolean = false
	readonly #options: { [Name in 'weight' | 'skip']: RedisLimiterOptions[Name] | undefined }
	readonly #maxQueue: number
	readonly #maxWait: number
	readonly #whenUnavailable: 'local' | 'reject' | 'admit'
	readonly #localCapacity: number | undefined
	readonly #fleet: Fleet
	readonly #figures: Figures
	readonly #pace = new Pace()
	readonly #waiting: WaitQueue<Caller> = new WaitQueue()
	/** Those who wait, by what Redis calls them. */
	readonly #callers = new Map<string, Caller>()
	readonly #held = new Map<string, Caller>()
	#active = 0
	/** What was held, in permits, when the last session ended: Redis keeps that for this process until its lease ends. */
	#kept = 0
	#ids = 0
	#closed = false
	#idle: Deferred | undefined = undefined
	/** The token, and when, of the last one here who had waited: how fast the fleet's tokens rise is its pace. */
	#last = { token: 0, at: 0 }

	/** @internal */
	constructor(options: RedisLimiterOptions<never>) {
		checkOptions(options, REDIS_LIMITER_OPTIONS)
		const { maxQueue = 1000, maxWait = 30_000, abandonedTimeout = 30_000 } = options
		const lease = checkLease(options.lease ?? 10_000)
		const { redisTimeout = Math.min(200, lease / 4), whenUnavailable = 'local', localCapacity } = options
		checkClient(options.client)
		this.name = checkName(options.name)
		const capacity = checkFleetCapacity('capacity', options.capacity)
		this.#maxQueue = Math.min(checkMaxQueue(maxQueue), UNBOUNDED)
		this.#maxWait = checkDuration('maxWait', maxWait)
		this.abandonedTimeout = checkDuration('abandonedTimeout', abandonedTimeout)
		this.stallTimeout = checkDuration('stallTimeout', options.stallTimeout ?? 60_000)
		this.statusCode = checkStatusCode(options.statusCode ?? 503)
		this.serverTiming = checkBoolean('serverTiming', options.serverTiming ?? false)
		this.#whenUnavailable = checkWhenUnavailable(whenUnavailable)
		if (localCapacity !== undefined) checkFleetCapacity('localCapacity', localCapacity)
		this.#localCapacity = localCapacity
		const { weight, skip } = options as RedisLimiterOptions
		this.#options = { weight: checkFunction('weight', weight), skip: checkFunction('skip', skip) }
		this.#figures = new Figures(this.name)
		this.#fleet = new Fleet(this.#member(), {
			connection: connectionOf(options.client),
			name: this.name,
			capacity,
			lease,
			redisTimeout: checkRedisTimeout(redisTimeout, lease),
		})
	}

	/** Requests at work at once in the whole fleet. */
	get capacity(): number {
		return this.#fleet.capacity
	}

	/** Permits held by this process. */
	get active(): number {
		return this.#active
	}

	/** Requests of this process that wait. */
	get queued(): number {
		return this.#waiting.size
	}

	/** Whether Redis answers. */
	get available(): boolean {
		return this.#fleet.available
	}

	/** The figures of this process now, and what Redis last said of the fleet, as a new plain object. */
	stats(): RedisLimiterStats {
		const { capacity, available, processes, active, queued } = this.#fleet
		return {
			name: this.name,
			capacity,
			active: this.#active,
			queued: this.#waiting.size,
			keys: 0,
			available,
			fleet: { processes, active, queued },
			...this.#figures.counts(),
		}
	}

	/**
	 * Tells an observer of each admission, release, rejection and resize in this process from now on, and when Redis becomes
	 * unavailable or is back.
	 *
	 * @returns a function that ends it.
	 * @throws TypeError - `observer` has none of an observer's functions, or something else in their place.
	 */
	observe(observer: Observer): () => void {
		return this.#figures.observe(observer)
	}

	/**
	 * Changes the capacity of the whole fleet: upwards, those who wait get in at once; downwards, those at work finish first.
	 *
	 * @returns a promise that resolves when Redis has been told; while it is unavailable, at once: it is told when it is back.
	 * @throws TypeError, RangeError - `capacity` is not an integer from 1.
	 */
	resize(capacity: number): Promise<void> {
		checkFleetCapacity('capacity', capacity)
		const told = this.#fleet.resize(capacity)
		this.#figures.resized(capacity)
		this.#admitAlone()
		return told
	}

	/**
	 * Takes a permit, after waiting for one if need be.
	 *
	 * @returns a promise of the permit. It rejects as that of a semaphore does, and with `unavailable` as
	 * `whenUnavailable` has it.
	 */
	async acquire(options: AcquireOptions = {}): Promise<FleetPermit> {
		checkOptions(options, ACQUIRE_OPTIONS)
		checkSignal(options.signal)
		if (options.maxWait !== undefined) checkDuration('maxWait', options.maxWait)
		const weight = options.weight === undefined ? 1 : checkWeight(options.weight, this.capacity)
		const caller = await this.#admission(weight, options.signal, options.maxWait ?? this.#maxWait)
		return this.#counted(caller)
	}

	/**
	 * Runs `task` with a permit of the fleet, which is given back when the task is over, however it ends.
	 *
	 * @returns a promise of the task's result. It rejects as the task does, or as {@link acquire} does; a task whose
	 * `signal` was aborted before its turn is never run.
	 */
	async run<T>(task: (permit: FleetPermit) => T | PromiseLike<T>, options?: AcquireOptions): Promise<T> {
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

	/** Turns away all who wait in this process and all who come, with `closed`. Those at work finish. There is no way back. */
	close(): void {
		this.#closed = true
		for (let caller = this.#waiting.head; caller !== undefined; caller = this.#waiting.head) {
			this.drop(caller, this.#rejection('closed'))
		}
		this.#settleIdle()
	}

	/** Resolves when nothing is at work and nothing waits in this process, and Redis knows of it (if it answers). */
	async onIdle(): Promise<void> {
		while (this.#active > 0 || this.#waiting.size > 0) {
			this.#idle ??= deferred()
			await this.#idle.promise
		}
		await this.#fleet.quiet()
	}

	/** @internal */
	[enter](request: object, signal: AbortSignalLike): Entrance {
		const options = this.#options
		if (signal.aborted) {
			this.#figures.rejected('aborted', 0, undefined, this)
			return { tag: 'rejected', error: withoutStack(() => this.#rejection('aborted')) }
		}
		if (options.skip !== undefined && checkSkip(options.skip(request))) return SKIPPED
		const weight = options.weight === undefined ? 1 : checkWeight(options.weight(request), this.capacity)
		return { tag: 'waiting', settled: this.#settled(weight, signal) }
	}

	async #settled(weight: number, signal: AbortSignalLike): Promise<Stay | Rejected> {
		try {
			return this.#stay(await this.#admission(weight, signal, this.#maxWait))
		} catch (error) {
			const rejected = error instanceof RejectedError ? error : withoutStack(() => this.#rejection('aborted'))
			return { tag: 'rejected', error: rejected }
		}
	}

	#stay(caller: Caller): Stay {
		const { leave } = this.#leaving(caller)
		const { waited, ahead } = caller
		let both: AbortSignal | undefined
		const signalWith = (client: AbortSignal): AbortSignal => {
			both ??= either(client, caller.signal)
			return both
		}
		return { tag: 'admitted', waited, queued: ahead, available: 0, signalWith, leave }
	}

	/** A permit that tells the figures when it is given back. */
	#counted(caller: Caller): FleetPermit {
		const { leave } = this.#leaving(caller)
		caller.release = () => leave('ok')
		return caller
	}

	#leaving(caller: Caller): { leave: (outcome: Outcome) => void } {
		const { waited } = caller
		this.#figures.admitted(waited, undefined, this)
		const since = performance.now()
		let over = false
		const leave = (outcome: Outcome): void => {
			if (over) return
			over = true
			this.#giveBack(caller)
			this.#figures.released(waited, performance.now() - since, outcome, undefined, this)
		}
		return { leave }
	}

	async #admission(weight: number, signal: AbortSignalLike | undefined, maxWait: number): Promise<Caller> {
		const since = performance.now()
		try {
			if (signal?.aborted) throw signal.reason
			const caller = await this.#wait(weight, signal, maxWait)
			// The client can leave after the permit was handed over and before this line runs.
			if (signal?.aborted) {
				this.#giveBack(caller)
				throw signal.reason
			}
			return caller
		} catch (error) {
			const reason = error instanceof RejectedError ? error.reason : 'aborted'
			this.#figures.rejected(reason, performance.now() - since, undefined, this)
			throw error
		}
	}

	#wait(weight: number, signal: AbortSignalLike | undefined, maxWait: number): Promise<Caller> {
		if (this.#closed) throw this.#rejection('closed')
		const fleet = this.#fleet
		fleet.check()
		if (fleet.state !== 'in') {
			fleet.use()
			if (!fleet.available && this.#rule() === 'reject') throw this.#rejection('unavailable')
			// Of the queue, too, a process has its share. While nothing is decided yet, some of them will find room.
			const bound = fleet.available
				? this.#maxQueue + this.capacity
				: Math.ceil(this.#maxQueue / fleet.processes)
			if (this.#waiting.size >= bound && !this.#roomAlone(weight)) throw this.#rejection('queue-full')
		}
		const caller = new Caller(this, (++this.#ids).toString(36), weight, maxWait)
		const promise = new Promise<Caller>((resolve, reject) => {
			caller.settle = (error) => {
				if (error === undefined) resolve(caller)
				else reject(error)
			}
		})
		if (signal !== undefined) {
			// Many waiters on one signal, that of a shutdown for instance, are no leak: each takes its listener off again.
			if (signal instanceof EventTarget) setMaxListeners(0, signal)
			signal.addEventListener('abort', caller, ONCE)
			caller.cancel = signal
		}
		this.#waiting.push(caller)
		this.#callers.set(caller.id, caller)
		if (fleet.state === 'in') {
			this.#ask(caller)
		} else {
			this.#bound(caller)
			this.#admitAlone()
		}
		return promise
	}

	/** Asks Redis for a permit. */
	async #ask(caller: Caller): Promise<void> {
		caller.asked = 'asking'
		const { id, weight, ticket, maxWait } = caller
		// Who has been waiting already can't be too many.
		const maxQueue = ticket > 0 ? UNBOUNDED : maxWait === 0 ? 0 : this.#maxQueue
		const answer = await this.#fleet.ask(
			'acquire',
			this.#fleet.fieldOf(id),
			weight,
			maxQueue,
			2 * this.#fleet.lease,
			ticket,
		)
		if (answer === undefined) {
			// The session is over: it will be asked again, or get in alone. Its wait must be bounded all the same.
			if (caller.state === 'waiting') this.#bound(caller)
			return
		}
		const [first, active, ahead, own] = answer
		this.#fleet.active = Number(active)
		if (first === 'full') {
			this.#fleet.queued = Number(ahead)
			if (caller.state === 'waiting') {
				caller.asked = 'no'
				this.drop(caller, this.#rejection(maxWait === 0 && this.#maxQueue > 0 ? 'timeout' : 'queue-full'))
			}
			return
		}
		// A permit that its message brought before this answer is in use already.
		if (caller.state === 'held') return
		if (caller.state === 'over') {
			this.#release({ id, weight })
			return
		}
		if (first === 'queued') {
			caller.asked = 'queued'
			caller.ticket = Number(own)
			if (ticket === 0) caller.ahead = Number(ahead)
			this.#bound(caller)
		} else {
			this.#grant(caller, Number(first))
		}
	}

	/** Ends a permit, or a wait, at Redis. */
	async #release({ id, weight }: Held): Promise<void> {
		const answer = await this.#fleet.ask('release', this.#fleet.fieldOf(id), weight)
		if (answer !== undefined) this.#fleet.active = Number(answer[1])
	}

	/** Bounds the wait of a caller. */
	#bound(caller: Caller): void {
		if (caller.maxWait === Number.POSITIVE_INFINITY || caller.timer !== undefined) return
		const left = Math.max(0, caller.since + caller.maxWait - performance.now())
		caller.timer = setTimeout(() => this.drop(caller, this.#rejection('timeout')), left).unref()
	}

	#admit(caller: Caller): void {
		this.#leaveQueue(caller)
		caller.state = 'held'
		caller.waited = performance.now() - caller.since
		this.#held.set(caller.id, caller)
		this.#active += caller.weight
		caller.settle()
	}

	/** Admits one to whom Redis has given a permit. */
	#grant(caller: Caller, token: number): void {
		caller.token = token
		caller.leased = true
		this.#fleet.see(token)
		this.#admit(caller)
	}

	#leaveQueue(caller: Caller): void {
		this.#waiting.remove(caller)
		this.#callers.delete(caller.id)
		caller.cancel?.removeEventListener('abort', caller)
		caller.cancel = undefined
		clearTimeout(caller.timer)
	}

	#giveBack(caller: Caller): void {
		caller.state = 'over'
		this.#held.delete(caller.id)
		this.#active -= caller.weight
		// In any other state Redis is told of those who are left when it is joined again.
		if (this.#fleet.state === 'in') this.#release(caller)
		else this.#admitAlone()
		this.#settleIdle()
	}

	/** @internal The end of a wait without a permit. */
	drop(caller: Caller, error: unknown): void {
		if (caller.state !== 'waiting') return
		caller.state = 'over'
		this.#leaveQueue(caller)
		// One who is still asking is released when the answer has come: its cancel can't arrive before it.
		if (this.#fleet.state === 'in' && caller.asked === 'queued') {
			this.#release(caller)
		}
		caller.settle(error)
		this.#admitAlone()
		this.#settleIdle()
	}

	/** @internal Looks at the clock. */
	check(): void {
		this.#fleet.check()
	}

	/** What becomes of requests while Redis is unavailable. */
	#rule(): 'local' | 'reject' | 'admit' {
		// A process that Redis has never answered knows of no share: whatever it took could be one too many.
		const unknown = this.#localCapacity === undefined && !this.#fleet.known
		return this.#whenUnavailable === 'local' && unknown ? 'reject' : this.#whenUnavailable
	}

	/** What this process may hold while Redis is unavailable. */
	#share(): number {
		const { capacity, active, processes, rank } = this.#fleet
		if (this.#localCapacity !== undefined) return this.#localCapacity
		const lapsed = this.#fleet.check()
		const shared = lapsed ? capacity : Math.max(0, capacity - active)
		const share = Math.floor(shared / processes) + (rank < shared % processes ? 1 : 0)
		// Redis keeps for it what it held, until its lease ends: with that it can't be one too many.
		if (!lapsed) return this.#kept + share
		// Others may still be using what they held above their share.
		return this.#fleet.allLapsed ? share : Math.min(this.#kept, share)
	}

	#roomAlone(weight: number): boolean {
		if (this.#fleet.state === 'in' || this.#fleet.available || this.#fleet.asking) return false
		const rule = this.#rule()
		if (rule !== 'local') return rule === 'admit'
		const share = this.#share()
		// Who is too heavy for the share goes alone, if there is any.
		return this.#active + weight <= share || (this.#active === 0 && share > 0 && this.#fleet.check())
	}

	/** Admits whom it may while Redis is unavailable. */
	#admitAlone(): void {
		for (let head = this.#waiting.head; head !== undefined; head = this.#waiting.head) {
			if (!this.#roomAlone(head.weight)) return
			this.#admit(head)
		}
	}

	#member(): Member {
		const limiter = this
		return {
			held: () => [...this.#held.values()],
			waiting: () => {
				const found: Held[] = []
				for (let caller = this.#waiting.head; caller !== undefined; caller = caller.next) {
					if (caller.asked === 'queued') found.push(caller)
					if (found.length === ASKED) break
				}
				return found
			},
			get idle() {
				return limiter.#active === 0 && limiter.#waiting.size === 0
			},
			joined: (held) => {
				for (const { id, weight } of held) {
					const caller = this.#held.get(id)
					if (caller !== undefined) caller.leased = true
					else this.#release({ id, weight })
				}
				for (let caller = this.#waiting.head; caller !== undefined; caller = caller.next) {
					this.#ask(caller)
				}
			},
			lost: () => {
				this.#kept = this.#active
				for (let caller = this.#waiting.head; caller !== undefined; caller = caller.next) caller.asked = 'no'
			},
			availability: (available, reason) => this.#availability(available, reason),
			resume: () => this.#admitAlone(),
			granted: (id, token) => {
				const caller = this.#callers.get(id)
				if (caller === undefined) return
				this.#grant(caller, token)
				this.#measure(token)
			},
			resized: (capacity) => {
				this.#figures.resized(capacity)
			},
			lapsed: () => {
				for (const caller of this.#held.values()) if (caller.leased) caller.lose()
				this.#admitAlone()
			},
		}
	}

	#availability(available: boolean, reason: unknown): void {
		const said = reason instanceof Error ? reason.message : String(reason ?? 'no answer')
		const rule = this.#rule()
		const meant = {
			local: 'a local share of it is used',
			reject: 'requests are rejected',
			admit: 'all are let in',
		}[rule]
		const why = rule === this.#whenUnavailable ? '' : ', as no share is known before it has answered once'
		process.emitWarning(
			available
				? `The limiter ${this.name} is the fleet's again: Redis is back`
				: `Redis is unavailable to the limiter ${this.name} (${said}): ${meant}${why}`,
			{
				type: 'InflightLimitWarning',
				code: available ? 'INFLIGHT_REDIS_BACK' : 'INFLIGHT_REDIS_UNAVAILABLE',
			},
		)
		this.#figures.availability(available)
		if (available) return
		if (rule === 'reject') {
			for (let caller = this.#waiting.head; caller !== undefined; caller = this.#waiting.head) {
				this.drop(caller, this.#rejection('unavailable'))
			}
		}
		this.#admitAlone()
	}

	#measure(token: number): void {
		const now = performance.now()
		const { token: before, at } = this.#last
		// Only while somebody here waits all the time are these tokens those of a full fleet.
		if (before > 0 && token > before) this.#pace.add(token - before, now - at, now)
		this.#last = this.#waiting.size > 0 ? { token, at: now } : { token: 0, at: 0 }
	}

	#rejection(reason: RejectionReason): RejectedError {
		const ahead = Math.max(this.#fleet.queued, this.#waiting.size)
		return new RejectedError(reason, this.#pace.secondsFor(ahead + 1), this.#fleet)
	}

	#settleIdle(): void {
		if (this.#active > 0 || this.#waiting.size > 0) return
		if (this.#closed) this.#fleet.close()
		this.#idle?.resolve()
		this.#idle = undefined
	}
}

/**
 * A limiter that a whole fleet of processes shares, through Redis or Valkey.
 *
 * ```ts
 * const renders = redisLimiter({ client, name: 'renders', capacity: 10, maxQueue: 500, maxWait: 10_000 })
 * app.post('/render', limit(renders), render)
 * await renders.run(() => callPartner())
 * ```
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or unknown.
 */
export function redisLimiter(options: RedisLimiterOptions<never>): RedisLimiter {
	return new RedisLimiter(options)
}
