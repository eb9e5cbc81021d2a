import { AsyncLocalStorage } from 'node:async_hooks'
import express from 'express'
import supertest from 'supertest'
import { expect, test, vi } from 'vitest'
import { limit } from '../../adapters/express.js'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import type { Observer } from '../../src/stats/observer.js'
import { settle } from '../support/gate.js'

const present = new AbortController().signal

/** All that an observer is told, in order. */
function recorder(): { told: [string, object][]; observer: Required<Observer> } {
	const told: [string, object][] = []
	const observer = {
		admitted: (facts: object) => told.push(['admitted', facts]),
		released: (facts: object) => told.push(['released', facts]),
		rejected: (facts: object) => told.push(['rejected', facts]),
		resized: (facts: object) => told.push(['resized', facts]),
		availability: (facts: object) => told.push(['availability', facts]),
	}
	return { told, observer }
}

test('an observer is told the facts of each event, until it ends that', async () => {
	const limiter = new Limiter({
		capacity: 1,
		maxQueue: 1,
		name: 'reports',
		key: (request) => (request as { user: string }).user,
	})
	const { told, observer } = recorder()
	const end = limiter.observe(observer)
	const facts = { limiter: 'reports', key: 'ada' }
	const wait = expect.any(Number)

	const first = limiter[enter]({ user: 'ada' }, present) as Stay
	const second = settle(limiter[enter]({ user: 'ada' }, present)) as Promise<Stay>
	expect(limiter[enter]({ user: 'ada' }, present)).toMatchObject({
		error: { reason: 'queue-full' },
	})
	first.leave('server-error')
	const stay = await second
	const { waited } = stay
	limiter.resize(2)
	stay.leave('abandoned')
	expect(told).toEqual([
		['admitted', { ...facts, active: 1, queued: 0, waited: 0 }],
		['rejected', { ...facts, active: 1, queued: 1, waited: wait, reason: 'queue-full' }],
		[
			'released',
			{ ...facts, active: 1, queued: 0, waited: 0, held: wait, outcome: 'server-error' },
		],
		['admitted', { ...facts, active: 1, queued: 0, waited }],
		['resized', { limiter: 'reports', capacity: 2 }],
		['released', { ...facts, active: 0, queued: 0, waited, held: wait, outcome: 'abandoned' }],
	])

	end()
	end()
	limiter.resize(3)
	expect(told).toHaveLength(6)
})

test('an observer may have any of the functions, and there may be several', () => {
	const limiter = new Limiter(1)
	const { told, observer } = recorder()
	limiter.observe({ released: observer.released })
	limiter.observe({ admitted: observer.admitted })
	const stay = limiter[enter]({}, present) as Stay
	stay.leave('ok')
	expect(told.map(([name]) => name)).toEqual(['admitted', 'released'])
})

test('an event is told to those that were there when it came up', () => {
	const limiter = new Limiter(1)
	const told: string[] = []
	let rounds = 0
	// One that observes anew each time: it must not be told of the same event without end.
	const observe = (): void => {
		const end = limiter.observe({
			admitted: () => {
				told.push(`round ${++rounds}`)
				end()
				if (rounds < 9) observe()
			},
		})
	}
	const ends = [() => {}]
	limiter.observe({ admitted: () => ends[0]?.() })
	observe()
	ends[0] = limiter.observe({ admitted: () => told.push('one that was ended meanwhile') })
	;(limiter[enter]({}, present) as Stay).leave('ok')
	expect(told).toEqual(['round 1'])
	;(limiter[enter]({}, present) as Stay).leave('ok')
	expect(told).toEqual(['round 1', 'round 2'])
})

test('what an observer throws need not be fit to be made a string', () => {
	const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
	const limiter = new Limiter(1)
	limiter.observe({
		admitted: () => {
			throw Object.create(null)
		},
	})
	;(limiter[enter]({}, present) as Stay).leave('ok')
	expect(limiter.active).toBe(0)
	expect(warn).toHaveBeenCalledWith(
		expect.stringContaining('a value of type object'),
		expect.anything(),
	)
	warn.mockRestore()
})

test('an observer that throws harms nobody, and is reported once', async () => {
	const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
	const limiter = new Limiter(1)
	const { told, observer } = recorder()
	limiter.observe({
		admitted: () => {
			throw new Error('out of order')
		},
		released: () => {
			throw 'not even an error'
		},
	})
	limiter.observe({
		released: () => {
			throw 'not even an error'
		},
	})
	limiter.observe(observer)
	for (let i = 0; i < 3; i++) (limiter[enter]({}, present) as Stay).leave('ok')
	expect(told).toHaveLength(6)
	expect(limiter.stats()).toMatchObject({ active: 0, completed: 3 })
	expect(warn.mock.calls).toEqual([
		[
			expect.stringMatching(/admitted\(\).*out of order/),
			expect.objectContaining({ code: 'INFLIGHT_OBSERVER' }),
		],
		[
			expect.stringMatching(/released\(\).*not even/),
			expect.objectContaining({ code: 'INFLIGHT_OBSERVER' }),
		],
	])
	warn.mockRestore()
})

test('an observer whose promise rejects harms nobody either, and is reported once', async () => {
	const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
	const limiter = new Limiter(1)
	limiter.observe({
		admitted: async () => {
			throw new Error('no database')
		},
	})
	// The runner fails a test that leaves a rejection unhandled.
	for (let i = 0; i < 3; i++) await limiter.run(() => {})
	expect(warn.mock.calls).toEqual([
		[
			expect.stringMatching(/admitted\(\).*no database/),
			expect.objectContaining({ code: 'INFLIGHT_OBSERVER' }),
		],
	])
	warn.mockRestore()
})

test.each([
	[undefined, 'got undefined'],
	['admitted', 'got "admitted"'],
	[{}, 'got an object'],
	[{ admited: () => {} }, 'got an object'],
	[{ admitted: 3 }, 'observer.admitted must be a function; got 3'],
])('what is no observer throws: %j', (value, message) => {
	const limiter = new Limiter(1)
	expect(() => limiter.observe(value as Observer)).toThrow(TypeError)
	expect(() => limiter.observe(value as Observer)).toThrow(message)
})

test('the outcome is that of the response; admission is told in the context of its request', async () => {
	const context = new AsyncLocalStorage<string>()
	const guard = limit(1)
	const outcomes: string[] = []
	const contexts: unknown[] = []
	guard.limiter.observe({
		admitted: () => contexts.push(context.getStore()),
		released: ({ outcome }) => outcomes.push(outcome),
	})
	const app = express()
	app.use((req, _res, next) => context.run(req.path, next))
	app.get('/:status', guard, (req, res) => {
		setImmediate(() => res.sendStatus(Number(req.params.status)))
	})
	const client = supertest(app)
	await client.get('/204')
	await client.get('/304')
	await client.get('/404')
	await client.get('/500')
	expect(outcomes).toEqual(['ok', 'ok', 'client-error', 'server-error'])
	await Promise.all([client.get('/200'), client.get('/201'), client.get('/202')])
	expect(contexts.slice(4).sort()).toEqual(['/200', '/201', '/202'])
})
