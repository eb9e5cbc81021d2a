import { isControllerFactory } from '../adaptive/controller.js'
import { checkFunction, checkNoRequest, readOptions } from '../checks.js'
import { coded } from '../errors.js'
import { enter } from '../limiter/gate.js'
import { Limiter } from '../limiter/limiter.js'
import { LIMITER_OPTIONS, type LimiterOptions } from '../limiter/options.js'

/** A limiter, made by this copy of the package or by another one in the same process. */
export type SharedLimiter = Pick<Limiter, keyof Limiter>

/** What `limit()` of every adapter is given: a capacity, options, or a limiter made before. */
export function readLimit<OnReject>(
	given: number | SharedLimiter | (LimiterOptions<never> & { onReject?: OnReject }),
	second: unknown,
): { limiter: Limiter; onReject: OnReject | undefined } {
	checkNoRequest('limit', given, 'app.use(limit(3))', 'app.use(limit)')
	// `[2, 3].map(limit)` passes an index, which does no harm.
	if (typeof second === 'object') {
		const message = 'limit takes one argument: write limit({ capacity: 3, maxQueue: 10 })'
		throw coded('ERR_INFLIGHT_WRONG_TYPE', new TypeError(message))
	}
	if (typeof given !== 'object' || given === null || isControllerFactory(given)) {
		return { limiter: new Limiter(given), onReject: undefined }
	}
	if (enter in given) return { limiter: given as Limiter, onReject: undefined }
	const { onReject, ...options } = readOptions(given, [...LIMITER_OPTIONS, 'onReject'])
	return {
		limiter: new Limiter(options as LimiterOptions),
		onReject: checkFunction('onReject', onReject),
	}
}

/** The middleware of one framework was given to another: editors import `limit` from either. */
export function wrongFramework(ours: string, entry: string): TypeError {
	const message = `this middleware is for ${ours}: import limit from inflight-limit/${entry}`
	return coded('ERR_INFLIGHT_WRONG_TYPE', new TypeError(message))
}
