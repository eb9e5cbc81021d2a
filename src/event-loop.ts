import { performance } from 'node:perf_hooks'

/*
 * When handlers compute more than they wait, requests queue where no limit on concurrency sees them: in their sockets,
 * until the event loop reads them. In one turn the loop reads all that had come on open connections, in the order in
 * which it came, and runs the handlers one after the other; under overload each has waited longer than the one before.
 * So those seen late in a turn are refused, cheaply, until it is over: that keeps the next turn short as well.
 */

/** How long the loop may have been at work in one turn, in ms, when it lets another request in. */
const TURN = 50

/** Whether the present turn has seen a request, and the loop's time at work when it saw the first one, in ms. */
let seen = false
let activeThen = 0

/** The check phase follows the one that reads the sockets: it ends the turn. */
function endTurn(): void {
	seen = false
}

/** Whether a request that is seen now comes late in a turn of the event loop. To be asked at each arrival. */
export function loopIsLate(): boolean {
	// Time at work, and not on the clock: what the loop waits for events is no delay.
	const { active } = performance.eventLoopUtilization()
	if (seen) return active - activeThen > TURN
	seen = true
	activeThen = active
	setImmediate(endTurn).unref()
	return false
}
