import { isControllerFactory } from '../adaptive/controller.js'
import { checkFunction, readOptions } from '../checks.js'
import { enter } from '../limiter/gate.js'
import { Limiter } from '../limiter/limiter.js'
import { LIMITER_OPTIONS, type LimiterOptions } from '../limiter/options.js'

/** A limiter, made by this copy of the package or by another one in the same process. */
export type SharedLimiter = Pick<Limiter, keyof Limiter>

/** What `limit()` of every adapter is given: a capacity, options, or a limiter made before. */
export function readLimit<OnReject>(
	given: number | SharedLimiter | (LimiterOptions<never> & { onReject?: OnReject }),
): { limiter: Limiter; onReject: OnReject | undefined } {
	if (typeof given !== 'object' || given === null || isControllerFactory(given)) {
		return { limiter: new Limiter(given), onReject: undefined }
	}
	if (enter in given) return { limiter: given as Limiter, onReject: undefined }
	const { onReject, ...options } = readOptions(given, [...LIMITER_OPTIONS, 'onReject'])
	return { limiter: new Limiter(options as LimiterOptions), onReject: checkFunction('onReject', onReject) }
}
