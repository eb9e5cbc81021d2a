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
 * Where the audience of a signal is found. A `WeakMap` would cost more at each garbage collection.
 */
const AUDIENCE: unique symbol = Symbol('inflight-limit.audience')

type Target = AbortSignalLike & EventTarget & { [AUDIENCE]?: Audience | undefined }

/**
 * All listeners of this package on one signal, as one listener. Many waiters can have the same
 * signal, such as that of a shutdown, and Node compares each new listener with all before it.
 */
class Audience {
	readonly listeners: Set<Listener> = new Set()
	readonly #target: Target

	constructor(target: Target) {
		this.#target = target
	}

	handleEvent(): void {
		this.#target[AUDIENCE] = undefined
		for (const listener of this.listeners) listener.handleEvent()
	}
}

/** Whether many can listen to a signal, and it can carry its audience. */
function isTarget(signal: AbortSignalLike): signal is Target {
	return signal instanceof EventTarget && Object.isExtensible(signal)
}

/**
 * Calls `listener`, which must not throw, when `signal` is aborted.
 *
 * @throws what `signal.addEventListener` throws.
 */
export function listen(signal: AbortSignalLike, listener: Listener): void {
	if (!isTarget(signal)) {
		signal.addEventListener('abort', listener, ONCE)
		return
	}
	let audience = signal[AUDIENCE]
	if (audience === undefined) {
		audience = new Audience(signal)
		signal.addEventListener('abort', audience, ONCE)
		signal[AUDIENCE] = audience
	}
	audience.listeners.add(listener)
}

/** Never throws. A listener that is left behind must do nothing when it is called. */
export function unlisten(signal: AbortSignalLike, listener: Listener): void {
	try {
		if (!isTarget(signal)) {
			signal.removeEventListener('abort', listener)
			return
		}
		const audience = signal[AUDIENCE]
		audience?.listeners.delete(listener)
		if (audience === undefined || audience.listeners.size > 0) return
		signal[AUDIENCE] = undefined
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
