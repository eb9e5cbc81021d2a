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
let timers: unknown = setTimeout
let clock: { now(): number } = performance
let read = reader(clock)
let offset = 0

/** The time, in ms, by the clock that timers go by. It does not jump when fake timers are switched on or off. */
export function now(): number {
	if (setTimeout !== timers) replaced()
	return read() + offset
}

/** Whether {@link now} goes by the clock of a test. */
export function isFaked(): boolean {
	return clock !== own
}

function replaced(): void {
	timers = setTimeout
	const replacement = performance
	if (replacement === clock) return
	const last = read() + offset
	read = reader(replacement)
	// Whole milliseconds, so that the whole ones of a fake clock stay such.
	offset = Math.ceil(last - read())
	clock = replacement
}

function reader(of: { now(): number }): () => number {
	return of === own ? ownNow : () => of.now()
}
