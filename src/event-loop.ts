import { performance } from 'node:perf_hooks'

/*
 * When handlers compute more than they wait, requests queue where no limit on concurrency sees them: in the kernel, until
 * the event loop accepts and reads them. As long as the loop waits for events now and then, nothing stands there; when
 * it hasn't for a while, something does. Then all that comes is refused, cheaply, until the loop has caught up and waits
 * again: who is let in next has only just come. (A queue that was not empty for 100 ms stands: that is CoDel's measure,
 * RFC 8289. This one can't be seen, only that it must be there.)
 */

/** How long the loop may be at work without a pause, in ms, and still let requests in. */
const STANDING = 100

/** What counts as a pause, in ms of waiting for events in all. */
const PAUSE = 1

/** The loop's time idle and at work, in ms, at its last pause; `-Infinity`: what a process computes as it starts is no queue. */
let idleThen = Number.NEGATIVE_INFINITY
let activeThen = 0

/** The time at work at the arrival before, and the longest between two since the pause, in ms. */
let activeBefore = 0
let longest = 0

/** Whether a request that is seen now has been waiting behind many others in the kernel. To be asked at each arrival. */
export function loopIsLate(): boolean {
	const { idle, active } = performance.eventLoopUtilization()
	if (idle - idleThen >= PAUSE) {
		idleThen = idle
		activeThen = active
		longest = 0
	} else {
		longest = Math.max(longest, active - activeBefore)
	}
	activeBefore = active
	// One long piece of work, a collection of garbage for instance, delays many once, but is no queue that stands.
	return active - activeThen - longest > STANDING
}
