import { type Controller, checkFound } from '../adaptive/controller.js'
import { checkWeight, LONGEST_TIMER } from '../checks.js'
import { inWords, RejectedError, type RejectionReason, withoutStack } from '../errors.js'
import { type Rank, RankedWaiter } from '../queue/group.js'
import type { ScheduledQueue } from '../queue/scheduled-queue.js'
import type { Scheduling } from '../queue/scheduling.js'
import { now } from '../semaphore/clock.js'
import { Pace } from '../semaphore/pace.js'
import type { Permit } from '../semaphore/permit.js'
import { Permits, Waiter } from '../semaphore/permits.js'
import { type AbortSignalLike, hasAborted } from '../semaphore/signals.js'
import { WaitQueue } from '../semaphore/wait-queue.js'
import type { Figures } from '../stats/figures.js'
import type { Outcome } from '../stats/observer.js'
import type { Queued, Rejected, Stay } from './gate.js'

/** What the partitions of a limiter have in common. */
export interface Common {
	readonly maxQueue: number
	readonly maxWait: number
	/** `undefined`: first come, first served. */
	readonly scheduling: Scheduling | undefined
	/**
	 * Whether the queue is bounded by the capacity that the controller finds: `maxQueue` was not
	 * given.
	 */
	readonly shortQueue: boolean
	readonly figures: Figures
	/** The pace of all partitions, for a partition that has measured none yet. */
	readonly pace: Pace
	/** Whether its requests are virtual (dry-run.ts). */
	readonly dryRun: boolean
	/** Is called when nothing is at work and nothing waits in a partition that has a key. */
	forget(partition: Partition): void
}

const WARNING = { type: 'InflightLimitWarning', code: 'INFLIGHT_CONTROLLER' }

/** A failing controller is reported once for a limiter. */
const warned = new WeakSet<Common>()

/**
 * The limit of one key, or of all requests without `key`: its permits, its queue, and how its
 * capacity is found.
 */
export class Partition {
	readonly key: string | undefined
	readonly #common: Common
	readonly #permits: Permits<Waiter>
	/** The queue, if requests have ranks in it; `undefined`: first come, first served. */
	readonly #queue: ScheduledQueue<RankedWaiter> | undefined
	/**
	 * Each partition has its own: slow requests of one client must not cause rejections of others.
	 */
	readonly #pace: Pace
	readonly #controller: Controller | undefined
	/** Requests at work whose client has left. */
	#abandoned = 0

	/** @param capacity - a number, or the controller that finds it. */
	constructor(common: Common, key: string | undefined, capacity: number | Controller) {
		this.#common = common
		this.key = key
		this.#pace = new Pace(common.pace)
		this.#queue = common.scheduling?.newQueue<RankedWaiter>(this.#pace)
		this.#controller = typeof capacity === 'number' ? undefined : capacity
		const initial = typeof capacity === 'number' ? capacity : capacity.initial
		this.#permits =
			this.#queue === undefined
				? new Permits(initial, new WaitQueue<Waiter>(), this.#pace, common.dryRun)
				: (new Permits(
						initial,
						this.#queue,
						this.#pace,
						common.dryRun,
					) as unknown as Permits<Waiter>)
	}

	get capacity(): number {
		return this.#permits.capacity
	}

	get active(): number {
		return this.#permits.active
	}

	get queued(): number {
		return this.#permits.queued
	}

	/** Why the controller found this capacity, if it says so. */
	get reason(): string | undefined {
		return this.#controller?.reason
	}

	get idle(): boolean {
		return this.#permits.active === 0 && this.#permits.queued === 0
	}

	/**
	 * A weight above a capacity that a controller found is no error: the request takes all permits.
	 */
	checkWeight(weight: number): number {
		const controller = this.#controller
		if (controller === undefined) return checkWeight(weight, this.#permits.capacity)
		return Math.min(
			checkWeight(weight, controller.max ?? Number.POSITIVE_INFINITY),
			this.#permits.capacity,
		)
	}

	/**
	 * Admits a request, queues it, or rejects it.
	 *
	 * @param rank - determines its turn; `undefined`: first come, first served.
	 * @param left - the time until its deadline, in ms.
	 */
	enter(
		weight: number,
		rank: Rank | undefined,
		left: number,
		signal: AbortSignalLike,
	): Stay | Queued | Rejected {
		if (left > 0) {
			const permit = this.#permits.tryAcquire(weight)
			if (permit !== undefined) {
				if (rank !== undefined) this.#queue?.hold(rank)
				return this.#admit(permit, 0, rank, now())
			}
		}
		const time = now()
		const reason = this.#reasonToReject(weight, rank, left, time)
		if (reason !== undefined) return this.reject(reason, weight)
		return { tag: 'waiting', settled: this.#wait(weight, rank, left, time, signal) }
	}

	reject(reason: RejectionReason, weight: number): Rejected {
		const error = withoutStack(() => this.#permits.rejection(reason, weight))
		return this.#rejected(error, 0)
	}

	resize(capacity: number): void {
		this.#permits.resize(capacity)
	}

	close(): void {
		this.#permits.close()
	}

	onIdle(): Promise<void> {
		return this.#permits.onIdle()
	}

	/** Changes how many permits a stay has. */
	weigh(stay: PartitionStay, weight: number): void {
		const { permit, rank } = stay
		if (rank !== undefined) {
			stay.rank = { ...rank, weight }
			const more = weight - rank.weight
			// Before permits are handed on, as it decides which one is next.
			if (more > 0) this.#queue?.hold({ ...rank, weight: more })
			else if (more < 0) this.#queue?.release({ ...rank, weight: -more }, now() - stay.since)
		}
		permit.weigh(weight)
	}

	/** The client of a stay has left, and its handler is still at work. */
	abandon(): void {
		this.#abandoned++
		this.#common.figures.leftBehind++
	}

	/** Ends a stay. */
	leave(stay: PartitionStay, outcome: Outcome): void {
		const time = now()
		const held = time - stay.since
		if (this.#controller !== undefined) this.#adapt(this.#controller, held, outcome, time)
		this.#giveBack(stay.permit, stay.rank, held)
		if (stay.abandoned) {
			this.#abandoned--
			this.#common.figures.leftBehind--
		}
		this.#common.figures.released(stay.waited, held, outcome, this.key, this)
	}

	/** Why a request that found no room must not wait either; `undefined`: it may wait. */
	#reasonToReject(
		weight: number,
		rank: Rank | undefined,
		left: number,
		time: number,
	): RejectionReason | undefined {
		const permits = this.#permits
		if (permits.closed) return 'closed'
		if (left <= 0) return 'timeout'
		// Rejected requests count as demand, so that the pace goes on being measured.
		permits.noteFull(time)
		if (left !== Number.POSITIVE_INFINITY && left <= this.#forecast(weight, rank, time))
			return 'timeout'
		// A request that takes the place of another does not lengthen the queue. So it may wait even if
		// the queue is above its bound, because the capacity shrank.
		const makesRoom = rank !== undefined && this.#makeRoom(rank, time)
		if (!makesRoom && permits.queued >= this.maxQueue) return 'queue-full'
		return this.#common.maxWait === 0 ? 'timeout' : undefined
	}

	/** An estimate of the time until a newcomer is done, in ms; 0 if nothing was measured. */
	#forecast(weight: number, rank: Rank | undefined, time: number): number {
		this.#pace.update(time)
		const ahead = rank === undefined ? this.#permits.wanted : (this.#queue?.ahead(rank) ?? 0)
		// While the newcomer is at work itself, as many permits come back as are held.
		return this.#pace.timeFor(ahead + weight + this.#permits.active)
	}

	/**
	 * Rejects requests that have waited too long and, if the queue is full, one that has less right
	 * to wait than a newcomer.
	 *
	 * @returns whether one was evicted.
	 */
	#makeRoom(rank: Rank, time: number): boolean {
		const permits = this.#permits
		const queue = this.#queue as ScheduledQueue<RankedWaiter>
		for (;;) {
			const late = queue.overstayed(rank, time)
			if (late === undefined) break
			permits.reject(late, permits.rejection('timeout', late.weight))
		}
		if (queue.size < this.maxQueue) return false
		const evicted = queue.lessEntitled(rank, time)
		if (evicted !== undefined) permits.reject(evicted, permits.rejection('evicted', evicted.weight))
		return evicted !== undefined
	}

	/**
	 * How many may wait. With a controller, the queue must only bridge the gaps between arrivals: a
	 * longer queue would make each wait longer, and no more requests would be served.
	 */
	get maxQueue(): number {
		const { maxQueue, shortQueue } = this.#common
		if (!shortQueue) return maxQueue
		// To choose the next one by rank, there must be several to choose from.
		const short =
			this.#queue === undefined ? Math.ceil(this.capacity / 4) : Math.max(20, this.capacity)
		return Math.min(maxQueue, short)
	}

	async #wait(
		weight: number,
		rank: Rank | undefined,
		left: number,
		since: number,
		signal: AbortSignalLike,
	): Promise<Stay | Rejected> {
		const permits = this.#permits
		const { queued } = permits
		const longest = Math.min(this.#common.maxWait, left)
		const maxWait = longest > LONGEST_TIMER ? Number.POSITIVE_INFINITY : longest
		let error: unknown
		try {
			const waiter =
				rank === undefined
					? new Waiter(permits, weight, since)
					: new RankedWaiter(permits, rank, since)
			const permit = await permits.wait(waiter, maxWait, signal)
			// The request can be over after the permit was handed to it and before this line runs.
			if (!hasAborted(signal)) return this.#admit(permit, queued, rank, since + permit.waited)
			this.#giveBack(permit, rank, 0)
		} catch (caught) {
			error = caught
		}
		const rejection =
			error instanceof RejectedError
				? error
				: withoutStack(() => permits.rejection('aborted', weight))
		const rejected = this.#rejected(rejection, now() - since)
		// The last permit of a key can have come back while this request still waited.
		this.#forgetIfIdle()
		return rejected
	}

	#admit(permit: Permit, queued: number, rank: Rank | undefined, since: number): Stay {
		const stay = new PartitionStay(this, permit, rank, queued, this.#permits.available, since)
		this.#common.figures.admitted(permit.waited, this.key, this)
		return stay
	}

	#rejected(error: RejectedError, waited: number): Rejected {
		this.#common.figures.rejected(error.reason, waited, this.key, this)
		return { tag: 'rejected', error }
	}

	#giveBack(permit: Permit, rank: Rank | undefined, held: number): void {
		// Before the permit is handed on, as it decides which one is next.
		if (rank !== undefined) this.#queue?.release(rank, held)
		permit.release()
		this.#forgetIfIdle()
	}

	#forgetIfIdle(): void {
		if (this.key !== undefined && this.idle) this.#common.forget(this)
	}

	/**
	 * Reports a request that is over to the controller, before its permit is handed on, and sets the
	 * capacity that it returns.
	 */
	#adapt(controller: Controller, held: number, outcome: Outcome, time: number): void {
		const { active, queued } = this
		try {
			const abandoned = this.#abandoned
			const capacity = controller.sample({ held, active, queued, abandoned, outcome, now: time })
			if (capacity === this.capacity) return
			this.#permits.resize(checkFound(capacity, controller))
			this.#common.figures.resized(capacity, this.key)
		} catch (error) {
			// The permit must come back all the same.
			if (!warned.has(this.#common)) {
				process.emitWarning(`The controller of a limiter failed: ${inWords(error)}`, WARNING)
			}
			warned.add(this.#common)
		}
	}
}

class PartitionStay implements Stay {
	readonly permit: Permit
	rank: Rank | undefined
	readonly queued: number
	readonly available: number
	/** When it began, in ms. */
	readonly since: number
	abandoned = false
	/** `undefined` once it is over. */
	#partition: Partition | undefined

	constructor(
		partition: Partition,
		permit: Permit,
		rank: Rank | undefined,
		queued: number,
		available: number,
		since: number,
	) {
		this.#partition = partition
		this.permit = permit
		this.rank = rank
		this.queued = queued
		this.available = available
		this.since = since
	}

	get tag(): 'admitted' {
		return 'admitted'
	}

	get capacity(): number {
		return this.#partition?.capacity ?? Number.POSITIVE_INFINITY
	}

	get waited(): number {
		return this.permit.waited
	}

	weigh(weight: number): void {
		checkWeight(weight, Number.POSITIVE_INFINITY)
		this.#partition?.weigh(this, weight)
	}

	abandon(): void {
		if (this.#partition === undefined || this.abandoned) return
		this.abandoned = true
		this.#partition.abandon()
	}

	leave(outcome: Outcome): void {
		const partition = this.#partition
		this.#partition = undefined
		partition?.leave(this, outcome)
	}
}
