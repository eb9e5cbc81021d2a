/*
 * From a lost lease to the signal of a handler: `check` in membership.ts notices that the lease has
 * ended, `lapsed` in limiter.ts goes through the permits held, and `lose` in caller.ts aborts the
 * signal of each. `either` below joins that signal with the one for a client that leaves.
 */

/**
 * The permit was lost: its process was paused, blocked or cut off, and could not renew its lease in
 * time. Another process may hold the permit now.
 *
 * Recognise it by `code`, not by `instanceof`: one process can hold two copies of this package.
 */
export class LeaseLostError extends Error {
	override readonly name: string = 'LeaseLostError'
	readonly code = 'ERR_INFLIGHT_LEASE_LOST'
}

const aborted = Object.getOwnPropertyDescriptor(AbortSignal.prototype, 'aborted')
	?.get as () => boolean
const reason = Object.getOwnPropertyDescriptor(AbortSignal.prototype, 'reason')
	?.get as () => unknown
const { throwIfAborted } = AbortSignal.prototype

/**
 * A signal that calls `check` at each read of `aborted` or `reason`. A timer alone would be too
 * late: after a pause of the process, other callbacks that are due may run before it.
 */
export function watchedSignal(controller: AbortController, check: () => void): AbortSignal {
	const { signal } = controller
	return Object.defineProperties(signal, {
		aborted: {
			configurable: true,
			get: () => {
				check()
				return aborted.call(signal)
			},
		},
		reason: {
			configurable: true,
			get: () => {
				check()
				return reason.call(signal)
			},
		},
		throwIfAborted: {
			configurable: true,
			value: () => {
				check()
				throwIfAborted.call(signal)
			},
		},
	})
}

/**
 * A signal that is aborted with the first of two, and that checks the lease at each read, as the
 * second one does.
 */
export function either(client: AbortSignal, permit: AbortSignal): AbortSignal {
	const controller = new AbortController()
	for (const signal of [client, permit]) {
		if (signal.aborted) controller.abort(signal.reason)
		signal.addEventListener('abort', () => controller.abort(signal.reason), { once: true })
	}
	return watchedSignal(controller, () => permit.aborted)
}
