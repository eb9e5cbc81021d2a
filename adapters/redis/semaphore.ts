import { RejectedError, type RejectionReason } from '../../src/errors.js'
import { type Deferred, deferred } from '../../src/semaphore/deferred.js'
import { Pace } from '../../src/semaphore/pace.js'
import { type AbortSignalLike, listen, unlisten } from '../../src/semaphore/signals.js'
import { Alone } from './alone.js'
import { Caller } from './caller.js'
import type { RedisClient } from './clients.js'
import { KeyQueue } from './key-queue.js'
import { linkOf } from './link.js'
import { Membership, type MembershipOwner } from './membership.js'
import type { WhenUnavailable } from './options.js'
import { acquire, type Claim, type FleetState, release } from './protocol.js'
import { warnOfClient, warnOfEviction, warnOfOutage, warnOfReturn } from './warnings.js'

/*
 * The semaphore of a fleet, as one process sees it: its permits, and the callers that wait for them.
 *
 * All callers of this process that wait for one key are in one queue, in order of arrival. While
 * Redis answers, each of them has asked it for a permit, and is admitted when Redis grants one.
 * While Redis is unavailable, they are admitted by the rule of `whenUnavailable`, from the head of
 * the same queue. When Redis is back, it learns of all permits held, and the callers that still
 * wait ask again, with the tickets that Redis gave them before.
 */

/**
 * How many callers may await an answer of Redis at once. More would queue in the connection, and
 * could get no answer within `redisTimeout`.
 */
const AT_ONCE = 200

/** Stands for `Infinity` in commands to Redis. */
const UNBOUNDED = Number.MAX_SAFE_INTEGER

/** What a semaphore tells its limiter. */
export interface FleetSemaphoreOwner {
	/** The capacity of the fleet has changed. */
	resized(capacity: number): void
	/** Redis is unavailable, or back. */
	availability(available: boolean): void
}

/** What {@link FleetSemaphore} needs of the options of its limiter, which has checked them. */
export interface FleetSemaphoreOptions {
	client: RedisClient
	name: string
	/** Whether each key has a limit of its own. */
	keyed: boolean
	capacity: number
	maxQueue: number
	lease: number
	redisTimeout: number
	whenUnavailable: WhenUnavailable
	localCapacity: number | undefined
}

export class FleetSemaphore {
	/** Permits held by this process. */
	active = 0
	closed = false
	readonly #owner: FleetSemaphoreOwner
	readonly #name: string
	readonly #keyed: boolean
	readonly #maxQueue: number
	readonly #lease: number
	readonly #redisTimeout: number
	readonly #membership: Membership
	/** For the time in which Redis is unavailable. */
	readonly #alone: Alone
	/** The pace of all keys. */
	readonly #pace = new Pace()
	/** Without `key`, the only queue. */
	readonly #only = new KeyQueue<Caller>(undefined, undefined)
	/** With `key`, the queues of the keys that have a request at work or waiting in this process. */
	readonly #keys = new Map<string, KeyQueue<Caller>>()
	/** Callers that wait, by their ids. */
	readonly #callers = new Map<string, Caller>()
	/** Those for which Redis has not been asked in this session, in order of arrival. */
	readonly #unasked = new Set<Caller>()
	/** Those for which Redis is being asked. */
	#asking = new Set<Caller>()
	readonly #held = new Map<string, Caller>()
	/** Permits whose release Redis has not confirmed in this session. */
	#returning = new Set<Claim>()
	#idle: Deferred | undefined = undefined

	constructor(
		owner: FleetSemaphoreOwner,
		{ name, keyed, capacity, maxQueue, lease, redisTimeout, ...options }: FleetSemaphoreOptions,
	) {
		this.#owner = owner
		this.#name = name
		this.#keyed = keyed
		this.#maxQueue = Math.min(maxQueue, UNBOUNDED)
		this.#lease = lease
		this.#redisTimeout = redisTimeout
		const link = linkOf(options.client)
		this.#membership = new Membership(this.#asMember(), {
			link,
			name,
			keyed,
			capacity,
			lease,
			redisTimeout,
		})
		this.#alone = new Alone(this.#membership, options.whenUnavailable, options.localCapacity)
		// Later, as most programs add the listener after they have made the limiter.
		process.nextTick(() => {
			if (link.fragile) warnOfClient(name)
		})
	}

	/** Callers of this process that wait. */
	get queued(): number {
		return this.#callers.size
	}

	/** The keys that have a permit or a waiter in this process. */
	get keys(): ReadonlyMap<string, KeyQueue<Caller>> {
		return this.#keys
	}

	/** The state of the whole fleet, as last known. */
	get fleet(): Readonly<FleetState> {
		return this.#membership.fleet
	}

	/** Whether Redis answers. */
	get available(): boolean {
		return this.#membership.available
	}

	/** Changes the capacity of the fleet. @returns a promise that resolves when Redis has it. */
	resize(capacity: number): Promise<void> {
		const told = this.#membership.resize(capacity)
		this.#owner.resized(capacity)
		this.#admitAllAlone()
		return told
	}

	/** Rejects all that wait and all that come. */
	close(): void {
		this.closed = true
		this.#rejectAll('closed')
		this.#settleIdle()
	}

	/** Resolves when nothing is held, nothing waits, and no command is under way. */
	async onIdle(): Promise<void> {
		while (this.active > 0 || this.queued > 0) {
			this.#idle ??= deferred()
			await this.#idle.promise
		}
		await this.#membership.quiet()
	}

	/** The queue of a key in this process. */
	queueOf(key: string | undefined): KeyQueue<Caller> {
		if (key === undefined) return this.#only
		return this.#keys.get(key) ?? new KeyQueue<Caller>(key, this.#pace)
	}

	#queues(): Iterable<KeyQueue<Caller>> {
		return this.#keyed ? this.#keys.values() : [this.#only]
	}

	/** Nothing is kept of a key whose last request is over. */
	#forget(queue: KeyQueue<Caller>): void {
		if (queue.key !== undefined && queue.empty) this.#keys.delete(queue.key)
	}

	/**
	 * Takes a permit of a key, or waits for one.
	 *
	 * @throws RejectedError - it is closed, Redis is unavailable, or the queue is full.
	 */
	acquire(
		queue: KeyQueue<Caller>,
		weight: number,
		signal: AbortSignalLike | undefined,
		maxWait: number,
	): Promise<Caller> {
		if (this.closed) throw this.rejection('closed', queue)
		const membership = this.#membership
		membership.check()
		membership.use()
		if (membership.state !== 'in') {
			if (!membership.available && this.#alone.rule === 'reject')
				throw this.rejection('unavailable', queue)
			// While Redis is unavailable, each process also has its share of the queue. Until that is
			// decided, some of the callers will still be admitted, so more may wait.
			const bound = membership.available
				? this.#maxQueue + membership.fleet.capacity
				: Math.ceil(this.#maxQueue / membership.fleet.processes)
			if (queue.queued >= bound && !this.#alone.hasRoom(queue, weight))
				throw this.rejection('queue-full', queue)
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
			// Too many others are asking: its turn to ask may come late.
			if (this.#unasked.has(caller)) this.#bound(caller, this.#redisTimeout)
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
				this.reject(caller, this.rejection(reason, queue))
			}
			return
		}
		if (answer.is === 'queued') caller.ticket = answer.ticket
		// The message with the permit came before this answer: the permit is in use already.
		if (caller.state === 'held') return
		if (caller.state === 'over') {
			if (answer.is === 'granted') this.#return(caller)
			else this.#release(caller)
		} else if (answer.is === 'queued') {
			caller.asked = 'queued'
			if (ticket === 0) caller.ahead = answer.ahead
			queue.inFleet = answer.ahead + 1
			this.#bound(caller)
		} else {
			this.#grant(caller, answer.token)
		}
	}

	/** Gives a permit back to Redis. */
	async #return(permit: Claim): Promise<void> {
		const returning = this.#returning
		returning.add(permit)
		await this.#release(permit)
		returning.delete(permit)
	}

	/** Ends a permit, or a wait, in Redis. */
	async #release(claim: Claim): Promise<void> {
		const active = await this.#membership.ask(release(claim))
		if (active !== undefined) this.#membership.learn(active)
	}

	/**
	 * Bounds the wait of a caller.
	 *
	 * @param atLeast - how long it may wait for an answer of Redis in any case, in ms.
	 */
	#bound(caller: Caller, atLeast = 0): void {
		if (caller.maxWait === Number.POSITIVE_INFINITY || caller.timer !== undefined) return
		const longest = Math.max(caller.maxWait, atLeast)
		const left = Math.max(0, caller.since + longest - performance.now())
		caller.timer = setTimeout(() => {
			const reason = this.#alone.isShut(caller.queue) ? 'unavailable' : 'timeout'
			this.reject(caller, this.rejection(reason, caller.queue))
		}, left).unref()
	}

	#admit(caller: Caller): void {
		this.#leaveQueue(caller)
		caller.state = 'held'
		caller.waited = performance.now() - caller.since
		this.#held.set(caller.id, caller)
		this.active += caller.weight
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

	/** Takes a permit back, which goes to the next caller of the fleet. */
	giveBack(caller: Caller): void {
		const { queue } = caller
		caller.state = 'over'
		this.#held.delete(caller.id)
		this.active -= caller.weight
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
			this.reject(caller, this.rejection(reason, caller.queue))
	}

	/** What the membership asks, and what it tells. */
	#asMember(): MembershipOwner {
		const semaphore = this
		return {
			held: () => [...this.#held.values()],
			get queued() {
				let queued = 0
				for (const { asked } of semaphore.#callers.values()) if (asked === 'queued') queued++
				return queued
			},
			waiting: (most) => this.#queuedInRedis(most),
			get idle() {
				return semaphore.active === 0 && semaphore.#callers.size === 0
			},
			joined: (held) => {
				for (const permit of held) {
					const caller = this.#held.get(permit.id)
					if (caller !== undefined) caller.leased = true
					else this.#return(permit)
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
			resized: (capacity) => this.#owner.resized(capacity),
			lapsed: () => {
				for (const caller of this.#held.values()) if (caller.leased) caller.lose()
				this.#admitAllAlone()
			},
			evictable: (policy) => warnOfEviction(this.#name, policy),
		}
	}

	/**
	 * The session ends while permits are on their way back to Redis. It has given them to nobody else
	 * if no other process waits: so they are free, as far as is known.
	 */
	#learnOfReturning(): void {
		const { fleet, othersWait } = this.#membership
		let { active } = fleet
		if (!othersWait) for (const { weight } of this.#returning) active -= weight
		// What this process holds can be more than what was held in the fleet when Redis last said so.
		this.#membership.learn(Math.max(active, this.active))
		this.#returning = new Set()
	}

	/**
	 * Callers that wait in Redis: the oldest of each key. With many keys, each call returns other
	 * keys.
	 */
	#queuedInRedis(most: number): Claim[] {
		const found: Claim[] = []
		const each = this.#keyed ? 1 : most
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
		if (available) warnOfReturn(this.#name)
		else warnOfOutage(this.#name, reason, this.#alone)
		this.#owner.availability(available)
		if (available) return
		if (this.#alone.rule === 'reject') this.#rejectAll('unavailable')
		this.#admitAllAlone()
	}

	/** The error of a caller of a key that is rejected now. */
	rejection(reason: RejectionReason, queue: KeyQueue<Caller>): RejectedError {
		const { active, queued, capacity } = this.#membership.fleet
		const load =
			queue.key === undefined
				? { active, queued, capacity }
				: { active: queue.active, queued: queue.queued, capacity }
		return new RejectedError(reason, queue.retryAfter, load)
	}

	#settleIdle(): void {
		if (this.active > 0 || this.#callers.size > 0) return
		if (this.closed) this.#membership.close()
		this.#idle?.resolve()
		this.#idle = undefined
	}
}
