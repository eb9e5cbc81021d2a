/**
 * What the limiter does with a plain queue, without promises: first come, first served; a client
 * that leaves frees its place. It is there because it is fast; a test holds it against the limiter,
 * to the digit.
 *
 * @typedef {import('./simulation.js').Policy} Policy
 * @typedef {import('./simulation.js').Request} Request
 * @typedef {import('./simulation.js').Signal} Signal
 * @typedef {import('./simulation.js').Stay} Stay
 * @typedef {{ queued: boolean, serve: (stay: Stay) => void, fail: () => void }} Waiter
 */

/** @type {import('./simulation.js').Entrance} */
const REJECTED = { tag: 'rejected' }

/** How many may wait unless given: the limiter's own rule. @param {number} capacity */
const quarter = (capacity) => Math.ceil(capacity / 4)

/**
 * @param {object} options
 * @param {number | import('inflight-limit').ControllerFactory} options.capacity
 * @param {number | ((capacity: number) => number)} [options.maxQueue]
 * @returns {(clock: { now: number }) => Policy}
 */
export const modelOf =
	({ capacity: given, maxQueue = quarter }) =>
	(clock) => {
		const controller = typeof given === 'number' ? undefined : given.newController()
		const room = typeof maxQueue === 'number' ? () => maxQueue : maxQueue
		let capacity = typeof given === 'number' ? given : /** @type {any} */ (controller).initial
		let active = 0
		let queued = 0
		let abandoned = 0
		/** Those that left are passed over. @type {Waiter[]} */
		let line = []
		let head = 0

		const admit = () => {
			while (queued > 0 && active < capacity) {
				const waiter = /** @type {Waiter} */ (line[head++])
				if (head > 1000 && 2 * head > line.length) {
					line = line.slice(head)
					head = 0
				}
				if (!waiter.queued) continue
				waiter.queued = false
				queued--
				waiter.serve(stay())
			}
		}
		/** @returns {Stay} */
		const stay = () => {
			active++
			const since = clock.now
			let gone = false
			return {
				tag: 'admitted',
				abandon() {
					gone = true
					abandoned++
				},
				leave(outcome) {
					const { now } = clock
					const found = controller?.sample({
						held: now - since,
						active,
						queued,
						abandoned,
						outcome,
						now,
					})
					if (found !== undefined) capacity = found
					active--
					if (gone) abandoned--
					admit()
				},
			}
		}
		return {
			enter(_request, signal) {
				if (queued === 0 && active < capacity) return stay()
				if (queued >= room(capacity)) return REJECTED
				queued++
				return {
					/**
					 * @param {(entrance: import('./simulation.js').Entrance) => void} serve @param {() =>
					 * void} fail
					 */
					whenSettled(serve, fail) {
						const waiter = { queued: true, serve, fail }
						line.push(waiter)
						signal.addEventListener('abort', {
							handleEvent() {
								if (!waiter.queued) return
								waiter.queued = false
								queued--
								fail()
							},
						})
					},
				}
			},
			// Nothing has to be waited for.
			waiting: () => false,
			capacity: () => capacity,
		}
	}
