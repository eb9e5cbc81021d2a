/** @typedef {import('./simulation.js').Policy} Policy */

/**
 * The limiter's own code.
 *
 * @param {import('inflight-limit').LimiterOptions<any>} options
 * @param {typeof import('inflight-limit').Limiter} Limiter
 * @returns {() => Policy}
 */
export const limiterOf = (options, Limiter) => () => {
	const limiter = new Limiter(options)
	const door = /** @type {any} */ (limiter)
	const enter = Symbol.for('inflight-limit.enter')
	return {
		enter(request, signal) {
			const entrance = door[enter](request, signal)
			return entrance.tag === 'waiting' ? entrance.settled : entrance
		},
		waiting: () => limiter.queued > 0,
		capacity: () => limiter.capacity,
	}
}

/** @returns {Policy} */
export const none = () => ({
	enter: () => ({ tag: 'admitted', leave: () => {} }),
	waiting: () => false,
})
