import { performance } from 'node:perf_hooks'

/*
 * When handlers compute more than they wait, requests queue where no limit on concurrency sees them: in the kernel, until
 * the event loop accepts and reads them. As long as the loop waits for events now and then, nothing stands there. When it
 * has not waited for a while, something may stand there. Then all that comes is rejected, cheaply, until what stood there
 * has been read: the next request that is admitted has only just come.
 *
 * How much stood there is known only afterwards: a request for each connection, each of as much work as those before. If it
 * was little, the loop was busy and nothing stood (a few clients that ask again at once, a job in the background), so the
 * loop may be busy for longer the next time. If it was much, for less long.
 */

/**
 * The work that may stand, in ms, and how long the loop may always work without a pause: a queue that was not empty for
 * 100 ms stands, by CoDel (RFC 8289).
 */
const STANDING = 100

/** How long the loop may work without a pause at most, in ms: four doublings of `STANDING`. */
const LONGEST = 1_600

/** What counts as a pause, in ms of waiting for events in all: less is what timers and sockets take between two events. */
const PAUSE = 1

/**
 * After so many turns of the loop in which no request came, nothing stands. As long as something stands, each turn brings
 * some of it; one turn may bring only connections whose clients have gone.
 */
const EMPTY_TURNS = 3

/** For so long after the last rejection, in ms, it counts as overloaded: one that asks only now and then should see it. */
const LATELY = 1_000

/** Its utilization is that of the last second, at least, in ms. */
const WINDOW = 1_000

/** How the event loop does: a plain object, fit for JSON. */
export interface EventLoopStats {
	/**
	 * For how long it has worked without waiting for events, in ms, as far as its requests show: what
	 * comes now may have waited so long in the kernel. 0 if it has waited since.
	 */
	delay: number
	/** The part of the last second, or a little more, in which it was at work: from 0 to 1. */
	utilization: number
	/** Whether it was so late in the last second that requests were rejected. */
	overloaded: boolean
}

/** For how long the loop has waited for events and has worked since it began, in ms. */
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

/** A time in which all that comes is rejected, until what stood has been read. */
interface Drain {
	/** What each request would have taken, in ms. */
	readonly work: number
	readonly connections: WeakSet<object>
	/** Requests on connections that were seen for the first time, and on others. */
	first: number
	again: number
	/** Turns of the loop in which nothing came. */
	emptyTurns: number
	/** Requests in this turn. */
	inTurn: number
}

/** Whether requests wait behind many others in the kernel. It is asked at each arrival, and needs no timer. */
export class EventLoopMonitor {
	readonly #clock: LoopClock
	#drain: Drain | undefined
	/** For how long the loop may work without a pause, in ms. */
	#patience = STANDING
	/** The loop's times at its last pause. At first no time is a pause's: what a process computes as it starts is no queue. */
	#idleThen = Number.NEGATIVE_INFINITY
	#activeThen = 0
	/** Requests since then. */
	#came = 0
	/** The time at work at the arrival before, and the longest between two since the pause, in ms. */
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

	/** Whether all that comes is rejected now. */
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
		// One long piece of work, a collection of garbage for instance, delays many once, but is no queue that stands.
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

	/** While it watches, the loop does not wait for events if it has nothing else to do: a turn takes some microseconds. */
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
