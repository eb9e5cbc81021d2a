import { checkOptions } from '../checks.js'
import { aimd } from './aimd.js'
import { type Controller, type ControllerFactory, checkBounds } from './controller.js'
import { loopIsLate } from './event-loop.js'
import { Prober } from './prober.js'

export type { AimdOptions } from './aimd.js'
export type { Controller, ControllerFactory, Sample } from './controller.js'
export { aimd }

export interface AdaptiveOptions {
	/** The lowest capacity: an integer from 1 to `max`. Default: `1`. */
	min?: number | undefined
	/** The highest capacity: an integer from `min`, or `Infinity`. Default: `1000`. */
	max?: number | undefined
	/** The capacity to begin with: an integer from `min` to `max`. Default: `64`, or the nearest of those. */
	initial?: number | undefined
}

const OPTIONS = ['min', 'max', 'initial']

/**
 * A capacity that finds itself: it goes where more requests are answered in a second, by trying a little more and a
 * little less in turn. Requests are also turned away while the event loop itself is what is late.
 *
 * ```ts
 * app.use(limit({ capacity: adaptive() }))
 * ```
 *
 * The comparison of two limits by the throughput seen at each is that of Kiefer and Wolfowitz, "Stochastic Estimation of
 * the Maximum of a Regression Function" (1952), applied to a sender's rate by Dong et al., "PCC Vivace" (NSDI 2018), and
 * to the concurrency of a server by Heiss and Wagner, "Adaptive Load Control in Transaction Processing Systems" (VLDB 1991).
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, or unknown.
 */
export function adaptive(options: AdaptiveOptions = {}): ControllerFactory {
	checkOptions(options, OPTIONS)
	const { min, max, initial } = checkBounds(64, options)
	return (): Controller => {
		const prober = new Prober(min, max, initial)
		return { initial, max, sample: (sample) => prober.sample(sample), refuses: loopIsLate }
	}
}
