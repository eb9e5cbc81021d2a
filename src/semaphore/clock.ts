import { performance as own } from 'node:perf_hooks'
import { setImmediate } from 'node:timers'

const ownNow = own.now.bind(own)

/**
 * Calls back in the next turn of the event loop, even if the global `setImmediate` is replaced or
 * missing.
 */
export const onNextTurn: (callback: () => void) => unknown = setImmediate

/*
 * The clock that measures waits: the platform's, or a fake one while a test fakes the timers. The
 * two can be hours apart, so their times must not be compared. When one replaces the other, this
 * clock goes on from the time that it had.
 *
 * A change is detected by comparing `setTimeout`: looking up `performance` each time would take as
 * long as reading the clock.
 */
let timers: unknown = setTimeout
let clock: { now(): number } = performance
let read = reader(clock)
let offset = 0

/**
 * The time in ms, by the clock of the timers. It does not jump when fake timers are switched on or
 * off.
 */
export function now(): number {
	if (setTimeout !== timers) replaced()
	return read() + offset
}

/** Calls `run`, for which {@link now} is this time. */
export function asOf(time: number, run: () => void): void {
	now()
	const before = read
	read = () => time - offset
	try {
		run()
	} finally {
		read = before
	}
}

/** Whether {@link now} uses the fake clock of a test. */
export function isFaked(): boolean {
	return clock !== own
}

function replaced(): void {
	timers = setTimeout
	const replacement = performance
	if (replacement === clock) return
	const last = read() + offset
	read = reader(replacement)
	// In whole milliseconds, as a fake clock counts in whole ones.
	offset = Math.ceil(last - read())
	clock = replacement
}

function reader(of: { now(): number }): () => number {
	return of === own ? ownNow : () => of.now()
}
