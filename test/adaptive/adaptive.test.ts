import { expect, test, vi } from 'vitest'
import { limit } from '../../adapters/express.js'
import { downstreams, peakOf } from '../../bench/overload/downstream.js'
import { modelOf } from '../../bench/overload/model.js'
import { limiterOf } from '../../bench/overload/policies.js'
import { type Scenario, simulate } from '../../bench/overload/simulation.js'
import {
	adaptive,
	aimd,
	type Controller,
	type ControllerFactory,
	type Sample,
} from '../../src/adaptive/index.js'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import { settle } from '../support/gate.js'

const present = new AbortController().signal

function sampleOf(sample: Partial<Sample>): Sample {
	return { held: 10, active: 1, queued: 0, abandoned: 0, outcome: 'ok', now: 0, ...sample }
}

/** One that says what it is told to. */
function obeying(says: () => number, more: Partial<Controller> = {}): ControllerFactory {
	return { newController: () => ({ initial: 2, sample: says, ...more }) }
}

test('a controller is told of each request that is over, and its capacity counts from then on', async () => {
	const samples: Sample[] = []
	const controller = { initial: 1, sample: (sample: Sample) => samples.push(sample) + 1 }
	const limiter = new Limiter({ capacity: { newController: () => controller } })
	const resized = vi.fn()
	limiter.observe({ resized })
	const first = limiter[enter]({}, present) as Stay
	const second = settle(limiter[enter]({}, present)) as Promise<Stay>
	expect([limiter.capacity, limiter.active, limiter.queued]).toEqual([1, 1, 1])
	first.leave('server-error')
	;(await second).leave('ok')
	expect(samples).toMatchObject([
		{
			active: 1,
			queued: 1,
			outcome: 'server-error',
			held: expect.any(Number),
			now: expect.any(Number),
		},
		{ active: 1, queued: 0, outcome: 'ok' },
	])
	expect(limiter.capacity).toBe(3)
	expect(limiter.stats().capacity).toBe(3)
	expect(resized).toHaveBeenCalledWith({ limiter: 'default', key: undefined, capacity: 3 })
})

test('a controller is told how many at work, with its key, have no client any more', () => {
	const told: number[] = []
	const sample = ({ abandoned }: Sample): number => {
		told.push(abandoned)
		return 5
	}
	const limiter = new Limiter({
		capacity: { newController: () => ({ initial: 5, sample }) },
		key: (request) => (request as { user: string }).user,
	})
	const [a, b, c, other] = ['one', 'one', 'one', 'other'].map(
		(user) => limiter[enter]({ user }, present) as Stay,
	) as [Stay, Stay, Stay, Stay]
	a.abandon?.()
	b.abandon?.()
	b.abandon?.()
	other.leave('ok')
	a.leave('abandoned')
	b.leave('abandoned')
	c.leave('ok')
	expect(told).toEqual([0, 2, 1, 0])
})

test('with a key, each has a controller of its own', () => {
	const limiter = new Limiter({
		capacity: obeying(() => 5),
		key: (request) => (request as { user: string }).user,
	})
	const resized = vi.fn()
	limiter.observe({ resized })
	const ada = limiter[enter]({ user: 'ada' }, present) as Stay
	const bob = limiter[enter]({ user: 'bob' }, present) as Stay
	ada.leave('ok')
	expect(resized.mock.calls).toEqual([[{ limiter: 'default', key: 'ada', capacity: 5 }]])
	expect(limiter.stats()).toMatchObject({ capacity: 2, keys: 1 })
	bob.leave('ok')
})

test('a controller that fails costs no permit, and is reported once', () => {
	const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
	const limiter = new Limiter({ capacity: obeying(() => 0) })
	for (let i = 0; i < 3; i++) (limiter[enter]({}, present) as Stay).leave('ok')
	expect(limiter.stats()).toMatchObject({ active: 0, capacity: 2, completed: 3 })
	expect(warn).toHaveBeenCalledTimes(1)
	warn.mockRestore()
})

test.each([
	[
		'throws what is no string',
		() => {
			throw Object.create(null)
		},
		'a value of type object',
	],
	[
		'throws a symbol',
		() => {
			throw Symbol('x')
		},
		'Symbol(x)',
	],
	[
		'returns nothing',
		() => undefined,
		'what sample returns must be an integer from 1; got undefined',
	],
	[
		'returns Infinity',
		() => Number.POSITIVE_INFINITY,
		'what sample returns must be an integer from 1; got Infinity',
	],
	['returns more than its max', () => 9, 'what sample returns must be at most max, 8; got 9'],
])('a controller that %s costs no permit either', (_what, sample, said) => {
	const warn = vi.spyOn(process, 'emitWarning').mockReturnValue()
	const limiter = new Limiter({ capacity: obeying(sample as () => number, { max: 8 }) })
	for (let i = 0; i < 3; i++) (limiter[enter]({}, present) as Stay).leave('ok')
	expect(limiter.stats()).toMatchObject({ active: 0, capacity: 2, completed: 3 })
	expect(warn.mock.calls).toEqual([[expect.stringContaining(said), expect.anything()]])
	warn.mockRestore()
})

test('a controller is made once for a limiter, or for each key, and begins where it says', () => {
	let made = 0
	const capacity = { newController: (): Controller => ({ initial: ++made, sample: () => made }) }
	expect(new Limiter({ capacity }).capacity).toBe(1)
	expect(made).toBe(1)
	const limiter = new Limiter({
		capacity,
		maxQueue: 0,
		key: (request) => (request as { key: string }).key,
	})
	expect([made, limiter.capacity]).toEqual([2, 2])
	for (const key of ['a', 'b']) for (let i = 0; i < 5; i++) limiter[enter]({ key }, present)
	expect(made).toBe(4)
	expect(limiter.active).toBe(3 + 4)
})

test('an important one takes the place of another in a queue that has become too long, as the capacity shrank', async () => {
	const limiter = new Limiter({
		capacity: { newController: () => ({ initial: 60, sample: () => 1 }) },
		priority: (request) => (request as { priority: number }).priority,
	})
	const come = (priority: number) => limiter[enter]({ priority }, present)
	const first = come(0) as Stay
	for (let i = 0; i < 119; i++) void Promise.resolve(come(0)).catch(() => {})
	await Promise.resolve()
	expect(limiter.queued).toBe(60)
	first.leave('ok')
	expect([limiter.capacity, limiter.queued]).toEqual([1, 60])
	for (let i = 0; i < 10; i++) expect(come(1).tag).toBe('waiting')
	expect(come(0)).toMatchObject({ error: { reason: 'queue-full' } })
	expect(limiter.queued).toBe(60)
	for (let i = 0; i < 10; i++) await null
	expect(limiter.stats().rejected).toMatchObject({ 'queue-full': 1, evicted: 10 })
})

test('a request heavier than the capacity found takes all of it; heavier than the highest is an error', () => {
	const limiter = new Limiter({
		capacity: obeying(() => 2, { max: 8 }),
		weight: (request) => (request as { weight: number }).weight,
	})
	const stay = limiter[enter]({ weight: 8 }, present) as Stay
	expect(limiter.active).toBe(2)
	stay.leave('ok')
	expect(() => limiter[enter]({ weight: 9 }, present)).toThrow(
		'weight must be at most the capacity, 8; got 9',
	)
})

test('no more wait for a found capacity than bridge the gaps, unless maxQueue says so', async () => {
	const short = new Limiter({ capacity: obeying(() => 2) })
	const long = new Limiter({ capacity: obeying(() => 2), maxQueue: 5 })
	for (const limiter of [short, long]) for (let i = 0; i < 8; i++) limiter[enter]({}, present)
	await Promise.resolve()
	expect([short.queued, long.queued]).toEqual([1, 5])
})

test('a controller says whether requests are rejected while the event loop is late; the option comes first', () => {
	const watches = (options: LimiterOptions) => new Limiter(options).stats().eventLoop !== undefined
	expect(watches({ capacity: adaptive() })).toBe(true)
	expect(watches({ capacity: adaptive(), eventLoop: false })).toBe(false)
	expect(watches({ capacity: aimd() })).toBe(false)
	expect(watches({ capacity: obeying(() => 2) })).toBe(false)
	expect(watches({ capacity: obeying(() => 2, { eventLoop: true }) })).toBe(true)
	expect(watches({ capacity: 2, eventLoop: true })).toBe(true)
	expect(watches({ capacity: 2 })).toBe(false)
	expect(new Limiter(2).overloaded).toBe(false)
	expect(() => watches({ capacity: 2, eventLoop: 1 as never })).toThrow(
		'eventLoop must be true or false; got 1',
	)
})

test('what makes a controller can be given alone, like a number', () => {
	expect(new Limiter(adaptive({ initial: 7 })).capacity).toBe(7)
	expect(limit(adaptive({ initial: 7 }) as never).limiter.capacity).toBe(7)
})

test('what is no controller is rejected when the limiter is made', () => {
	const wrong =
		(newController: unknown): (() => Limiter) =>
		() =>
			new Limiter({ capacity: { newController } as ControllerFactory })
	expect(wrong(3)).toThrow('newController must be a function; got 3')
	expect(wrong(() => 3)).toThrow('what newController returns must be a controller; got 3')
	const { newController } = adaptive()
	expect(() => new Limiter({ capacity: newController as never })).toThrow('capacity: adaptive()')
	expect(() => new Limiter({ capacity: adaptive as never })).toThrow('capacity: adaptive()')
	expect(wrong(() => ({ initial: 0, sample: () => 1 }))).toThrow(
		'initial of a controller must be an integer from 1; got 0',
	)
	expect(wrong(() => ({ initial: 1, max: 0, sample: () => 1 }))).toThrow(
		'max of a controller must be an integer from 1, or Infinity; got 0',
	)
	expect(wrong(() => ({ initial: 10, max: 5, sample: () => 1 }))).toThrow(
		'initial of a controller must be at most its max, 5; got 10',
	)
	expect(wrong(() => ({ initial: 1 }))).toThrow(
		'sample of a controller must be a function; got undefined',
	)
	expect(wrong(() => ({ initial: 1, sample: 1 }))).toThrow(TypeError)
	expect(wrong(() => ({ initial: 1, sample: () => 1, eventLoop: 1 }))).toThrow(
		'eventLoop of a controller must be true or false; got 1',
	)
	expect(() => new Limiter({ capacity: adaptive() }).resize(3)).toThrow('found by a controller')
})

test.each([
	['adaptive', adaptive],
	['aimd', aimd],
])('%s says which option is wrong', (_name, make) => {
	expect(() => make({ min: 0 })).toThrow('min must be an integer from 1')
	expect(() => make({ min: 5, max: 4 })).toThrow('min must be at most max, 4; got 5')
	expect(() => make({ min: 2000 })).toThrow('min must be at most max, 1000; got 2000')
	expect(() => make({ max: 0 })).toThrow('max must be an integer from 1, or Infinity; got 0')
	expect(() => make({ max: 4, initial: 5 })).toThrow('initial must be at most max, 4; got 5')
	expect(() => make({ initail: 5 } as object)).toThrow('unknown option "initail"')
	expect(make({ max: 4 }).newController().initial).toBe(4)
	expect(make({ min: 100 }).newController().initial).toBe(100)
})

test('aimd grows by one a round while it is used, and shrinks once by a tenth at a sign of overload', () => {
	const { sample } = aimd({ latency: 100, initial: 10, min: 8, max: 12 }).newController()
	const say = (more: Partial<Sample>): number => sample(sampleOf({ active: 10, ...more }))
	for (let i = 0; i < 30; i++) say({ active: 3, now: i })
	expect(say({ active: 3 })).toBe(10)
	for (let i = 0; i < 11; i++) say({ now: 30 + i })
	expect(say({ now: 50 })).toBe(11)
	expect(say({ held: 101, now: 200 })).toBe(9)
	expect(say({ outcome: 'abandoned', now: 201, held: 150 })).toBe(9)
	expect(say({ outcome: 'client-error', now: 500, held: 500 })).toBe(9)
	expect(say({ outcome: 'server-error', now: 500, held: 1 })).toBe(8)
	expect(say({ outcome: 'server-error', now: 600, held: 1 })).toBe(8)
	for (let i = 0; i < 100; i++) say({ active: 20, now: 700 })
	expect(say({ active: 20, now: 700 })).toBe(12)
	expect(
		aimd({ errors: false })
			.newController()
			.sample(sampleOf({ outcome: 'server-error' })),
	).toBe(20)
	expect(() => aimd({ errors: 1 as never })).toThrow('errors must be a boolean; got 1')
})

const ours = limiterOf({ capacity: adaptive() }, Limiter)

function run(name: string, scenario: Partial<Scenario>, policy = ours) {
	const downstream = downstreams.find((each) => each.name === name) as (typeof downstreams)[number]
	return simulate(policy, { downstream, load: 2, seconds: 8, warmup: 4, retries: 0, ...scenario })
}

test('an overloaded downstream goes on at nine tenths of its best or more, and a run repeats to the digit', async () => {
	for (const downstream of downstreams) {
		const [first, second] = [await run(downstream.name, {}), await run(downstream.name, {})]
		expect(second).toEqual(first)
		expect(first.goodput / peakOf(downstream)).toBeGreaterThan(0.9)
	}
})

test.each([
	['not retried', 0],
	['retried twice', 2],
])('what is rejected and %s leaves as much for the others', async (_name, retries) => {
	const { goodput } = await run('sharp', { load: 5, retries })
	expect(goodput / 1500).toBeGreaterThan(0.9)
})

test('fast and slow requests behind one limit do not fool it, nor does a shift of their shares', async () => {
	for (const seed of [1, 2]) {
		const scenario: Partial<Scenario> = {
			seed,
			seconds: 20,
			deadline: 1000,
			work: (random, now) => (random.next() < (now < 15_000 ? 0.7 : 0.5) ? 0.27 : 2.7),
		}
		const { goodput } = await run('sharp', scenario)
		const fixed = await run('sharp', scenario, limiterOf({ capacity: 60, maxQueue: 15 }, Limiter))
		expect(goodput / fixed.goodput).toBeGreaterThan(0.85)
	}
})

test('errors of clients are no congestion', async () => {
	const { goodput } = await run('sharp', {
		outcome: (now, random) => (now > 6000 && random.next() < 0.8 ? 'client-error' : 'ok'),
	})
	expect(goodput / 1500).toBeGreaterThan(0.85)
})

test('where all fails the limit stays where it was, about', async () => {
	const policy = limiterOf({ capacity: adaptive({ initial: 64 }) }, Limiter)
	const { capacityEach } = await run('sharp', { outcome: () => 'server-error' }, policy)
	expect(Math.min(...capacityEach)).toBeGreaterThan(20)
	expect(Math.max(...capacityEach)).toBeLessThan(200)
})

test('where all answers come too late it comes down', async () => {
	const downstream = {
		name: 'small',
		service: 40,
		knee: 8,
		slowdown: (ratio: number) => 1 + ratio ** 2,
	}
	const policy = limiterOf({ capacity: adaptive({ initial: 64 }) }, Limiter)
	const { goodEach } = await run('database', { downstream, load: 5, seconds: 12 }, policy)
	const late = goodEach.slice(-5).reduce((sum, each) => sum + each, 0) / 5
	expect(late / peakOf(downstream)).toBeGreaterThan(0.7)
})

test('fast errors do not make the limit grow', async () => {
	const { capacityEach } = await run('database', {
		outcome: (now) => (now > 4000 ? 'server-error' : 'ok'),
	})
	expect(Math.max(...capacityEach.slice(6))).toBeLessThan(64)
})

test('a limit that is not reached does not grow', async () => {
	const policy = limiterOf({ capacity: adaptive({ initial: 64 }) }, Limiter)
	const { capacityEach } = await run('large', { load: 0.05 }, policy)
	expect(Math.max(...capacityEach)).toBe(64)
})

test('a knee that moves to a quarter is found, and back', async () => {
	const downstream = downstreams[0] as (typeof downstreams)[number]
	const moves = [
		{ at: 4, become: { ...downstream, knee: downstream.knee / 4 } },
		{ at: 10, become: downstream },
	]
	// One move may be lucky or not: the mean of four.
	const runs: Awaited<ReturnType<typeof simulate>>[] = []
	for (const seed of [1, 2, 3, 4]) {
		const scenario = { downstream, load: 2, seconds: 12, warmup: 4, retries: 0, seed, moves }
		runs.push(await simulate(modelOf({ capacity: adaptive() }), scenario))
	}
	const mean = (from: number, to: number): number =>
		runs.flatMap(({ goodEach }) => goodEach.slice(from, to)).reduce((sum, each) => sum + each, 0) /
		(runs.length * (to - from))
	const peak = peakOf(downstream)
	expect(mean(7, 10) / (peak / 4)).toBeGreaterThan(0.8)
	expect(mean(13, 16) / peak).toBeGreaterThan(0.8)
})

test('a limit that nobody reaches any more comes down towards what is used, not below the initial one', () => {
	const controller = adaptive({ initial: 10 }).newController()
	let now = 0
	let capacity = 10
	const say = (active: number): void => {
		capacity = controller.sample(
			sampleOf({ active, queued: active >= capacity ? 3 : 0, now: ++now }),
		)
	}
	// Each more at work is answered as well: there is no knee.
	for (let i = 0; i < 3_000; i++) {
		say(capacity)
		now -= 1 - 10 / capacity
	}
	const grown = capacity
	expect(grown).toBeGreaterThan(20)
	for (let i = 0; i < 30_000; i++) say(2)
	expect(capacity).toBe(10)
})
