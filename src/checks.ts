import { types } from 'node:util'
import { coded } from './errors.js'

/*
 * Checks of options, arguments, and of what the functions in options return. Each error names the
 * option, the value given, and what is allowed: a `TypeError` for a value of the wrong type or an
 * unknown name, a `RangeError` for a value out of bounds.
 */

/**
 * The longest delay a timer of the platform can hold, in ms (2^31 - 1). A longer one would fire at
 * once.
 */
export const LONGEST_TIMER = 2_147_483_647

function show(value: unknown): string {
	if (typeof value === 'string') return JSON.stringify(value)
	if (typeof value === 'bigint') return `${value}n`
	if (typeof value === 'function') return 'a function'
	if (isPromise(value)) return 'a promise'
	if (typeof (value as { tryAcquire?: unknown } | null)?.tryAcquire === 'function')
		return 'a semaphore'
	if (Array.isArray(value)) return 'an array'
	return typeof value === 'object' && value !== null ? 'an object' : String(value)
}

/** @param remedy - what to write instead. */
export function wrongType(
	name: string,
	allowed: string,
	value: unknown,
	remedy?: string,
): TypeError {
	// Nobody else handles the rejection of a promise that stands where a value should.
	if (types.isPromise(value)) value.catch(() => {})
	const rest = remedy === undefined ? '' : `: ${remedy}`
	const message = `${name} must be ${allowed}; got ${show(value)}${rest}`
	return coded('ERR_INFLIGHT_WRONG_TYPE', new TypeError(message))
}

export function outOfRange(name: string, allowed: string, value: unknown): RangeError {
	const message = `${name} must be ${allowed}; got ${show(value)}`
	return coded('ERR_INFLIGHT_OUT_OF_RANGE', new RangeError(message))
}

/**
 * For a wrong value that a function in the options returned. Such a function must be synchronous.
 */
function wrongReturn(name: string, allowed: string, value: unknown): TypeError {
	const remedy = isPromise(value) ? 'find it in a middleware before this one' : undefined
	return wrongType(`what ${name} returns`, allowed, value, remedy)
}

function isPromise(value: unknown): boolean {
	return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}

export function checkInteger(
	name: string,
	value: unknown,
	lowest: number,
	infinity: boolean,
): number {
	const allowed = `an integer from ${lowest}${infinity ? ', or Infinity' : ''}`
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	const fits =
		value === Number.POSITIVE_INFINITY ? infinity : Number.isSafeInteger(value) && value >= lowest
	if (!fits) throw outOfRange(name, allowed, value)
	return value
}

export function checkCapacity(value: unknown, lowest: number, name = 'capacity'): number {
	return checkInteger(name, value, lowest, true)
}

export function checkMaxQueue(value: unknown): number {
	return checkInteger('maxQueue', value, 0, true)
}

export function checkMaxPages(value: unknown): number {
	return checkInteger('maxPages', value, 1, true)
}

export function checkPath(value: unknown): string {
	const allowed = 'a path that begins with /'
	if (typeof value !== 'string') throw wrongType('path', allowed, value)
	if (!/^\/[^?#]*$/.test(value)) throw outOfRange('path', allowed, value)
	return value
}

/** The heaviest weight where the capacity is no bound: sums of weights must stay exact. */
export const HEAVIEST: number = 2 ** 40

export function checkWeight(value: unknown, capacity: number): number {
	const weight = checkInteger('weight', value, 1, false)
	if (capacity === Number.POSITIVE_INFINITY && weight > HEAVIEST) {
		throw outOfRange('weight', `at most 2^40, ${HEAVIEST}`, weight)
	}
	// With a capacity of 0 no caller is admitted, and the next capacity is not known: any weight may
	// wait.
	if (weight > capacity && capacity > 0) {
		throw outOfRange('weight', `at most the capacity, ${capacity}`, weight)
	}
	return weight
}

export function checkDuration(name: string, value: unknown): number {
	const allowed = `a number of milliseconds from 0 to ${LONGEST_TIMER}, or Infinity`
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	if (value !== Number.POSITIVE_INFINITY && !(value >= 0 && value <= LONGEST_TIMER)) {
		throw outOfRange(name, allowed, value)
	}
	return value
}

export function checkStatusCode(value: unknown): number {
	const allowed = 'an integer from 400 to 599'
	if (typeof value !== 'number') throw wrongType('statusCode', allowed, value)
	if (!(Number.isInteger(value) && value >= 400 && value <= 599)) {
		throw outOfRange('statusCode', allowed, value)
	}
	return value
}

/** How many bits of an IPv6 address. */
export function checkPrefix(name: string, value: unknown): number {
	const allowed = 'an integer from 1 to 128'
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	if (!(Number.isInteger(value) && value >= 1 && value <= 128))
		throw outOfRange(name, allowed, value)
	return value
}

export function checkBoolean(name: string, value: unknown): boolean {
	if (typeof value !== 'boolean') throw wrongType(name, 'true or false', value)
	return value
}

export function checkName(value: unknown): string {
	const allowed = 'a string of 1 to 64 characters, without control characters'
	if (typeof value !== 'string') throw wrongType('name', allowed, value)
	if (!/^[^\p{Cc}\p{Cs}]{1,64}$/u.test(value)) throw outOfRange('name', allowed, value)
	return value
}

/** Lets `undefined` pass: the option was not given. */
export function checkSignal(value: unknown): void {
	if (value === undefined) return
	const signal = value as { aborted?: unknown; addEventListener?: unknown } | null
	if (typeof signal?.aborted !== 'boolean' || typeof signal.addEventListener !== 'function') {
		throw wrongType('signal', 'an AbortSignal', value)
	}
}

/** Lets `undefined` pass: the option was not given. */
export function checkFunction<F>(name: string, value: F): F {
	if (value !== undefined && typeof value !== 'function') throw wrongType(name, 'a function', value)
	return value
}

/** An object of another package is recognised by a method that is called. */
export function checkMethod(name: string, allowed: string, value: unknown, method: string): void {
	const object = value as { [name: string]: unknown } | null | undefined
	if (typeof object?.[method] !== 'function') throw wrongType(name, allowed, value)
}

const OBSERVED = ['admitted', 'released', 'rejected', 'resized', 'availability'] as const

/** An observer without any known function is an error: its names must be misspelt. */
export function checkObserver(value: unknown): void {
	const allowed = `an object with any of the functions ${OBSERVED.join(', ')}`
	if (typeof value !== 'object' || value === null) throw wrongType('observer', allowed, value)
	const observer = value as { [Name in (typeof OBSERVED)[number]]?: unknown }
	for (const name of OBSERVED) checkFunction(`observer.${name}`, observer[name])
	if (OBSERVED.every((name) => observer[name] === undefined))
		throw wrongType('observer', allowed, value)
}

/** What names a key or a flow, as a string. */
function checkText(name: string, allowed: string, value: unknown): string {
	if (typeof value === 'string') return value
	// `NaN` would put all requests whose number could not be read under one limit.
	if (Number.isNaN(value)) throw outOfRange(`what ${name} returns`, allowed, value)
	if (typeof value !== 'number' && typeof value !== 'bigint')
		throw wrongReturn(name, allowed, value)
	return String(value)
}

/** @returns the key as a string; `undefined` if the request has none. */
export function checkKey(value: unknown): string | undefined {
	if (value === undefined || value === null) return undefined
	return checkText('key', 'a string, a number, a bigint, undefined or null', value)
}

export function checkFlow(value: unknown): string {
	return checkText('fairBy', 'a string, a number or a bigint', value)
}

/** A promise would count as `true`, and no request would be limited. */
export function checkSkip(value: unknown): boolean {
	if (typeof value === 'object' && value !== null) throw wrongReturn('skip', 'true or false', value)
	return Boolean(value)
}

const ORDERS = ['fifo', 'lifo', 'adaptive'] as const

export function checkOrder(value: unknown): (typeof ORDERS)[number] {
	const allowed = ORDERS.map((order) => show(order)).join(', ')
	if (typeof value !== 'string') throw wrongType('order', `one of ${allowed}`, value)
	const order = ORDERS.find((each) => each === value)
	if (order === undefined) throw outOfRange('order', `one of ${allowed}`, value)
	return order
}

function checkNumber(name: string, value: unknown): number {
	const allowed = 'a number'
	if (typeof value !== 'number') throw wrongReturn(name, allowed, value)
	if (Number.isNaN(value)) throw outOfRange(`what ${name} returns`, allowed, value)
	return value
}

export function checkPriority(value: unknown): number {
	return checkNumber('priority', value)
}

/** Lets `undefined` pass: there is none. */
export function checkDeadline(value: unknown): number {
	if (value === undefined) return Number.POSITIVE_INFINITY
	return checkNumber('deadline', value)
}

/** With more than a half, lower priorities would go before higher ones. */
export function checkLowerShare(value: unknown, priority: unknown): number {
	const allowed = 'a number from 0 to 0.5'
	if (typeof value !== 'number') throw wrongType('lowerShare', allowed, value)
	if (!(value >= 0 && value <= 0.5)) throw outOfRange('lowerShare', allowed, value)
	if (value > 0) checkNeeded('lowerShare', value, 'priority', priority)
	return value
}

/** An option that does nothing without another one. */
export function checkNeeded(name: string, value: unknown, needed: string, given: unknown): void {
	if (value === undefined || given !== undefined) return
	const message = `${name} must not be given without ${needed}; got ${show(value)}`
	throw coded('ERR_INFLIGHT_MISSING_OPTION', new TypeError(message))
}

/** Within these bounds, sums of many shares are exact enough. */
export function checkShare(value: unknown): number {
	const share = checkNumber('share', value)
	if (!(share >= 0.001 && share <= 1_000_000)) {
		throw outOfRange('what share returns', 'a number from 0.001 to 1000000', share)
	}
	return share
}

/** Names of options in other packages, with the name here and a note. */
const ELSEWHERE: ReadonlyMap<string, string> = new Map([
	['activeLimit', 'capacity'],
	['concurrency', 'capacity'],
	['limit', 'capacity'],
	['max', 'capacity'],
	['maxConcurrent', 'capacity'],
	['windowMs', 'capacity (of the requests at work at once; there is no window of time)'],
	['highWater', 'maxQueue'],
	['queuedLimit', 'maxQueue'],
	['timeout', 'maxWait'],
	['keyGenerator', 'key'],
	['ipv6Subnet', 'key: addressKey({ ipv6Subnet })'],
	['handler', 'onReject'],
	['message', 'onReject'],
	['rejectHandler', 'onReject'],
	['standardHeaders', 'rateLimitFields'],
])

/** A misspelt option must not be ignored: its author would believe in a limit that is not there. */
export function checkOptions(options: object, allowed: readonly string[]): void {
	if (typeof options !== 'object' || options === null || Array.isArray(options)) {
		throw wrongType('options', 'an object', options)
	}
	for (const name in options) {
		if (!allowed.includes(name)) throw unknownOption(name, allowed)
	}
}

function unknownOption(name: string, allowed: readonly string[]): TypeError {
	const same = (other: string): boolean => other.toLowerCase() === name.toLowerCase()
	const instead = allowed.find(same) ?? ELSEWHERE.get(name)
	const known = instead !== undefined && allowed.includes(/^\w+/.exec(instead)?.[0] ?? '')
	const rest = known ? `: write ${instead}` : `; allowed are ${allowed.join(', ')}`
	return coded('ERR_INFLIGHT_UNKNOWN_OPTION', new TypeError(`unknown option ${show(name)}${rest}`))
}

/**
 * A function that makes something was given itself: then the framework, or the limiter, calls it
 * with a request, or with the context of Koa.
 *
 * @param right - what to write, in place of `wrong`.
 */
export function checkNoRequest(name: string, value: unknown, right: string, wrong: string): void {
	if (typeof value !== 'object' || value === null) return
	if (!('headers' in value) && !('req' in value)) return
	const message = `${name} was called with a request: write ${right}, not ${wrong}`
	throw coded('ERR_INFLIGHT_WRONG_TYPE', new TypeError(message))
}

const OPTIONS = 'a capacity or an object of options'

/**
 * Reads the options of a limiter, including those that the object inherits. Its methods keep their
 * `this`.
 *
 * @returns a new object with the options.
 */
export function readOptions<Options extends object>(
	options: Options,
	allowed: readonly string[],
): Options {
	checkOptions(options, allowed)
	// A semaphore must not be taken for options: its `capacity` would make a second limit of the same
	// size.
	if ('tryAcquire' in options) {
		throw wrongType('options', OPTIONS, options, 'requests need a Limiter')
	}
	const { capacity } = options as { capacity?: unknown }
	if (typeof capacity === 'function' && 'limiter' in capacity) {
		const remedy = 'share the limiter of a middleware by limit(middleware.limiter)'
		throw wrongType('capacity', 'an integer from 1, Infinity, or a controller', capacity, remedy)
	}
	const values = allowed.map((name) => {
		const value = options[name as keyof Options]
		return [name, typeof value === 'function' ? value.bind(options) : value]
	})
	return Object.fromEntries(values) as Options
}
