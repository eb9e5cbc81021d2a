import { performance } from 'node:perf_hooks'

/*
 * When handlers compute more than they wait, requests queue where no limit on concurrency sees
 * them: in the kernel, until the event loop accepts and reads them. While the loop pauses now and
 * then to wait for events, this queue becomes empty each time. After a long time without a pause,
 * it may be long. Then all arriving requests are rejected, cheaply, until the queue has been read:
 * the next request that is admitted has only just arrived.
 *
 * The length of the queue is known only afterwards: one request for each connection, with as much
 * work as the requests before. If it was short, the loop was only busy (a few clients that ask
 * again at once, a job in the background), so next time the loop may be busy for longer. If it was
 * long, for less time.
 */

/**
 * The work that may be queued, in ms, and the time without a pause that is always allowed. In CoDel
 * (RFC 8289), a queue that was not empty for 100 ms is a standing queue.
 */
const STANDING = 100

/** The longest time without a pause that is allowed, in ms: `STANDING`, doubled four times. */
const LONGEST = 1_600

/** The shortest pause, in ms of waiting for events. The loop waits for less between two events. */
const PAUSE = 1

/**
 * The queue is empty after this number of turns of the loop without a request. While it is not,
 * each turn reads some of it; but one turn may read only connections whose clients have left.
 */
const EMPTY_TURNS = 3

/** How long it counts as overloaded after the last rejection, in ms: a probe asks only seldom. */
const LATELY = 1_000

/** The utilization is measured over at least this time, in ms. */
const WINDOW = 1_000

/** The state of the event loop: a plain object, fit for JSON. */
export interface EventLoopStats {
	/**
	 * How long it has worked without a pause, in ms: a request that arrives now may have waited this
	 * long in the kernel. 0 after a pause.
	 */
	delay: number
	/** The fraction of the last second, or a little more, in which it was at work: from 0 to 1. */
	utilization: number
	/** Whether requests were rejected in the last second because it was late. */
	overloaded: boolean
}

/** How long the loop has waited for events, and worked, since it began, in ms. */
interface Times {
	readonly idle: number
	readonly active: number
}

/** What a monitor needs of the process. */
export interface LoopClock {
	times(): Times
	/** Calls `run` in the next turn of the loop. */
	nextTurn(run: () => void): void
}

const processClock: LoopClock = {
	times: () => performance.eventLoopUtilization(),
	nextTurn: (run) => void setImmediate(run),
}

/** A phase in which all arriving requests are rejected, until the queue has been read. */
interface Drain {
	/** The work of one request, in ms. */
	readonly work: number
	readonly connections: WeakSet<object>
	/** Requests on connections that were seen for the first time, and on others. */
	first: number
	again: number
	/** Turns of the loop without a request. */
	emptyTurns: number
	/** Requests in this turn. */
	inTurn: number
}

/** Notices when requests wait behind many others in the kernel. It needs no timer. */
export class EventLoopMonitor {
	readonly #clock: LoopClock
	#drain: Drain | undefined
	/** How long the loop may work without a pause, in ms. */
	#patience = STANDING
	/**
	 * The loop's times at its last pause. The first request counts as one: work at startup is no
	 * queue.
	 */
	#idleThen = Number.NEGATIVE_INFINITY
	#activeThen = 0
	/** Requests since the pause. */
	#came = 0
	/**
	 * Time at work at the last arrival, and the longest between two arrivals since the pause, in ms.
	 */
	#activeBefore = 0
	#longest = 0
	/** The time of the last rejection, in ms since the loop began. */
	#rejectedAt = Number.NEGATIVE_INFINITY
	/** The loop's times when the last two windows began. */
	#window: Times = { idle: 0, active: 0 }
	#windowBefore: Times = this.#window

	constructor(clock: LoopClock = processClock) {
		this.#clock = clock
	}

	/** Whether all arriving requests are rejected now. */
	get draining(): boolean {
		return this.#drain !== undefined
	}

	/** Whether requests were rejected in the last second. */
	get overloaded(): boolean {
		const { idle, active } = this.#clock.times()
		return idle + active - this.#rejectedAt < LATELY
	}

	stats(): EventLoopStats {
		const times = this.#clock.times()
		this.#beginWindow(times)
		const { idle, active } = times
		const before = this.#windowBefore
		const time = idle + active - before.idle - before.active
		return {
			delay: idle - this.#idleThen < PAUSE ? active - this.#activeThen : 0,
			utilization: time > 0 ? (active - before.active) / time : 0,
			overloaded: this.overloaded,
		}
	}

	/**
	 * To be asked once for each request that arrives.
	 *
	 * @returns whether it has waited behind many others in the kernel, and should be rejected.
	 */
	isLate(request: object): boolean {
		const late = this.#isLate(request)
		if (late) {
			const { idle, active } = this.#clock.times()
			this.#rejectedAt = idle + active
		}
		return late
	}

	#isLate(request: object): boolean {
		if (this.#drain !== undefined && this.#stillStands(this.#drain, request)) return true
		const times = this.#clock.times()
		this.#beginWindow(times)
		const { idle, active } = times
		if (idle - this.#idleThen >= PAUSE) {
			this.#idleThen = idle
			this.#activeThen = active
			this.#longest = 0
			this.#came = 0
		} else {
			this.#longest = Math.max(this.#longest, active - this.#activeBefore)
		}
		this.#activeBefore = active
		// One long piece of work, like a garbage collection, delays many requests once. It is no queue.
		const work = active - this.#activeThen - this.#longest
		if (work <= this.#patience) {
			this.#came++
			return false
		}
		const drain: Drain = {
			work: work / this.#came,
			connections: new WeakSet(),
			first: 0,
			again: 0,
			emptyTurns: 0,
			inTurn: 0,
		}
		this.#drain = drain
		this.#clock.nextTurn(() => this.#watch(drain))
		return this.#stillStands(drain, request)
	}

	#beginWindow(times: Times): void {
		const { idle, active } = this.#window
		if (times.idle + times.active - idle - active < WINDOW) return
		this.#windowBefore = this.#window
		this.#window = times
	}

	#stillStands(drain: Drain, request: object): boolean {
		const connection = (request as { socket?: object | null }).socket ?? request
		if (drain.connections.has(connection)) drain.again++
		else drain.first++
		drain.connections.add(connection)
		drain.inTurn++
		if (drain.again < drain.first) return true
		this.#end(drain)
		return false
	}

	/** While it watches, an idle loop does not wait for events: it turns every few microseconds. */
	#watch(drain: Drain): void {
		if (drain !== this.#drain) return
		if (drain.inTurn === 0) drain.emptyTurns++
		drain.inTurn = 0
		if (drain.emptyTurns === EMPTY_TURNS) this.#end(drain)
		else this.#clock.nextTurn(() => this.#watch(drain))
	}

	#end({ first, work }: Drain): void {
		const stood = first * work
		this.#patience = Math.min(LONGEST, 2 * this.#patience, (this.#patience * STANDING) / stood)
		this.#patience = Math.max(STANDING, this.#patience)
		this.#drain = undefined
		this.#idleThen = Number.NEGATIVE_INFINITY
	}
}

/** The monitor of this process: it has one event loop, whatever the number of limiters. */
export const eventLoop: EventLoopMonitor = new EventLoopMonitor()
