import { performance as own } from 'node:perf_hooks'
import { setImmediate } from 'node:timers'

const ownNow = own.now.bind(own)

/** Calls back when the event loop has turned, also where `setImmediate` is replaced or missing. */
export const onNextTurn: (callback: () => void) => unknown = setImmediate

/*
 * The clock of waiting: the platform's, or that of a test's fake timers while they are in place. One must not be
 * compared with the other: they can be hours apart. So this clock goes on where it was when one replaces the other.
 *
 * Whether they were replaced is seen by `setTimeout`: to look `performance` up each time takes as long as to read it.
 */
let timers: unknown
let clock: unknown
let read = ownNow
let offset = 0
let last = 0

/** The time, in ms, by the clock that timers go by. It does not jump when fake timers are switched on or off. */
export function now(): number {
	if (setTimeout !== timers) replaced()
	last = read() + offset
	return last
}

/** Whether {@link now} goes by the clock of a test. */
export function isFaked(): boolean {
	return clock !== own
}

function replaced(): void {
	timers = setTimeout
	if (performance === clock) return
	const replacement = performance
	read = replacement === own ? ownNow : () => replacement.now()
	// Whole milliseconds, so that the whole ones of a fake clock stay such.
	offset = clock === undefined ? 0 : Math.ceil(last - read())
	clock = replacement
}
