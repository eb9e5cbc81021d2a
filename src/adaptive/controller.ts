import {
	checkBoolean,
	checkCapacity,
	checkFunction,
	checkInteger,
	outOfRange,
	wrongType,
} from '../checks.js'
import type { Outcome } from '../stats/observer.js'

/** A request that is over, as controllers see it. */
export interface Sample {
	/** How long it held its permit, in ms. */
	readonly held: number
	/** Permits that were held at that moment, its own among them. */
	readonly active: number
	/**
	 * Requests that were waiting at that moment: with none, the capacity was not what bounded the
	 * work.
	 */
	readonly queued: number
	/** Requests at work at that moment whose client had left, this one among them. */
	readonly abandoned: number
	readonly outcome: Outcome
	/** The moment, in ms, by `performance.now()`. */
	readonly now: number
}

/**
 * Finds the capacity of a limiter from the requests that are over. It is asked at the end of each,
 * and only then: it needs no timer, and does nothing while there is no traffic.
 */
export interface Controller {
	/** The capacity to begin with: an integer from 1. */
	readonly initial: number
	/**
	 * The highest capacity that it can ever give: a request may be as heavy as this. Default:
	 * `Infinity`.
	 */
	readonly max?: number
	/** Why it gave its last capacity, in a few words, for the live page. Default: none. */
	readonly reason?: string | undefined
	/** @returns the capacity from now on: an integer from 1. */
	sample(sample: Sample): number
	/**
	 * Whether requests are rejected while the event loop is late, unless the option `eventLoop` of
	 * the limiter says otherwise. Default: `false`.
	 */
	readonly eventLoop?: boolean
}

/** Makes the controller of a limiter; with `key`, one for each key. */
export interface ControllerFactory {
	newController(): Controller
}

/** Tells what makes controllers from other values of `capacity`. */
export function isControllerFactory(value: unknown): value is ControllerFactory {
	return typeof value === 'object' && value !== null && 'newController' in value
}

/** @throws TypeError, RangeError - what the factory returns is no controller. */
export function checkController(factory: ControllerFactory): Controller {
	checkFunction('newController', factory.newController)
	const controller: unknown = factory.newController()
	if (typeof controller !== 'object' || controller === null) {
		throw wrongType('what newController returns', 'a controller', controller)
	}
	const {
		initial,
		max = Number.POSITIVE_INFINITY,
		sample,
		eventLoop = false,
	} = controller as Controller
	checkCapacity(max, 1, 'max of a controller')
	checkInteger('initial of a controller', initial, 1, false)
	if (initial > max) throw outOfRange('initial of a controller', `at most its max, ${max}`, initial)
	if (sample === undefined) throw wrongType('sample of a controller', 'a function', sample)
	checkFunction('sample of a controller', sample)
	checkBoolean('eventLoop of a controller', eventLoop)
	return controller as Controller
}

/**
 * @throws TypeError, RangeError - what a controller found is no capacity, or more than it said it
 * ever would.
 */
export function checkFound(
	capacity: unknown,
	{ max = Number.POSITIVE_INFINITY }: Controller,
): number {
	const found = checkInteger('what sample returns', capacity, 1, false)
	if (found > max) throw outOfRange('what sample returns', `at most max, ${max}`, found)
	return found
}

/**
 * Between which capacities a controller stays, and with which it begins: the usual one, or the
 * nearest, unless given.
 *
 * @throws TypeError, RangeError - one is not an integer, or out of range.
 */
export function checkBounds(
	usual: number,
	options: { [Name in 'min' | 'max' | 'initial']?: number | undefined },
): { min: number; max: number; initial: number } {
	const { min = 1, max = 1000 } = options
	checkInteger('min', min, 1, false)
	checkCapacity(max, 1, 'max')
	if (min > max) throw outOfRange('min', `at most max, ${max}`, min)
	const { initial = Math.min(max, Math.max(min, usual)) } = options
	checkInteger('initial', initial, min, false)
	if (initial > max) throw outOfRange('initial', `at most max, ${max}`, initial)
	return { min, max, initial }
}
