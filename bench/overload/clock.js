/**
 * Virtual time: a heap of what is to happen, which stands in for the timers and `performance.now()`
 * of the process while it runs. The limiter's own code runs on it unchanged; hours pass in seconds.
 *
 * Not a library of fake timers, as those look through all their timers for the next one: here there
 * are 30,000.
 */

/** What will happen. As the return value of `setTimeout`, it is a timer. */
class Timer {
	/** Its place in the heap; -1 when it is in none. */
	index = -1

	/** @param {number} at @param {number} order @param {() => void} run */
	constructor(at, order, run) {
		this.at = at
		this.order = order
		this.run = run
	}

	unref() {
		return this
	}

	ref() {
		return this
	}

	hasRef() {
		return false
	}
}

/** The real one, whatever stands in for it. */
const { setImmediate } = globalThis

export class Clock {
	now = 0
	#order = 0
	/** @type {Timer[]} */
	#heap = []

	/** @param {number} at in ms @param {() => void} run */
	at(at, run) {
		const timer = new Timer(Math.max(at, this.now), this.#order++, run)
		this.#up(timer, this.#heap.length)
		return timer
	}

	/** @param {Timer | undefined} timer */
	cancel(timer) {
		if (timer === undefined || timer.index === -1) return
		const { index } = timer
		timer.index = -1
		const last = /** @type {Timer} */ (this.#heap.pop())
		if (last === timer) return
		this.#up(last, index)
		this.#down(last, last.index)
	}

	/**
	 * Lets everything happen until `end`, in order.
	 *
	 * @param {number} end in ms
	 * @param {() => boolean} waiting whether promises may have to settle before the next thing
	 * happens
	 */
	async run(end, waiting) {
		const { setTimeout, clearTimeout, performance } = globalThis
		const { eventLoopUtilization } = performance
		const still = { idle: 0, active: 0, utilization: 0 }
		Object.assign(globalThis, {
			setTimeout: (
				/** @type {(arg: unknown) => void} */ run,
				/** @type {number} */ ms,
				/** @type {unknown} */ arg,
			) => this.at(this.now + ms, () => run(arg)),
			// What else runs in the process may clear a timer that it has from before.
			clearTimeout: (/** @type {any} */ timer) =>
				timer instanceof Timer ? this.cancel(timer) : clearTimeout(timer),
			// The limiter sees that its clock was replaced by this being another object.
			performance: { now: () => this.now },
		})
		// Nothing here takes time of the event loop.
		performance.eventLoopUtilization = () => still
		try {
			for (
				let timer = this.#heap[0];
				timer !== undefined && timer.at <= end;
				timer = this.#heap[0]
			) {
				this.cancel(timer)
				this.now = timer.at
				const before = waiting()
				timer.run()
				// All microtasks run before the next immediate.
				if (before || waiting()) await new Promise((resolve) => setImmediate(resolve))
			}
			this.now = end
		} finally {
			Object.assign(globalThis, { setTimeout, clearTimeout, performance })
			performance.eventLoopUtilization = eventLoopUtilization
		}
	}

	/** @param {Timer} timer @param {number} index */
	#up(timer, index) {
		const heap = this.#heap
		let at = index
		while (at > 0) {
			const parent = /** @type {Timer} */ (heap[(at - 1) >> 1])
			if (!before(timer, parent)) break
			heap[at] = parent
			parent.index = at
			at = (at - 1) >> 1
		}
		heap[at] = timer
		timer.index = at
	}

	/** @param {Timer} timer @param {number} index */
	#down(timer, index) {
		const heap = this.#heap
		let at = index
		for (;;) {
			const left = heap[2 * at + 1]
			const right = heap[2 * at + 2]
			const child = left !== undefined && right !== undefined && before(right, left) ? right : left
			if (child === undefined || !before(child, timer)) break
			const { index: next } = child
			heap[at] = child
			child.index = at
			at = next
		}
		heap[at] = timer
		timer.index = at
	}
}

/** @param {Timer} a @param {Timer} b */
function before(a, b) {
	return a.at < b.at || (a.at === b.at && a.order < b.order)
}
