import { setMaxListeners } from 'node:events'

/*
 * A signal may be the user's own, and its functions may throw. Before there is a permit, the caller
 * gets that error. After that, no error of a signal may keep the permit from coming back.
 */

/** The part of `AbortSignal` that is used. */
export interface AbortSignalLike {
	readonly aborted: boolean
	readonly reason?: unknown
	addEventListener(type: 'abort', listener: { handleEvent(): void }, options: { once: true }): void
	removeEventListener(type: 'abort', listener: { handleEvent(): void }): void
}

type Listener = Parameters<AbortSignalLike['addEventListener']>[1]

/** One object for all listeners. */
const ONCE = { once: true } as const

/**
 * Calls `listener` when `signal` is aborted.
 *
 * @throws what `signal.addEventListener` throws.
 */
export function listen(signal: AbortSignalLike, listener: Listener): void {
	// Many waiters on one signal, such as that of a shutdown, are no leak: each removes its listener.
	// Not 0: Node's `getMaxListeners`, which undici calls, throws for that.
	if (signal instanceof EventTarget) setMaxListeners(Number.POSITIVE_INFINITY, signal)
	signal.addEventListener('abort', listener, ONCE)
}

/** Never throws. A listener that is left behind must do nothing when it is called. */
export function unlisten(signal: AbortSignalLike, listener: Listener): void {
	try {
		signal.removeEventListener('abort', listener)
	} catch {
		// See above.
	}
}

/** Whether the wait was for nothing. Never throws: a signal that can't tell counts as aborted. */
export function hasAborted(signal: AbortSignalLike): boolean {
	try {
		return signal.aborted
	} catch {
		return true
	}
}
