import { Semaphore as ShopifySemaphore } from '@shopify/semaphore'
import { Semaphore as AsyncMutexSemaphore } from 'async-mutex'
import { Sema } from 'async-sema'
import { bulkhead } from 'cockatiel'
import { Semaphore } from 'inflight-limit'
import pLimit from 'p-limit'
import { Bare } from './bare.js'

/**
 * What a user of each package would write. `pairs` acquires and releases `n` times, `attempts` does
 * so without waiting, `caller` is one of many that want a permit for `work`. What a package doesn't
 * have is left out.
 *
 * @typedef {object} Package
 * @property {string} name
 * @property {(capacity: number) => {
 *   pairs?: (n: number) => Promise<void>,
 *   attempts?: (n: number) => void,
 *   run?: (task: () => unknown) => Promise<unknown>,
 *   caller: (work: () => unknown) => Promise<unknown>,
 *   wait?: (signal?: AbortSignal) => Promise<unknown>,
 * }} make
 * @property {boolean} [slow] its queue is not O(1): too slow for many waiters
 */

const BARE = 'bare counter and list'
export const OURS = 'inflight-limit'

/**
 * A counter and a list whose permits count their release once, and nothing else: no options, no
 * bounds.
 */
class OneShot {
	#free
	/** @type {WaitQueue} */
	#waiting = { head: undefined, tail: undefined }

	/** @param {number} capacity */
	constructor(capacity) {
		this.#free = capacity
	}

	/** @returns {Promise<OneShotPermit>} */
	acquire() {
		if (this.#free > 0) {
			this.#free--
			return Promise.resolve(new OneShotPermit(this))
		}
		return new Promise((resolve) => {
			const entry = { resolve, next: undefined }
			if (this.#waiting.tail === undefined) this.#waiting.head = entry
			else this.#waiting.tail.next = entry
			this.#waiting.tail = entry
		})
	}

	giveBack() {
		const { head } = this.#waiting
		if (head === undefined) {
			this.#free++
			return
		}
		this.#waiting.head = head.next
		if (head.next === undefined) this.#waiting.tail = undefined
		head.resolve(new OneShotPermit(this))
	}
}

/** @typedef {{ resolve: (permit: OneShotPermit) => void, next: Entry | undefined }} Entry */
/** @typedef {{ head: Entry | undefined, tail: Entry | undefined }} WaitQueue */

class OneShotPermit {
	/** @type {OneShot | undefined} */
	#owner

	/** @param {OneShot} owner */
	constructor(owner) {
		this.#owner = owner
	}

	release() {
		const owner = this.#owner
		this.#owner = undefined
		owner?.giveBack()
	}
}

/** @type {Package[]} */
export const packages = [
	{
		name: BARE,
		make(capacity) {
			const bare = new Bare(capacity)
			return {
				async pairs(n) {
					for (let i = 0; i < n; i++) {
						await bare.acquire()
						bare.release()
					}
				},
				attempts(n) {
					for (let i = 0; i < n; i++) if (bare.tryAcquire()) bare.release()
				},
				run: (task) => bare.run(task),
				async caller(work) {
					await bare.acquire()
					try {
						return await work()
					} finally {
						bare.release()
					}
				},
				wait: () => bare.acquire(),
			}
		},
	},
	{
		name: OURS,
		make(capacity) {
			const semaphore = new Semaphore(capacity)
			return {
				async pairs(n) {
					for (let i = 0; i < n; i++) {
						const permit = await semaphore.acquire()
						permit.release()
					}
				},
				attempts(n) {
					for (let i = 0; i < n; i++) semaphore.tryAcquire()?.release()
				},
				run: (task) => semaphore.run(task),
				async caller(work) {
					const permit = await semaphore.acquire()
					try {
						return await work()
					} finally {
						permit.release()
					}
				},
				wait: (signal) => semaphore.acquire(signal && { signal }),
			}
		},
	},
	{
		name: 'one-shot permit',
		make(capacity) {
			const oneShot = new OneShot(capacity)
			return {
				async pairs(n) {
					for (let i = 0; i < n; i++) {
						const permit = await oneShot.acquire()
						permit.release()
					}
				},
				async caller(work) {
					const permit = await oneShot.acquire()
					try {
						return await work()
					} finally {
						permit.release()
					}
				},
				wait: () => oneShot.acquire(),
			}
		},
	},
	{
		name: 'async-sema',
		make(capacity) {
			const sema = new Sema(capacity)
			return {
				async pairs(n) {
					for (let i = 0; i < n; i++) {
						await sema.acquire()
						sema.release()
					}
				},
				attempts(n) {
					for (let i = 0; i < n; i++) if (sema.tryAcquire() !== undefined) sema.release()
				},
				async caller(work) {
					await sema.acquire()
					try {
						return await work()
					} finally {
						sema.release()
					}
				},
				wait: () => sema.acquire(),
			}
		},
	},
	{
		name: 'async-mutex',
		slow: true,
		make(capacity) {
			const semaphore = new AsyncMutexSemaphore(capacity)
			return {
				async pairs(n) {
					for (let i = 0; i < n; i++) {
						const [, release] = await semaphore.acquire()
						release()
					}
				},
				run: (task) => semaphore.runExclusive(task),
				async caller(work) {
					const [, release] = await semaphore.acquire()
					try {
						return await work()
					} finally {
						release()
					}
				},
				wait: () => semaphore.acquire(),
			}
		},
	},
	{
		name: '@shopify/semaphore',
		slow: true,
		make(capacity) {
			const semaphore = new ShopifySemaphore(capacity)
			return {
				async pairs(n) {
					for (let i = 0; i < n; i++) {
						const permit = await semaphore.acquire()
						permit.release()
					}
				},
				async caller(work) {
					const permit = await semaphore.acquire()
					try {
						return await work()
					} finally {
						permit.release()
					}
				},
				wait: () => semaphore.acquire(),
			}
		},
	},
	{
		name: 'p-limit',
		make(capacity) {
			const limit = pLimit(capacity)
			return { run: (task) => limit(task), caller: (work) => limit(work) }
		},
	},
	{
		name: 'cockatiel bulkhead',
		slow: true,
		make(capacity) {
			const policy = bulkhead(capacity, Number.POSITIVE_INFINITY)
			return { run: (task) => policy.execute(task), caller: (work) => policy.execute(work) }
		},
	},
]
