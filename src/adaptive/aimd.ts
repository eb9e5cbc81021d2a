import { checkDuration, checkOptions, wrongType } from '../checks.js'
import { type Controller, type ControllerFactory, checkBounds } from './controller.js'

export interface AimdOptions {
	/**
	 * A request that held its permit for longer, in ms, is a sign of overload: from 0 to 2^31 - 1.
	 * Default: `Infinity`.
	 */
	latency?: number | undefined
	/** Whether a status from 500, or a client that left, is a sign of overload. Default: `true`. */
	errors?: boolean | undefined
	/** The lowest capacity: an integer from 1 to `max`. Default: `1`. */
	min?: number | undefined
	/** The highest capacity: an integer from `min`, or `Infinity`. Default: `1000`. */
	max?: number | undefined
	/**
	 * The capacity to begin with: an integer from `min` to `max`. Default: `20`, or the nearest of
	 * those.
	 */
	initial?: number | undefined
}

const OPTIONS = ['latency', 'errors', 'min', 'max', 'initial']

/** What remains of the capacity after a sign of overload. */
const BACKOFF = 0.9

/**
 * A capacity that grows by one for each full round of requests without a sign of overload, and
 * shrinks by a tenth at one: additive increase, multiplicative decrease, after Chiu and Jain
 * (1989), as TCP does it (RFC 5681).
 *
 * It shrinks once for all requests that were at work together, and grows only while the capacity is
 * used.
 *
 * ```ts
 * app.use(limit({ capacity: aimd({ latency: 500 }) }))
 * ```
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, or unknown.
 */
export function aimd(options: AimdOptions = {}): ControllerFactory {
	checkOptions(options, OPTIONS)
	const { latency = Number.POSITIVE_INFINITY, errors = true } = options
	checkDuration('latency', latency)
	if (typeof errors !== 'boolean') throw wrongType('errors', 'a boolean', errors)
	const { min, max, initial } = checkBounds(20, options)
	const newController = (): Controller => {
		let limit = initial
		let shrunkAt = Number.NEGATIVE_INFINITY
		let reason: string | undefined
		return {
			initial,
			max,
			get reason() {
				return reason
			},
			sample({ held, active, queued, outcome, now }) {
				if (outcome === 'client-error') return Math.floor(limit)
				const failed = errors && outcome !== 'ok'
				if (failed || held > latency) {
					// Requests that began before it last shrank are signs of the limit before.
					if (now - held >= shrunkAt) {
						limit = Math.max(min, limit * BACKOFF)
						shrunkAt = now
						reason = failed ? 'a request failed' : 'a request held its permit too long'
					}
				} else if (queued > 0 || active >= Math.floor(limit)) {
					limit = Math.min(max, limit + 1 / limit)
					reason = 'the capacity was used, and requests ended well'
				}
				return Math.floor(limit)
			},
		}
	}
	return { newController }
}
