import { performance } from 'node:perf_hooks'

/*
 * When handlers compute more than they wait, requests queue where no limit on concurrency sees them: in the kernel, until
 * the event loop accepts and reads them. As long as the loop waits for events now and then, nothing stands there; when it
 * hasn't for a while, something may. Then all that comes is refused, cheaply, until what stood there has been read: who
 * is let in next has only just come.
 *
 * How much that was is known only then: a request for each connection, each of as much work as those before. If it was
 * little, the loop was busy and nothing stood (a few clients that ask again at once, a job in the background, a rush), so it
 * may be busy for longer the next time; if it was much, for less long. (A queue that was not empty for 100 ms stands: that is
 * CoDel's measure, RFC 8289. This one can't be seen, only that it may be there.)
 */

/** The work that may stand, in ms; and for how long the loop may be at work without a pause at least, and still let requests in. */
const STANDING = 100

/** For how long at most, in ms. */
const LONGEST = 1_600

/** What counts as a pause, in ms of waiting for events in all. */
const PAUSE = 1

/**
 * After so many turns of the loop in which nothing came, nothing stands, though turns with requests were among them: as long
 * as something stands, each turn brings some of it, but for a connection whose client has gone.
 */
const EMPTY_TURNS = 3

/** All that comes is refused, until what stood has been read. */
interface Drain {
	/** What each request would have taken, in ms. */
	readonly work: number
	readonly connections: WeakSet<object>
	/** Requests on connections that were seen for the first time, and on others. */
	first: number
	again: number
	/** Turns of the loop in which nothing came. */
	emptyTurns: number
	/** Requests in this one. */
	inTurn: number
}

let drain: Drain | undefined

/** For how long the loop may be at work without a pause, in ms. */
let patience = STANDING

/** The loop's time idle and at work, in ms, at its last pause; `-Infinity`: what a process computes as it starts is no queue. */
let idleThen = Number.NEGATIVE_INFINITY
let activeThen = 0

/** Requests since then. */
let came = 0

/** The time at work at the arrival before, and the longest between two since the pause, in ms. */
let activeBefore = 0
let longest = 0

/** Whether a request that is seen now has been waiting behind many others in the kernel. To be asked at each arrival. */
export function loopIsLate(request: object): boolean {
	if (drain !== undefined && stillStands(drain, request)) return true
	const { idle, active } = performance.eventLoopUtilization()
	if (idle - idleThen >= PAUSE) {
		idleThen = idle
		activeThen = active
		longest = 0
		came = 0
	} else {
		longest = Math.max(longest, active - activeBefore)
	}
	activeBefore = active
	// One long piece of work, a collection of garbage for instance, delays many once, but is no queue that stands.
	const work = active - activeThen - longest
	if (work <= patience) {
		came++
		return false
	}
	drain = { work: work / came, connections: new WeakSet(), first: 0, again: 0, emptyTurns: 0, inTurn: 0 }
	setImmediate(watch, drain)
	return stillStands(drain, request)
}

function stillStands(drain: Drain, request: object): boolean {
	const connection = (request as { socket?: object | null }).socket ?? request
	if (drain.connections.has(connection)) drain.again++
	else drain.first++
	drain.connections.add(connection)
	drain.inTurn++
	if (drain.again < drain.first) return true
	end(drain)
	return false
}

/** Without anything else to do, the loop doesn't wait for events meanwhile: a turn takes some microseconds. */
function watch(watched: Drain): void {
	if (watched !== drain) return
	if (drain.inTurn === 0) drain.emptyTurns++
	drain.inTurn = 0
	if (drain.emptyTurns === EMPTY_TURNS) end(drain)
	else setImmediate(watch, drain)
}

function end({ first, work }: Drain): void {
	patience = Math.max(STANDING, Math.min(LONGEST, 2 * patience, (patience * STANDING) / (first * work)))
	drain = undefined
	idleThen = Number.NEGATIVE_INFINITY
}
