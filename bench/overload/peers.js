import { limiterOf } from './policies.js'

/**
 * The best known algorithms, after their publications, as controllers of our limiter; like their
 * originals without a queue.
 *
 * @typedef {import('inflight-limit').ControllerFactory} ControllerFactory
 */

/**
 * `WindowedLimit`: a limit is told of the mean of each second with ten samples or more, not of each
 * request.
 *
 * @param {ControllerFactory} make
 * @returns {ControllerFactory}
 */
export const windowed = (make) => ({
	newController() {
		const { initial, sample } = make.newController()
		let limit = initial
		let [since, count, sum, most, dropped] = [0, 0, 0, 0, false]
		return {
			initial,
			sample({ held, active, queued, abandoned, outcome, now }) {
				if (outcome === 'ok') {
					count++
					sum += held
				} else {
					dropped = true
				}
				most = Math.max(most, active)
				if (now - since < 1000 || count < 10) return limit
				limit = sample({
					held: sum / count,
					active: most,
					queued,
					abandoned,
					outcome: dropped ? 'abandoned' : 'ok',
					now,
				})
				;[since, count, sum, most, dropped] = [now, 0, 0, 0, false]
				return limit
			},
		}
	},
})

/**
 * Netflix concurrency-limits, `Gradient2Limit`, with its own constants. @type {ControllerFactory}
 */
export const gradient2 = {
	newController() {
		let limit = 20
		let long = 0
		let count = 0
		let sum = 0
		return {
			initial: 20,
			sample({ held, active, outcome }) {
				if (outcome !== 'ok') return Math.round(limit)
				// An average that warms up over ten samples, then with a window of 600.
				count++
				if (count < 10) {
					sum += held
					long = sum / count
				} else {
					long += (held - long) * (2 / 601)
				}
				if (long / held > 2) long *= 0.95
				if (active < limit / 2) return Math.round(limit)
				const gradient = Math.max(0.5, Math.min(1, (1.5 * long) / held))
				limit = Math.max(20, Math.min(200, 0.8 * limit + 0.2 * (limit * gradient + 4)))
				return Math.round(limit)
			},
		}
	},
}

/** Netflix concurrency-limits, `VegasLimit`, with its own constants. @type {ControllerFactory} */
export const vegas = {
	newController() {
		let limit = 20
		let least = Number.POSITIVE_INFINITY
		let probe = 0
		return {
			initial: 20,
			sample({ held, active, outcome }) {
				const scale = Math.max(1, Math.floor(Math.log10(limit)))
				if (++probe >= 30 * limit) {
					probe = 0
					least = held
				}
				least = Math.min(least, held)
				if (outcome !== 'ok') limit = Math.max(1, limit - scale)
				else if (active >= limit / 2) {
					const queue = Math.ceil(limit * (1 - least / held))
					if (queue <= scale) limit += 6 * scale
					else if (queue < 3 * scale) limit += scale
					else if (queue > 6 * scale) limit -= scale
				}
				limit = Math.max(1, Math.min(1000, limit))
				return Math.round(limit)
			},
		}
	},
}

/**
 * express-queue: a queue without a bound, which does not see that a client has left.
 *
 * @param {number} capacity
 * @param {typeof import('inflight-limit').Limiter} Limiter
 */
export const expressQueue = (capacity, Limiter) => {
	const make = limiterOf(
		{ capacity, maxQueue: Number.POSITIVE_INFINITY, maxWait: Number.POSITIVE_INFINITY },
		Limiter,
	)
	const stays = Object.freeze({ aborted: false, addEventListener() {}, removeEventListener() {} })
	return () => {
		const policy = make()
		return {
			...policy,
			enter: (/** @type {any} */ request) => policy.enter(request, /** @type {any} */ (stays)),
		}
	}
}
