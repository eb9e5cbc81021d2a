import type { Outcome } from './observer.js'
import { checkCapacity, checkFunction, wrongType } from './options.js'

/** A request that is over, as a controller is told of it. */
export interface Sample {
	/** How long it held its permit, in ms. */
	readonly held: number
	/** Permits that were held at that moment, its own among them. */
	readonly active: number
	/** Requests that were waiting at that moment: with none, the capacity was not what bounded the work. */
	readonly queued: number
	readonly outcome: Outcome
	/** The moment, in ms, by `performance.now()`. */
	readonly now: number
}

/**
 * Finds the capacity of a limiter from the requests that are over. It is asked at the end of each, and only then: it
 * needs no timer, and does nothing while there is no traffic.
 */
export interface Controller {
	/** The capacity to begin with: an integer from 1. */
	readonly initial: number
	/** The highest capacity that it can ever give: a request may be as heavy as this. Default: `Infinity`. */
	readonly max?: number
	/** @returns the capacity from now on: an integer from 1. */
	sample(sample: Sample): number
	/** Asked at each arrival, when there: `true` turns it away at once, whatever room there is. */
	refuses?(): boolean
}

/** Makes the controller of a limiter; with `key`, one for each key. */
export type ControllerFactory = () => Controller

/** @throws TypeError, RangeError - what the factory returns is no controller. */
export function checkController(factory: ControllerFactory): Controller {
	const controller: unknown = factory()
	if (typeof controller !== 'object' || controller === null) {
		throw wrongType('what capacity returns', 'a controller', controller)
	}
	const { initial, max, sample, refuses } = controller as Controller
	checkCapacity(initial, 1)
	if (max !== undefined) checkCapacity(max, 1)
	if (sample === undefined) throw wrongType('sample of a controller', 'a function', sample)
	checkFunction('sample of a controller', sample)
	checkFunction('refuses of a controller', refuses)
	return controller as Controller
}
