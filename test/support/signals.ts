import type { AbortSignalLike } from '../../src/semaphore/signals.js'

/**
 * Signals that pass the check of options, but don't work as an AbortSignal does: each is made anew
 * for each test.
 */
export const oddSignals: Record<string, () => AbortSignalLike> = {
	'has no removeEventListener': () => ({ aborted: false, addEventListener() {} }) as never,
	'fails to remove a listener': () => ({
		aborted: false,
		addEventListener() {},
		removeEventListener: fail,
	}),
	'fails to add a listener': () => ({
		aborted: false,
		addEventListener: fail,
		removeEventListener() {},
	}),
	'calls its listener at once, twice': () => ({
		aborted: false,
		addEventListener(_: string, listener: { handleEvent(): void }) {
			listener.handleEvent()
			listener.handleEvent()
		},
		removeEventListener() {},
	}),
	'is aborted without a reason': () => abortedSoon({}),
	'fails to tell its reason': () =>
		abortedSoon({
			get reason() {
				return fail()
			},
		}),
	'can’t tell any more whether it is aborted': () => {
		let listens = false
		return {
			get aborted() {
				return listens && fail()
			},
			addEventListener() {
				listens = true
			},
			removeEventListener() {},
		}
	},
}

/** A signal that is aborted soon after somebody listens. */
function abortedSoon(more: object): AbortSignalLike {
	const signal = {
		aborted: false,
		addEventListener(_: string, listener: { handleEvent(): void }) {
			queueMicrotask(() => {
				signal.aborted = true
				listener.handleEvent()
			})
		},
		removeEventListener() {},
	}
	return Object.defineProperties(signal, Object.getOwnPropertyDescriptors(more))
}

function fail(): never {
	throw new Error('mine')
}
