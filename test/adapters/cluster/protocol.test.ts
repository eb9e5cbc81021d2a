import { describe, expect, test } from 'vitest'
import {
	type Answer,
	type Ask,
	AT_ONCE,
	answerMessage,
	askMessage,
	readAnswer,
	readAsk,
} from '../../../adapters/cluster/protocol.js'

const ask: Ask = {
	name: 'renders',
	turn: 1,
	acquire: [
		[1, 2, null],
		[2, 1, 'ada'],
	],
	leave: [[3, 'abandoned']],
	weigh: [[4, 5]],
	terms: 'capacity 3',
	resize: 4,
}

const answer: Answer = {
	name: 'renders',
	turn: 1,
	capacity: 3,
	admit: [[1, 0, 2]],
	reject: [[2, 'queue-full', 4, 3, 10]],
	terms: 'capacity 3',
	begun: true,
}

const parsed = (message: object) => JSON.parse(JSON.stringify(message))

/** What a message must not be: it is one of others, or was changed on its way. */
const ASKS: [what: string, change: object][] = [
	['no name', { name: undefined }],
	['a name that is no text', { name: 3 }],
	['a name that is too long', { name: 'a'.repeat(2_000) }],
	['a turn below 0', { turn: -1 }],
	['a turn that is no integer', { turn: 0.5 }],
	['no list of requests', { acquire: {} }],
	['a request that is no list', { acquire: [1] }],
	['a request without a number', { acquire: [[null, 1, null]] }],
	['a request of no weight', { acquire: [[1, 0, null]] }],
	['a request with a key that is no text', { acquire: [[1, 1, 3]] }],
	['a request with a key that is too long', { acquire: [[1, 1, 'a'.repeat(2_000)]] }],
	['a request with more', { acquire: [[1, 1, null, 1]] }],
	[
		'too many requests',
		{ acquire: Array.from({ length: AT_ONCE + 1 }, (_, i) => [i + 1, 1, null]) },
	],
	['no list of those that leave', { leave: undefined }],
	['an unknown outcome', { leave: [[1, 'fine']] }],
	['one that leaves with more', { leave: [[1, 'ok', 1]] }],
	['no list of new weights', { weigh: undefined }],
	['a new weight of 0', { weigh: [[1, 0]] }],
	['a new weight that no permit can have', { weigh: [[1, 2 ** 40 + 1]] }],
	['a new weight with more', { weigh: [[1, 2, 3]] }],
	['terms that are no text', { terms: 3 }],
	['a capacity of 0', { resize: 0 }],
	['a capacity that is no integer', { resize: 1.5 }],
]

const ANSWERS: [what: string, change: object][] = [
	['no name', { name: undefined }],
	['no turn', { turn: undefined }],
	['no capacity', { capacity: null }],
	['a permit without a number', { admit: [[0, 0, 0]] }],
	['a permit with a place below 0', { admit: [[1, -1, 0]] }],
	['a permit with more', { admit: [[1, 0, 0, 0]] }],
	['an unknown reason', { reject: [[1, 'tired', 1, 0, 0]] }],
	['a Retry-After of 0', { reject: [[1, 'timeout', 0, 0, 0]] }],
	['a rejection with less', { reject: [[1, 'timeout', 1, 0]] }],
	['terms that are no text', { terms: [] }],
	['a beginning that is none', { begun: false }],
]

describe('a message', () => {
	test('arrives as it was sent', () => {
		expect(readAsk(parsed(askMessage(ask)))).toEqual(ask)
		expect(readAnswer(parsed(answerMessage(answer)))).toEqual(answer)
		const { terms: _, resize: __, ...least } = ask
		expect(readAsk(parsed(askMessage(least)))).toEqual(least)
	})

	test.each(ASKS)('to the primary with %s is ignored', (_, change) => {
		expect(readAsk(parsed(askMessage({ ...ask, ...change })))).toBeUndefined()
	})

	test.each(ANSWERS)('to a worker with %s is ignored', (_, change) => {
		expect(readAnswer(parsed(answerMessage({ ...answer, ...change })))).toBeUndefined()
	})

	test('of others is ignored, and so is one that comes back', () => {
		const others = [
			undefined,
			null,
			3,
			'ask',
			[],
			{},
			{ type: 'ask' },
			{ ask },
			Object.create(askMessage(ask)),
		]
		for (const message of [...others, answerMessage(answer), { 'inflight-limit.ask': null }]) {
			expect(readAsk(message)).toBeUndefined()
		}
		for (const message of [...others, askMessage(ask), { 'inflight-limit.answer': 3 }]) {
			expect(readAnswer(message)).toBeUndefined()
		}
	})
})

test.each(['acquire', 'leave', 'weigh'])('a list with a hole is no message: %s', (list) => {
	const message = askMessage({ ...ask, [list]: new Array(1) } as Ask)
	expect(readAsk(message)).toBeUndefined()
})
