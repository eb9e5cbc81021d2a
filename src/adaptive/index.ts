import { checkOptions } from '../checks.js'
import { aimd } from './aimd.js'
import { type Controller, type ControllerFactory, checkBounds } from './controller.js'
import { Search } from './search.js'

export type { AimdOptions } from './aimd.js'
export type { Controller, ControllerFactory, Sample } from './controller.js'
export { aimd }

export interface AdaptiveOptions {
	/** The lowest capacity: an integer from 1 to `max`. Default: `1`. */
	min?: number | undefined
	/** The highest capacity: an integer from `min`, or `Infinity`. Default: `1000`. */
	max?: number | undefined
	/**
	 * The capacity to begin with: an integer from `min` to `max`. Default: `4`, or the nearest of
	 * those.
	 */
	initial?: number | undefined
}

const OPTIONS = ['min', 'max', 'initial']

/**
 * A capacity that finds itself: it begins with few, doubles them while more are answered in a
 * second, and then stays near the knee by looking a little above and a little below. Requests are
 * also rejected while the event loop itself is late (the option `eventLoop`).
 *
 * ```ts
 * app.use(limit({ capacity: adaptive() }))
 * ```
 *
 * It begins as TCP does with slow start (RFC 5681). What is seen at a limit is measured by Little's
 * law: "A Proof for the Queuing Formula: L = λW" (1961). Then it follows the top of a curve that is
 * fitted to what was seen lately, after Box and Wilson, "On the Experimental Attainment of Optimum
 * Conditions" (1951). That the rate of answers has such a top, and that a limit on concurrency can
 * follow it, is from Heiss and Wagner, "Adaptive Load Control in Transaction Processing Systems"
 * (VLDB 1991).
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, or unknown.
 */
export function adaptive(options: AdaptiveOptions = {}): ControllerFactory {
	checkOptions(options, OPTIONS)
	const { min, max, initial } = checkBounds(4, options)
	const newController = (): Controller => {
		const search = new Search(min, max, initial)
		return {
			initial,
			max,
			eventLoop: true,
			get reason() {
				return search.decision.reason
			},
			sample: (sample) => search.sample(sample),
		}
	}
	return { newController }
}
