import { performance } from 'node:perf_hooks'

/*
 * When handlers compute more than they wait, requests queue where no limit on concurrency sees them: in their sockets,
 * until the event loop reads them, and in the loop, behind what it read before. In one turn the loop reads all that had
 * come and runs the handlers one after the other; so whoever is seen late in a turn has waited that long already, and
 * is the oldest. Those are refused, cheaply, until the turn is over; the next turn begins with the newest.
 */

/** How long the loop may have been at work in one turn, in ms, when it lets another request in. */
const TURN = 50

/** What part of a turn the loop must have been at work for it to be late: less is waiting for events. */
const BUSY = 0.9

// None has begun: what was computed before the first request is no turn.
let turnBegan = Number.POSITIVE_INFINITY
let activeThen = 0
let marked = false

/** The check phase follows the one that reads the sockets: after it, a new turn begins. */
function endTurn(): void {
	turnBegan = performance.now()
	activeThen = performance.eventLoopUtilization().active
	marked = false
}

/** Whether a request that is seen now comes late in a turn of the event loop. To be asked at each arrival. */
export function loopIsLate(): boolean {
	if (!marked) {
		marked = true
		setImmediate(endTurn).unref()
	}
	const elapsed = performance.now() - turnBegan
	if (elapsed < TURN) return false
	const active = performance.eventLoopUtilization().active - activeThen
	return active > TURN && active > BUSY * elapsed
}
