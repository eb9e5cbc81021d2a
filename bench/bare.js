/** What everything is measured against: a counter, a linked list of resolvers, and nothing else. */
export class Bare {
	#free
	/** @type {{ resolve: (value?: undefined) => void, next: any } | undefined} */
	#head = undefined
	/** @type {{ resolve: (value?: undefined) => void, next: any } | undefined} */
	#tail = undefined

	/** @param {number} capacity */
	constructor(capacity) {
		this.#free = capacity
	}

	/** @returns {Promise<void>} */
	acquire() {
		if (this.#free > 0) {
			this.#free--
			return Promise.resolve()
		}
		return new Promise((resolve) => {
			const entry = { resolve, next: undefined }
			if (this.#tail === undefined) this.#head = entry
			else this.#tail.next = entry
			this.#tail = entry
		})
	}

	tryAcquire() {
		if (this.#free === 0) return false
		this.#free--
		return true
	}

	release() {
		const head = this.#head
		if (head === undefined) {
			this.#free++
			return
		}
		this.#head = head.next
		if (head.next === undefined) this.#tail = undefined
		head.resolve()
	}

	/** @template T @param {() => T | PromiseLike<T>} task */
	async run(task) {
		await this.acquire()
		try {
			return await task()
		} finally {
			this.release()
		}
	}
}
