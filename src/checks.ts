/**
 * Checks of what callers give us. Each error names the option, the value given, and what is allowed: a `TypeError`
 * for a value of the wrong type or an unknown name, a `RangeError` for a value out of bounds.
 */

/** The longest delay a timer of the platform can hold, in ms (2^31 - 1). A longer one would fire at once. */
export const LONGEST_TIMER = 2_147_483_647

function show(value: unknown): string {
	if (typeof value === 'string') return JSON.stringify(value)
	if (typeof value === 'bigint') return `${value}n`
	if (typeof value === 'function') return 'a function'
	if (Array.isArray(value)) return 'an array'
	return typeof value === 'object' && value !== null ? 'an object' : String(value)
}

export function wrongType(name: string, allowed: string, value: unknown): TypeError {
	return new TypeError(`${name} must be ${allowed}; got ${show(value)}`)
}

export function checkInteger(name: string, value: unknown, lowest: number, infinity: boolean): number {
	const allowed = `an integer from ${lowest}${infinity ? ', or Infinity' : ''}`
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	const fits = value === Number.POSITIVE_INFINITY ? infinity : Number.isSafeInteger(value) && value >= lowest
	if (!fits) throw new RangeError(`${name} must be ${allowed}; got ${value}`)
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
	if (!/^\/[^?#]*$/.test(value)) throw new RangeError(`path must be ${allowed}; got ${show(value)}`)
	return value
}

export function checkWeight(value: unknown, capacity: number): number {
	const weight = checkInteger('weight', value, 1, false)
	// With a capacity of 0 nobody gets in, and what it will be is not known: any weight may wait.
	if (weight > capacity && capacity > 0) {
		throw new RangeError(`weight must be at most the capacity, ${capacity}; got ${weight}`)
	}
	return weight
}

export function checkDuration(name: string, value: unknown): number {
	const allowed = `a number of milliseconds from 0 to ${LONGEST_TIMER}, or Infinity`
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	if (value !== Number.POSITIVE_INFINITY && !(value >= 0 && value <= LONGEST_TIMER)) {
		throw new RangeError(`${name} must be ${allowed}; got ${value}`)
	}
	return value
}

export function checkStatusCode(value: unknown): number {
	const allowed = 'an integer from 400 to 599'
	if (typeof value !== 'number') throw wrongType('statusCode', allowed, value)
	if (!(Number.isInteger(value) && value >= 400 && value <= 599)) {
		throw new RangeError(`statusCode must be ${allowed}; got ${value}`)
	}
	return value
}

export function checkBoolean(name: string, value: unknown): boolean {
	if (typeof value !== 'boolean') throw wrongType(name, 'true or false', value)
	return value
}

export function checkName(value: unknown): string {
	const allowed = 'a string of 1 to 64 printable ASCII characters'
	if (typeof value !== 'string') throw wrongType('name', allowed, value)
	if (!/^[\x20-\x7e]{1,64}$/.test(value)) throw new RangeError(`name must be ${allowed}; got ${show(value)}`)
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

const OBSERVED = ['admitted', 'released', 'rejected', 'resized', 'availability'] as const

/** One that observes nothing is a misspelt one. */
export function checkObserver(value: unknown): void {
	const allowed = `an object with any of the functions ${OBSERVED.join(', ')}`
	if (typeof value !== 'object' || value === null) throw wrongType('observer', allowed, value)
	const observer = value as { [Name in (typeof OBSERVED)[number]]?: unknown }
	for (const name of OBSERVED) checkFunction(`observer.${name}`, observer[name])
	if (OBSERVED.every((name) => observer[name] === undefined)) throw wrongType('observer', allowed, value)
}

export function checkKey(value: unknown): string {
	if (typeof value !== 'string') throw wrongType('what key returns', 'a string or undefined', value)
	return value
}

/** A promise would pass for `true`: nothing would be limited any more. */
export function checkSkip(value: unknown): boolean {
	if (typeof value === 'object' && value !== null)
		throw wrongType('what skip returns', 'true or false', value)
	return Boolean(value)
}

export function checkFlow(value: unknown): string {
	if (typeof value !== 'string') throw wrongType('what fairBy returns', 'a string', value)
	return value
}

const ORDERS = ['fifo', 'lifo', 'adaptive'] as const

export function checkOrder(value: unknown): (typeof ORDERS)[number] {
	const allowed = ORDERS.map((order) => show(order)).join(', ')
	if (typeof value !== 'string') throw wrongType('order', `one of ${allowed}`, value)
	const order = ORDERS.find((each) => each === value)
	if (order === undefined) throw new RangeError(`order must be one of ${allowed}; got ${show(value)}`)
	return order
}

function checkNumber(name: string, value: unknown): number {
	const allowed = 'a number'
	if (typeof value !== 'number') throw wrongType(name, allowed, value)
	if (Number.isNaN(value)) throw new RangeError(`${name} must be ${allowed}; got NaN`)
	return value
}

export function checkPriority(value: unknown): number {
	return checkNumber('what priority returns', value)
}

/** Lets `undefined` pass: there is none. */
export function checkDeadline(value: unknown): number {
	if (value === undefined) return Number.POSITIVE_INFINITY
	return checkNumber('what deadline returns', value)
}

/** At more than a half, the lower ones would go before the higher. */
export function checkLowerShare(value: unknown, priority: unknown): number {
	const allowed = 'a number from 0 to 0.5'
	if (typeof value !== 'number') throw wrongType('lowerShare', allowed, value)
	if (!(value >= 0 && value <= 0.5)) throw new RangeError(`lowerShare must be ${allowed}; got ${value}`)
	if (value > 0 && priority === undefined) {
		throw new TypeError(`lowerShare must not be given without priority; got ${value}`)
	}
	return value
}

/** A misspelt option must not be ignored: the limit that its author believes in would not be there. */
export function checkOptions(options: object, allowed: readonly string[]): void {
	if (typeof options !== 'object' || options === null || Array.isArray(options)) {
		throw wrongType('options', 'an object', options)
	}
	for (const name in options) {
		if (!allowed.includes(name)) {
			throw new TypeError(`unknown option ${show(name)}; allowed are ${allowed.join(', ')}`)
		}
	}
}
