/**
 * A simulated database. Up to `KNEE` queries at once it does each at full speed; with more, they
 * stand in each other's way, and all together become slower: as locks, caches and connections do.
 */
export class Database {
	/** How many times as long each query takes as usual. */
	slowness = 1
	/** @type {Set<{ left: number, done: () => void }>} */
	#queries = new Set()
	#before = performance.now()
	#timer = setInterval(() => this.#work(), 10)

	/** Queries at work now. */
	get active() {
		return this.#queries.size
	}

	/** @param {number} ms - how long it takes when nothing stands in its way */
	query(ms) {
		return new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
			this.#queries.add({ left: ms * (0.5 + Math.random()), done: resolve })
		})
	}

	close() {
		clearInterval(this.#timer)
	}

	#work() {
		const now = performance.now()
		const passed = now - this.#before
		this.#before = now
		const over = Math.max(0, this.#queries.size - KNEE) / KNEE
		const speed = Math.min(1, KNEE / this.#queries.size) / (1 + over / 2) / this.slowness
		for (const query of this.#queries) {
			query.left -= passed * speed
			if (query.left > 0) continue
			this.#queries.delete(query)
			query.done()
		}
	}
}

const KNEE = 10
