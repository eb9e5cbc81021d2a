import fc from 'fast-check'

/*
 * What the test of exchanges generates: the limiter's options and a sequence of what a connection,
 * a client, a handler and other middleware can do. A program is plain data: it can be run again,
 * shrunk, and printed.
 */

/** What a handler does, one after the other. At `wait` it stops, until a step `go`. */
const ACTIONS = [
	'wait',
	'write',
	'read',
	'release',
	'end',
	'end empty',
	'pipe',
	'pipeline',
	'answer by framework',
	'file by framework',
	'answer by stream',
	'throw',
	'destroy response',
	'destroy socket',
	'return',
] as const
export type Action = (typeof ACTIONS)[number]

export interface Send {
	do: 'send'
	connection: number
	version: '1.1' | '1.1 close' | '1.0' | '1.0 keep-alive'
	/** `upload`: its body comes with the next request of its connection, or at the end. */
	method: 'GET' | 'POST' | 'upload'
	limited: boolean
	/** The app closes the connection behind the answer: `Connection: close`. */
	closes: boolean
	/** A middleware before the limiter holds it back, until a step `enter`. */
	held: boolean
	handler: Action[]
}

/** `garbage`: Node answers it with 400, and closes the connection. */
export type Exit = 'FIN' | 'RST' | 'destroy' | 'reset stream' | 'garbage'

type Act =
	| Send
	| { do: 'enter'; of: number }
	| { do: 'go'; of: number }
	/** A middleware before the limiter answers, unless the head of an answer is out. */
	| { do: 'answer'; of: number; how: 'end' | 'stream' | 'pipe' | 'timeout' | 'race' }
	| { do: 'leave'; of: number; how: Exit }
	| { do: 'release'; of: number }
	| { do: 'destroy'; of: number; what: 'response' | 'socket' }
	| { do: 'resize'; capacity: number }
	| { do: 'pause' }

/** `turns`: turns of the event loop until the next step; 0: it comes in the same turn. */
export type Step = Act & { turns: number }

export interface Program {
	framework: 'Express 5' | 'Koa 3' | 'node:http'
	/** HTTP/2 is not Express's. */
	protocol: 'HTTP/1' | 'HTTP/2'
	capacity: number
	maxQueue: number
	/** In ms. */
	maxWait: number
	abandonedTimeout: number
	/** How a request is told not to be limited. */
	unlimitedBy: 'route' | 'skip' | 'key'
	/** `httpAllowHalfOpen` of the server: a client that ends its side is served. */
	halfOpen: boolean
	steps: Step[]
}

const which = fc.nat({ max: 11 })

const action = fc.oneof(
	{ weight: 6, arbitrary: fc.constant<Action>('wait') },
	{ weight: 3, arbitrary: fc.constant<Action>('write') },
	{ weight: 10, arbitrary: fc.constantFrom(...ACTIONS) },
)

const send: fc.Arbitrary<Act> = fc.record({
	do: fc.constant('send'),
	connection: fc.nat({ max: 3 }),
	version: fc.oneof(
		{ weight: 6, arbitrary: fc.constant('1.1' as const) },
		{
			weight: 3,
			arbitrary: fc.constantFrom('1.0 keep-alive' as const, '1.1 close' as const, '1.0' as const),
		},
	),
	method: fc.oneof(
		{ weight: 6, arbitrary: fc.constant('GET' as const) },
		{ weight: 2, arbitrary: fc.constantFrom('POST' as const, 'upload' as const) },
	),
	limited: fc.oneof(
		{ weight: 4, arbitrary: fc.constant(true) },
		{ weight: 1, arbitrary: fc.constant(false) },
	),
	closes: fc.oneof(
		{ weight: 9, arbitrary: fc.constant(false) },
		{ weight: 1, arbitrary: fc.constant(true) },
	),
	held: fc.oneof(
		{ weight: 4, arbitrary: fc.constant(false) },
		{ weight: 1, arbitrary: fc.constant(true) },
	),
	handler: fc.array(action, { maxLength: 4 }),
})

const act: fc.Arbitrary<Act> = fc.oneof(
	{ weight: 10, arbitrary: send },
	{ weight: 5, arbitrary: fc.record({ do: fc.constant('go' as const), of: which }) },
	{ weight: 2, arbitrary: fc.record({ do: fc.constant('enter' as const), of: which }) },
	{
		weight: 4,
		arbitrary: fc.record({
			do: fc.constant('answer' as const),
			of: which,
			how: fc.constantFrom('end', 'stream', 'pipe', 'timeout', 'race'),
		}),
	},
	{
		weight: 4,
		arbitrary: fc.record({
			do: fc.constant('leave' as const),
			of: which,
			how: fc.constantFrom('FIN', 'RST', 'destroy', 'reset stream', 'garbage'),
		}),
	},
	{ weight: 1, arbitrary: fc.record({ do: fc.constant('release' as const), of: which }) },
	{
		weight: 1,
		arbitrary: fc.record({
			do: fc.constant('destroy' as const),
			of: which,
			what: fc.constantFrom('response', 'socket'),
		}),
	},
	{
		weight: 1,
		arbitrary: fc.record({
			do: fc.constant('resize' as const),
			capacity: fc.integer({ min: 1, max: 3 }),
		}),
	},
	{ weight: 1, arbitrary: fc.record({ do: fc.constant('pause' as const) }) },
)

const step: fc.Arbitrary<Step> = fc
	.tuple(act, fc.constantFrom(3, 3, 3, 0, 1))
	.map(([made, turns]) => ({ ...made, turns }))

const inTime = fc.constantFrom(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 3)

export const programs: fc.Arbitrary<Program> = fc
	.record({
		app: fc.oneof(
			{
				weight: 3,
				arbitrary: fc.constant({ framework: 'Express 5', protocol: 'HTTP/1' } as const),
			},
			{ weight: 3, arbitrary: fc.constant({ framework: 'Koa 3', protocol: 'HTTP/1' } as const) },
			{
				weight: 2,
				arbitrary: fc.constant({ framework: 'node:http', protocol: 'HTTP/1' } as const),
			},
			{
				weight: 1,
				arbitrary: fc.constant({ framework: 'node:http', protocol: 'HTTP/2' } as const),
			},
			{ weight: 1, arbitrary: fc.constant({ framework: 'Koa 3', protocol: 'HTTP/2' } as const) },
		),
		capacity: fc.constantFrom(1, 1, 2),
		maxQueue: fc.constantFrom(100, 100, 1, 0),
		maxWait: inTime,
		abandonedTimeout: fc.constantFrom(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 0),
		unlimitedBy: fc.constantFrom('route', 'skip', 'key'),
		halfOpen: fc.boolean(),
		steps: fc.array(step, { minLength: 1, maxLength: 16, size: 'max' }),
	})
	.map(({ app, ...rest }) => ({ ...app, ...rest }))

/** A program as text: a line of options, and one for each step. */
export function print(program: Program): string {
	const { framework, protocol, capacity, maxQueue, maxWait, abandonedTimeout } = program
	const options = `capacity ${capacity}, maxQueue ${maxQueue}, maxWait ${maxWait}, abandonedTimeout ${abandonedTimeout}`
	const server = `${framework}, ${protocol}${program.halfOpen ? ', half-open allowed' : ''}`
	let sent = 0
	const lines = program.steps.map((each) => {
		const turns = each.turns === 3 ? '' : `   (then ${each.turns} turns)`
		return `  ${each.do === 'send' ? `#${sent++} ` : ''}${line(each, sent)}${turns}`
	})
	return [
		`${server}: ${options}, unlimited by ${program.unlimitedBy}`,
		...lines,
		`  (${JSON.stringify(program, (_name, value) => (value === Number.POSITIVE_INFINITY ? 'Infinity' : value))})`,
	].join('\n')
}

function line(act: Act, sent: number): string {
	const of = 'of' in act ? `#${sent === 0 ? '-' : act.of % sent}` : ''
	switch (act.do) {
		case 'send': {
			const { connection, version, method, limited, closes, held, handler } = act
			const traits = `${limited ? 'limited' : 'unlimited'}${held ? ', held' : ''}${closes ? ', Connection: close' : ''}`
			return `connection ${connection} sends ${method} ${version}, ${traits}; its handler: ${handler.join(', ') || 'end'}`
		}
		case 'enter':
			return `${of} is let through to the limiter`
		case 'go':
			return `the handler of ${of} goes on`
		case 'answer':
			return `${of} is answered by other middleware (${act.how})`
		case 'leave':
			return `the client of ${of} leaves (${act.how})`
		case 'release':
			return `${of} is released early`
		case 'destroy':
			return `other middleware destroys the ${act.what} of ${of}`
		case 'resize':
			return `resize(${act.capacity})`
		case 'pause':
			return 'some milliseconds pass'
	}
}
