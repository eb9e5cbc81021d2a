import { describe, expect, test } from 'vitest'
import { limit as limitExpress } from '../adapters/express.js'
import { limit as limitKoa } from '../adapters/koa.js'
import { adaptive } from '../src/adaptive/index.js'
import { checkFlow } from '../src/checks.js'
import { coded } from '../src/errors.js'
import { Limiter } from '../src/limiter/limiter.js'
import { LIMITER_OPTIONS } from '../src/limiter/options.js'
import { Semaphore } from '../src/semaphore/semaphore.js'

const CAPACITY = 'capacity must be an integer from 1, or Infinity'
const MIDDLEWARE =
	'capacity must be an integer from 1, Infinity, or a controller; got a function: share the limiter of a middleware by limit(middleware.limiter)'
const FUNCTION =
	'capacity must be an integer from 1, Infinity, or a controller; got a function: a controller is what a call returns, as in capacity: adaptive(); a function of the key needs the option key'
const ORDERS = 'one of "fifo", "lifo", "adaptive"'
const WAIT = 'a number of milliseconds from 0 to 2147483647, or Infinity'

/** The error with this message, and the code that goes with it. */
function fault(type: ErrorConstructor, message: string): Error {
	const error = new type(message)
	if (message.startsWith('unknown option')) return coded('ERR_INFLIGHT_UNKNOWN_OPTION', error)
	if (message.includes(' must not be given without '))
		return coded('ERR_INFLIGHT_MISSING_OPTION', error)
	return coded(type === RangeError ? 'ERR_INFLIGHT_OUT_OF_RANGE' : 'ERR_INFLIGHT_WRONG_TYPE', error)
}

/** What is given, and the whole of the message. */
const refused: [unknown, ErrorConstructor, string][] = [
	[0, RangeError, `${CAPACITY}; got 0`],
	[-1, RangeError, `${CAPACITY}; got -1`],
	[1.5, RangeError, `${CAPACITY}; got 1.5`],
	[Number.NaN, RangeError, `${CAPACITY}; got NaN`],
	[2 ** 53, RangeError, `${CAPACITY}; got 9007199254740992`],
	['3', TypeError, `${CAPACITY}; got "3"`],
	[3n, TypeError, `${CAPACITY}; got 3n`],
	[undefined, TypeError, `${CAPACITY}; got undefined`],
	[() => 3, TypeError, FUNCTION],
	[{ capacity: () => 3 }, TypeError, FUNCTION],
	[null, TypeError, 'options must be an object; got null'],
	[[3], TypeError, 'options must be an object; got an array'],
	[{}, TypeError, `${CAPACITY}; got undefined`],
	[{ capacity: {} }, TypeError, `${CAPACITY}; got an object`],
	[{ capacity: null }, TypeError, `${CAPACITY}; got null`],
	[
		new Semaphore(3),
		TypeError,
		'options must be a capacity or an object of options; got a semaphore: requests need a Limiter',
	],
	[limitExpress(3), TypeError, MIDDLEWARE],
	[limitKoa(3), TypeError, MIDDLEWARE],
	[{ capacity: limitExpress(3) }, TypeError, MIDDLEWARE],
	[{ capacity: adaptive }, TypeError, FUNCTION],
	[{ capacity: Promise.resolve(3) }, TypeError, `${CAPACITY}; got a promise`],
	[{ max: 3 }, TypeError, 'unknown option "max": write capacity'],
	[{ capacity: 3, maxwait: 9 }, TypeError, 'unknown option "maxwait": write maxWait'],
	[{ activeLimit: 3 }, TypeError, 'unknown option "activeLimit": write capacity'],
	[{ capacity: 3, queuedLimit: 9 }, TypeError, 'unknown option "queuedLimit": write maxQueue'],
	[{ capacity: 3, keyGenerator: () => 'a' }, TypeError, 'unknown option "keyGenerator": write key'],
	[
		{ capacity: 3, ipv6Subnet: 56 },
		TypeError,
		'unknown option "ipv6Subnet": write key: addressKey({ ipv6Subnet })',
	],
	[
		{ capacity: 3, windowMs: 60_000 },
		TypeError,
		'unknown option "windowMs": write capacity (of the requests at work at once; there is no window of time)',
	],
	[
		{ capacity: 3, maxQueue: -1 },
		RangeError,
		'maxQueue must be an integer from 0, or Infinity; got -1',
	],
	[
		{ capacity: 3, maxQueue: '9' },
		TypeError,
		'maxQueue must be an integer from 0, or Infinity; got "9"',
	],
	[{ capacity: 3, maxWait: 2 ** 31 }, RangeError, `maxWait must be ${WAIT}; got 2147483648`],
	[{ capacity: 3, maxWait: -1 }, RangeError, `maxWait must be ${WAIT}; got -1`],
	[{ capacity: 3, maxWait: Number.NaN }, RangeError, `maxWait must be ${WAIT}; got NaN`],
	[{ capacity: 3, maxWait: '1s' }, TypeError, `maxWait must be ${WAIT}; got "1s"`],
	[{ capacity: 3, abandonedTimeout: -1 }, RangeError, `abandonedTimeout must be ${WAIT}; got -1`],
	[
		{ capacity: 3, statusCode: 200 },
		RangeError,
		'statusCode must be an integer from 400 to 599; got 200',
	],
	[
		{ capacity: 3, statusCode: 503.5 },
		RangeError,
		'statusCode must be an integer from 400 to 599; got 503.5',
	],
	[
		{ capacity: 3, statusCode: '503' },
		TypeError,
		'statusCode must be an integer from 400 to 599; got "503"',
	],
	[
		{ capacity: 3, name: '' },
		RangeError,
		'name must be a string of 1 to 64 characters, without control characters; got ""',
	],
	[
		{ capacity: 3, name: 'x'.repeat(65) },
		RangeError,
		`name must be a string of 1 to 64 characters, without control characters; got "${'x'.repeat(65)}"`,
	],
	[
		{ capacity: 3, name: 7 },
		TypeError,
		'name must be a string of 1 to 64 characters, without control characters; got 7',
	],
	[{ capacity: 3, key: 'ip' }, TypeError, 'key must be a function; got "ip"'],
	[{ capacity: 3, weight: 2 }, TypeError, 'weight must be a function; got 2'],
	[{ capacity: 3, skip: true }, TypeError, 'skip must be a function; got true'],
	[{ capacity: 3, order: 'newest' }, RangeError, `order must be ${ORDERS}; got "newest"`],
	[{ capacity: 3, order: 1 }, TypeError, `order must be ${ORDERS}; got 1`],
	[{ capacity: 3, priority: 1 }, TypeError, 'priority must be a function; got 1'],
	[{ capacity: 3, fairBy: 'user' }, TypeError, 'fairBy must be a function; got "user"'],
	[{ capacity: 3, deadline: 500 }, TypeError, 'deadline must be a function; got 500'],
	[
		{ capacity: 3, priority: () => 1, lowerShare: 0.6 },
		RangeError,
		'lowerShare must be a number from 0 to 0.5; got 0.6',
	],
	[
		{ capacity: 3, priority: () => 1, lowerShare: '5%' },
		TypeError,
		'lowerShare must be a number from 0 to 0.5; got "5%"',
	],
	[
		{ capacity: 3, lowerShare: 0.1 },
		TypeError,
		'lowerShare must not be given without priority; got 0.1',
	],
	[{ capacity: 3, fairBy: () => 'a', share: 2 }, TypeError, 'share must be a function; got 2'],
	[{ capacity: 3, dryRun: 1 }, TypeError, 'dryRun must be true or false; got 1'],
	[
		{ capacity: 3, share: () => 2 },
		TypeError,
		'share must not be given without fairBy; got a function',
	],
]

const NAMES =
	'capacity, maxQueue, maxWait, key, weight, skip, order, priority, lowerShare, fairBy, share, deadline, eventLoop, abandonedTimeout, stallTimeout, statusCode, serverTiming, rateLimitFields, dryRun, name'

describe.each([
	['Limiter', (given: unknown) => new Limiter(given as number), NAMES],
	['limit of Express', (given: unknown) => limitExpress(given as number), `${NAMES}, onReject`],
	['limit of Koa', (given: unknown) => limitKoa(given as number), `${NAMES}, onReject`],
])('%s refuses at construction, by name, value and what is allowed', (_name, make, names) => {
	test.each(refused)('%o', (given, type, message) => {
		expect(() => make(given)).toThrow(fault(type, message))
	})

	test('an unknown name', () => {
		const message = `unknown option "maxQueu"; allowed are ${names}`
		expect(() => make({ capacity: 3, maxQueu: 5 })).toThrow(fault(TypeError, message))
	})

	test.each(LIMITER_OPTIONS)('null for %s', (name) => {
		expect(() => make({ capacity: 3, priority: () => 1, [name]: null })).toThrow(
			/ must be .*; got null$/,
		)
	})

	test('what a class says, too', () => {
		class Options {
			capacity = 3
			key(): string {
				return 'a'
			}
		}
		const made = make(new Options())
		const limiter = made instanceof Limiter ? made : made.limiter
		// The default with `key`.
		expect(limiter.statusCode).toBe(429)
	})

	test('but not what is undefined, nor the edges of what is allowed', () => {
		make({ capacity: 3, maxQueue: undefined, maxWait: undefined, key: undefined, name: undefined })
		make({ capacity: 1, maxQueue: 0, maxWait: 0, abandonedTimeout: 0, statusCode: 400 })
		make({
			capacity: Number.POSITIVE_INFINITY,
			maxQueue: Number.POSITIVE_INFINITY,
			maxWait: 2_147_483_647,
		})
		make({
			capacity: 1,
			maxWait: Number.POSITIVE_INFINITY,
			abandonedTimeout: Number.POSITIVE_INFINITY,
		})
	})
})

test.each([
	['Express', limitExpress],
	['Koa', limitKoa],
])('limit of %s refuses an onReject that is no function', (_name, limit) => {
	expect(() => limit({ capacity: 3, onReject: 503 as never })).toThrow(
		fault(TypeError, 'onReject must be a function; got 503'),
	)
})

test('another package’s name for onReject leads to it where there is one', () => {
	const rejects = (given: object) => () => limitExpress(given as never)
	expect(rejects({ capacity: 3, handler() {} })).toThrow('unknown option "handler": write onReject')
	expect(rejects({ capacity: 3, rejectHandler() {} })).toThrow(
		'unknown option "rejectHandler": write onReject',
	)
	expect(() => new Limiter({ capacity: 3, handler() {} } as never)).toThrow(
		`unknown option "handler"; allowed are ${NAMES}`,
	)
})

test('the methods of an object of options keep their this', async () => {
	const seen: unknown[] = []
	class Options {
		capacity = 1
		key(): string {
			seen.push(this)
			return 'a'
		}
		weight(): number {
			return seen.push(this) && 1
		}
		skip(): boolean {
			return seen.push(this) === 0
		}
		priority(): number {
			return seen.push(this)
		}
		fairBy(): string {
			return `${seen.push(this)}`
		}
		deadline(): number {
			return seen.push(this) && Number.POSITIVE_INFINITY
		}
	}
	const options = new Options()
	for (const limiter of [
		new Limiter(options),
		limitExpress(options).limiter,
		limitKoa(options).limiter,
	]) {
		seen.length = 0
		await limiter.run(() => {})
		expect(seen).toHaveLength(6)
		for (const it of seen) expect(it).toBe(options)
	}
})

describe('what key returns', () => {
	async function keyOf(value: unknown): Promise<unknown[]> {
		const limiter = new Limiter({ capacity: 1, key: () => value as string })
		const keys: unknown[] = []
		limiter.observe({ admitted: ({ key }) => keys.push(key) })
		await limiter.run(() => {})
		expect(limiter.stats().keys).toBe(0)
		return keys
	}

	test.each([
		['a', 'a'],
		['', ''],
		[7, '7'],
		[0, '0'],
		[2n ** 64n, '18446744073709551616'],
	])('%o is the key %o', async (value, key) => {
		expect(await keyOf(value)).toEqual([key])
	})

	test.each([undefined, null])('%o is none', async (value) => {
		expect(await keyOf(value)).toEqual([])
	})

	const allowed = 'what key returns must be a string, a number, a bigint, undefined or null'
	test.each([
		[Number.NaN, RangeError, `${allowed}; got NaN`],
		[{}, TypeError, `${allowed}; got an object`],
		[true, TypeError, `${allowed}; got true`],
		[
			Promise.resolve('a'),
			TypeError,
			`${allowed}; got a promise: find it in a middleware before this one`,
		],
	])('%o is an error', async (value, type, message) => {
		await expect(keyOf(value)).rejects.toThrow(fault(type, message))
	})
})

test.each(['skip', 'key', 'weight', 'priority', 'fairBy', 'deadline', 'capacity'])(
	'an async %s that fails is an error of its request, and no unhandled rejection',
	async (name) => {
		const wrong = async (): Promise<never> => {
			throw new Error('no session')
		}
		const options = { capacity: 1, key: () => 'a', [name]: wrong }
		const limiter = new Limiter(options as never)
		// The runner fails a test that leaves a rejection unhandled.
		await expect(limiter.run(() => {})).rejects.toThrow(/; got a promise/)
		expect(limiter.stats()).toMatchObject({ active: 0, keys: 0 })
	},
)

test.each([
	['a', 'a'],
	[7, '7'],
	[2n, '2'],
])('%o is the flow %o', (value, flow) => {
	expect(checkFlow(value)).toBe(flow)
})

test('a flow that could not be read is an error', () => {
	expect(() => checkFlow(Number.NaN)).toThrow(RangeError)
})

test('a name is any text, without control characters and halves of characters', () => {
	for (const name of ['تقارير', '🚀'.repeat(64), '<b>"\\ %', '👩‍👩‍👧'])
		expect(new Limiter({ capacity: 3, name }).name).toBe(name)
	for (const name of ['a\nb', '\u0085', '\ud83d']) {
		expect(() => new Limiter({ capacity: 3, name })).toThrow(RangeError)
	}
})

test('the limiter’s resize refuses what its capacity refuses', () => {
	const limiter = new Limiter(3)
	expect(() => limiter.resize(0)).toThrow(fault(RangeError, `${CAPACITY}; got 0`))
	expect(limiter.capacity).toBe(3)
})

describe('Semaphore', () => {
	const from0 = 'capacity must be an integer from 0, or Infinity'
	test.each([
		[[-1], RangeError, `${from0}; got -1`],
		[['3'], TypeError, `${from0}; got "3"`],
		[
			[3, { maxQueue: 0.5 }],
			RangeError,
			'maxQueue must be an integer from 0, or Infinity; got 0.5',
		],
		[[3, { maxWait: 2 ** 31 }], RangeError, `maxWait must be ${WAIT}; got 2147483648`],
		[[3, { maxwait: 1 }], TypeError, 'unknown option "maxwait": write maxWait'],
		[[3, 5], TypeError, 'options must be an object; got 5'],
	])('its constructor refuses %o', (given, type, message) => {
		expect(() => new Semaphore(...(given as [number]))).toThrow(fault(type, message))
	})

	const acquiring: [unknown, ErrorConstructor, string][] = [
		[{ weight: 0 }, RangeError, 'weight must be an integer from 1; got 0'],
		[
			{ weight: Number.POSITIVE_INFINITY },
			RangeError,
			'weight must be an integer from 1; got Infinity',
		],
		[{ weight: '1' }, TypeError, 'weight must be an integer from 1; got "1"'],
		[{ weight: 4 }, RangeError, 'weight must be at most the capacity, 3; got 4'],
		[{ maxWait: -5 }, RangeError, `maxWait must be ${WAIT}; got -5`],
		[{ signal: 'stop' }, TypeError, 'signal must be an AbortSignal; got "stop"'],
		[{ signal: null }, TypeError, 'signal must be an AbortSignal; got null'],
		[{ signal: { aborted: false } }, TypeError, 'signal must be an AbortSignal; got an object'],
		[{ wait: 1 }, TypeError, 'unknown option "wait"; allowed are weight, signal, maxWait'],
	]

	test.each(acquiring)(
		'acquire and run reject, and tryAcquire throws, for %o',
		async (given, type, message) => {
			const semaphore = new Semaphore(3)
			await expect(semaphore.acquire(given as object)).rejects.toThrow(fault(type, message))
			await expect(semaphore.run(() => 1, given as object)).rejects.toThrow(fault(type, message))
			expect(() => semaphore.tryAcquire(given as object)).toThrow(fault(type, message))
			expect(semaphore.active).toBe(0)
		},
	)

	test('resize refuses what the constructor refuses, and changes nothing', () => {
		const semaphore = new Semaphore(3)
		expect(() => semaphore.resize(-1)).toThrow(fault(RangeError, `${from0}; got -1`))
		expect(semaphore.capacity).toBe(3)
	})
})
