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
 * All listeners of this package on one signal, as one listener. Many waiters can have the same
 * signal, such as that of a shutdown, and Node compares each new listener with all before it.
 */
class Audience {
	readonly listeners: Set<Listener> = new Set()
	readonly #signal: AbortSignalLike

	constructor(signal: AbortSignalLike) {
		this.#signal = signal
	}

	handleEvent(): void {
		audiences.delete(this.#signal)
		for (const listener of this.listeners) listener.handleEvent()
	}
}

const audiences = new WeakMap<AbortSignalLike, Audience>()

/**
 * Calls `listener`, which must not throw, when `signal` is aborted.
 *
 * @throws what `signal.addEventListener` throws.
 */
export function listen(signal: AbortSignalLike, listener: Listener): void {
	const known = audiences.get(signal)
	const audience = known ?? new Audience(signal)
	audience.listeners.add(listener)
	if (known !== undefined) return
	audiences.set(signal, audience)
	try {
		signal.addEventListener('abort', audience, ONCE)
	} catch (error) {
		audiences.delete(signal)
		throw error
	}
}

/** Never throws. A listener that is left behind must do nothing when it is called. */
export function unlisten(signal: AbortSignalLike, listener: Listener): void {
	const audience = audiences.get(signal)
	audience?.listeners.delete(listener)
	if (audience === undefined || audience.listeners.size > 0) return
	audiences.delete(signal)
	try {
		signal.removeEventListener('abort', audience)
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

/** Why it was aborted. Never throws: what it throws instead is the reason. */
export function reasonOf(signal: AbortSignalLike): unknown {
	try {
		return signal.reason
	} catch (error) {
		return error
	}
}
