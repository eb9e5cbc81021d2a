import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import { settle } from '../support/gate.js'

interface Request {
	id?: string
	priority?: number
	flow?: string
	weight?: number
	deadline?: number | undefined
	key?: string
}

const present = new AbortController().signal

/** A limiter, which requests it admitted, in which order, and why it rejected others. */
function setup(options: Partial<LimiterOptions<Request>>) {
	const limiter = new Limiter({ capacity: 1, ...options } as LimiterOptions)
	const admitted: string[] = []
	const rejected: Record<string, unknown> = {}
	const stays = new Map<string, Stay>()

	/** Comes, and waits until what becomes of it at once is known. */
	async function come(
		id: string,
		request: Request = {},
		signal: AbortSignal = present,
	): Promise<void> {
		const reject = (error?: { reason?: string }): void => {
			rejected[id] = error?.reason ?? error
		}
		const admit = (stay: Stay): void => {
			admitted.push(id)
			stays.set(id, stay)
		}
		const entered = limiter[enter]({ id, ...request }, signal)
		settle(entered).then((stay) => admit(stay as Stay), reject)
		await settled()
	}

	async function leave(id: string): Promise<void> {
		stays.get(id)?.leave('ok')
		stays.delete(id)
		await settled()
	}

	/** Ends the request that was admitted last, until none is at work. */
	async function drain(): Promise<void> {
		for (let id = stays.keys().next().value; id !== undefined; id = stays.keys().next().value)
			await leave(id)
	}

	return { limiter, admitted, rejected, come, leave, drain }
}

async function settled(): Promise<void> {
	for (let i = 0; i < 10; i++) await null
}

beforeEach(() => {
	vi.useFakeTimers()
})

afterEach(() => {
	vi.useRealTimers()
})

describe('order', () => {
	test('fifo: the first one in goes first', async () => {
		const { come, drain, admitted } = setup({ order: 'fifo' })
		for (const id of ['a', 'b', 'c', 'd']) await come(id)
		await drain()
		expect(admitted).toEqual(['a', 'b', 'c', 'd'])
	})

	test('lifo: the last one in goes first', async () => {
		const { come, drain, admitted } = setup({ order: 'lifo' })
		for (const id of ['a', 'b', 'c', 'd']) await come(id)
		await drain()
		expect(admitted).toEqual(['a', 'd', 'c', 'b'])
	})

	test('lifo: a full queue evicts the oldest, whose turn would be last', async () => {
		const { come, drain, admitted, rejected } = setup({ order: 'lifo', maxQueue: 2 })
		for (const id of ['a', 'b', 'c', 'd', 'e']) await come(id)
		expect(rejected).toEqual({ b: 'evicted', c: 'evicted' })
		await drain()
		expect(admitted).toEqual(['a', 'e', 'd'])
	})

	test('lifo: so does one of a higher priority, and one of a flow that has least waiting', async () => {
		const { come, rejected } = setup({
			order: 'lifo',
			maxQueue: 3,
			priority: (request) => (request as Request).priority ?? 0,
			fairBy: (request) => (request as Request).flow ?? '',
		})
		for (const id of ['a', 'b1', 'b2', 'b3']) await come(id, { flow: id[0] as string })
		await come('high', { priority: 1 })
		expect(rejected).toEqual({ b1: 'evicted' })
		// Three flows could not be more equal: one of its own must leave.
		await come('b4', { flow: 'b' })
		expect(rejected).toEqual({ b1: 'evicted', b2: 'evicted' })
		await come('c', { flow: 'c' })
		expect(rejected).toEqual({ b1: 'evicted', b2: 'evicted', b3: 'evicted' })
		await come('d', { flow: 'd' })
		expect(rejected).toMatchObject({ d: 'queue-full' })
	})

	test('fifo: a full queue rejects the newcomer', async () => {
		const { come, rejected } = setup({ order: 'fifo', maxQueue: 2 })
		for (const id of ['a', 'b', 'c', 'd', 'e']) await come(id)
		expect(rejected).toEqual({ d: 'queue-full', e: 'queue-full' })
	})

	test('adaptive: a full queue rejects the newcomer, and once it stands evicts the oldest', async () => {
		const { come, drain, admitted, rejected } = setup({ order: 'adaptive', maxQueue: 3 })
		for (const id of ['a', 'b', 'c', 'd', 'full']) await come(id)
		expect(rejected).toEqual({ full: 'queue-full' })
		vi.advanceTimersByTime(101)
		// The others have waited for too long.
		await come('e')
		vi.advanceTimersByTime(1)
		await come('f')
		await come('g')
		await come('h')
		expect(rejected).toEqual({
			full: 'queue-full',
			b: 'timeout',
			c: 'timeout',
			d: 'timeout',
			e: 'evicted',
		})
		await drain()
		expect(admitted).toEqual(['a', 'h', 'g', 'f'])
	})

	test('adaptive: first in, first out, while the queue has been empty within 100 ms', async () => {
		const { come, drain, admitted, rejected } = setup({ order: 'adaptive' })
		for (const id of ['a', 'b', 'c', 'd']) await come(id)
		vi.advanceTimersByTime(100)
		await come('e')
		await drain()
		expect(admitted).toEqual(['a', 'b', 'c', 'd', 'e'])
		expect(rejected).toEqual({})
	})

	test('adaptive: once it stands, last in, first out; a newcomer rejects those that waited more than 5 ms', async () => {
		const { come, drain, admitted, rejected } = setup({ order: 'adaptive' })
		for (const id of ['a', 'b', 'c']) await come(id)
		vi.advanceTimersByTime(98)
		await come('d')
		vi.advanceTimersByTime(3)
		await come('e')
		expect(rejected).toEqual({ b: 'timeout', c: 'timeout' })
		await come('f')
		await drain()
		expect(admitted).toEqual(['a', 'f', 'e', 'd'])
	})

	test('adaptive: the last one left is not rejected, however long it has waited', async () => {
		const { come, drain, admitted, rejected } = setup({ order: 'adaptive' })
		await come('a')
		await come('b')
		vi.advanceTimersByTime(1_000)
		await come('c')
		expect(rejected).toEqual({})
		vi.advanceTimersByTime(6)
		await come('d')
		expect(rejected).toEqual({ b: 'timeout' })
		await drain()
		expect(admitted).toEqual(['a', 'd', 'c'])
	})

	test('adaptive: a queue that has emptied is first come, first served again', async () => {
		const { come, leave, drain, admitted } = setup({ order: 'adaptive' })
		await come('a')
		await come('b')
		vi.advanceTimersByTime(101)
		await come('c')
		await leave('a')
		await leave('c')
		await come('d')
		await come('e')
		await drain()
		expect(admitted).toEqual(['a', 'c', 'b', 'd', 'e'])
	})

	test('adaptive: where permits come back more slowly than one in 5 ms, the times are longer in proportion', async () => {
		const { come, leave, drain, admitted, rejected } = setup({ order: 'adaptive', maxWait: 30_000 })
		await come('a')
		await come('b')
		vi.advanceTimersByTime(2_000)
		await leave('a')
		// One in 2 s: the queue would stand after 40 s.
		await come('c')
		vi.advanceTimersByTime(20_000)
		await come('d')
		await drain()
		expect(admitted).toEqual(['a', 'b', 'c', 'd'])
		expect(rejected).toEqual({})
	})

	test('no timer runs for it', async () => {
		const { come } = setup({ order: 'adaptive', maxWait: Number.POSITIVE_INFINITY })
		for (const id of ['a', 'b', 'c', 'd']) await come(id)
		expect(vi.getTimerCount()).toBe(0)
	})
})

describe('priority', () => {
	const priority = (request: Request): number => request.priority ?? 0

	test('the highest goes first; first come, first served within one', async () => {
		const { come, drain, admitted } = setup({ priority })
		const wanted = {
			a: 0,
			b: 1,
			c: -1,
			d: 2.5,
			e: 1,
			f: Number.POSITIVE_INFINITY,
			g: Number.NEGATIVE_INFINITY,
		}
		for (const [id, value] of Object.entries(wanted)) await come(id, { priority: value })
		await drain()
		expect(admitted).toEqual(['a', 'f', 'd', 'b', 'e', 'c', 'g'])
	})

	test('a full queue evicts the newest of the lowest for a higher one only', async () => {
		const { come, drain, admitted, rejected, limiter } = setup({ priority, maxQueue: 3 })
		for (const id of ['a', 'b', 'c']) await come(id, { priority: 1 })
		await come('d', { priority: 2 })
		await come('low', { priority: 0 })
		await come('equal', { priority: 1 })
		expect(rejected).toEqual({ low: 'queue-full', equal: 'queue-full' })
		await come('high', { priority: 2 })
		expect(rejected).toMatchObject({ c: 'evicted' })
		await come('higher', { priority: 3 })
		expect(rejected).toMatchObject({ b: 'evicted' })
		await drain()
		expect(admitted).toEqual(['a', 'higher', 'd', 'high'])
		expect(limiter.stats().rejected).toMatchObject({ evicted: 2, 'queue-full': 2 })
	})

	test('a more urgent one for which there is room passes one that waits for more', async () => {
		const weight = (request: Request): number => request.weight ?? 1
		const { come, leave, admitted, limiter } = setup({ priority, weight, capacity: 3 })
		await come('a', { weight: 2 })
		await come('heavy', { weight: 3 })
		await come('light')
		expect(admitted).toEqual(['a'])
		await come('urgent', { priority: 1 })
		expect(admitted).toEqual(['a', 'urgent'])
		await leave('urgent')
		await leave('a')
		expect(admitted).toEqual(['a', 'urgent', 'heavy'])
		await leave('heavy')
		expect(limiter.active).toBe(1)
	})

	test('a request evicted from the head makes room for a lighter one', async () => {
		const weight = (request: Request): number => request.weight ?? 1
		const { come, admitted, rejected } = setup({ priority, weight, capacity: 3, maxQueue: 1 })
		await come('a', { weight: 2 })
		await come('heavy', { weight: 3 })
		await come('urgent', { priority: 1 })
		expect(rejected).toEqual({ heavy: 'evicted' })
		expect(admitted).toEqual(['a', 'urgent'])
	})

	test('the lowest may wait in vain, unless they are given a share of the turns', async () => {
		const turns: Record<number, number[]> = {}
		for (const lowerShare of [0, 0.25]) {
			const { come, leave, admitted } = setup({ priority, lowerShare })
			await come('0')
			for (const low of ['low', 'lower']) {
				for (let i = 0; i < 20; i++)
					await come(`${low} ${i}`, { priority: low === 'low' ? -1 : -2 })
			}
			for (let i = 1; i <= 41; i++) {
				await come(`${i}`)
				await come(`${i} too`)
				await leave(admitted.at(-1) as string)
			}
			turns[lowerShare] = ['low ', 'lower'].map(
				(low) => admitted.filter((id) => id.startsWith(low)).length,
			)
		}
		expect(turns).toEqual({ 0: [0, 0], 0.25: [5, 5] })
	})

	test('with a share of the turns, the lower ones get into a queue that is full of higher ones, too', async () => {
		const { come, leave, admitted, rejected } = setup({ priority, lowerShare: 0.2, maxQueue: 20 })
		await come('first')
		for (let i = 0; i < 200; i++) {
			for (const [name, value] of Object.entries({ high: 2, middle: 1, low: 0 })) {
				for (let j = 0; j < 2; j++) await come(`${name} ${i} ${j}`, { priority: value })
			}
			await leave(admitted.at(-1) as string)
		}
		const served = ['high', 'middle', 'low'].map(
			(name) => admitted.filter((id) => id.startsWith(name)).length,
		)
		expect(served).toEqual([161, 20, 19])
		expect(new Set(Object.values(rejected))).toEqual(new Set(['queue-full', 'evicted']))
	})

	test('the lower ones never take the only place, nor more than their share of a full queue', async () => {
		for (const [maxQueue, low] of [
			[1, 0],
			[2, 1],
			[20, 4],
		] as const) {
			const { come, limiter, rejected } = setup({ priority, lowerShare: 0.2, maxQueue })
			await come('first')
			for (let i = 0; i < maxQueue; i++) await come(`low ${i}`)
			for (let i = 0; i < 30; i++) await come(`high ${i}`, { priority: 1 })
			expect(Object.keys(rejected).filter((id) => id.startsWith('low')).length).toBe(maxQueue - low)
			expect(limiter.queued).toBe(maxQueue)
		}
	})

	test.each([
		[Number.NaN, new RangeError('what priority returns must be a number; got NaN')],
		['9', new TypeError('what priority returns must be a number; got "9"')],
	])('%o fails its own request', async (value, error) => {
		const { limiter } = setup({ priority: () => value as number })
		expect(() => limiter[enter]({}, present)).toThrow(
			expect.objectContaining({ name: error.name, message: error.message }),
		)
		expect(limiter.active).toBe(0)
	})
})

describe('fairBy', () => {
	const fairBy = (request: Request): string => request.flow ?? ''

	test('the flow that holds the fewest permits is next, in turn', async () => {
		const { come, drain, admitted } = setup({ fairBy, capacity: 1 })
		for (const id of ['a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1'])
			await come(id, { flow: id[0] as string })
		await drain()
		expect(admitted).toEqual(['a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'a4'])
	})

	test('what a flow holds counts, and so does its weight', async () => {
		const weight = (request: Request): number => request.weight ?? 1
		const { come, leave, admitted } = setup({ fairBy, weight, capacity: 4 })
		await come('a1', { flow: 'a', weight: 2 })
		await come('b1', { flow: 'b' })
		await come('b2', { flow: 'b' })
		await come('a2', { flow: 'a' })
		await come('b3', { flow: 'b' })
		await leave('b1')
		expect(admitted.at(-1)).toBe('b3')
		await leave('b2')
		expect(admitted.at(-1)).toBe('a2')
	})

	test('what a request weighs now counts for its flow', async () => {
		const { limiter, come, leave, admitted } = setup({ fairBy, capacity: 4 })
		const heavy = limiter[enter]({ flow: 'a' }, present) as Stay
		heavy.weigh?.(3)
		await come('b1', { flow: 'b' })
		for (const id of ['a2', 'a3', 'b2', 'b3']) await come(id, { flow: id[0] as string })
		await leave('b1')
		expect(admitted).toEqual(['b1', 'b2'])
		heavy.weigh?.(1)
		await settled()
		expect(admitted).toEqual(['b1', 'b2', 'b3', 'a2'])
		heavy.leave('ok')
		await settled()
		expect(limiter.active).toBe(4)
	})

	test('a flow alone has everything', async () => {
		const { come, drain, admitted, limiter } = setup({ fairBy, capacity: 3 })
		for (const id of ['a1', 'a2', 'a3', 'a4']) await come(id, { flow: 'a' })
		expect(limiter.active).toBe(3)
		await drain()
		expect(admitted).toEqual(['a1', 'a2', 'a3', 'a4'])
	})

	test('a full queue evicts the newest of the longest flow, as long as that makes it more equal', async () => {
		const { come, drain, admitted, rejected } = setup({ fairBy, maxQueue: 4 })
		for (const id of ['a1', 'a2', 'a3', 'b1', 'b2']) await come(id, { flow: id[0] as string })
		await come('a4', { flow: 'a' })
		expect(rejected).toEqual({ a4: 'queue-full' })
		await come('c1', { flow: 'c' })
		expect(rejected).toEqual({ a4: 'queue-full', a3: 'evicted' })
		await come('b3', { flow: 'b' })
		await come('c2', { flow: 'c' })
		await come('d1', { flow: 'd' })
		expect(rejected).toMatchObject({ b3: 'queue-full', c2: 'queue-full', b2: 'evicted' })
		await drain()
		expect(admitted).toEqual(['a1', 'b1', 'c1', 'd1', 'a2'])
	})

	test('priority decides first, and the order within a flow last', async () => {
		const { come, drain, admitted } = setup({
			fairBy,
			order: 'lifo',
			priority: (request) => (request as Request).priority ?? 0,
		})
		for (const id of ['a0', 'a1', 'a2', 'b1', 'b2']) await come(id, { flow: id[0] as string })
		for (const id of ['a3', 'a4', 'b3']) await come(id, { flow: id[0] as string, priority: 1 })
		await drain()
		expect(admitted).toEqual(['a0', 'a4', 'b3', 'a3', 'b2', 'a2', 'b1', 'a1'])
	})

	/** Jain’s index of fairness: 1 when all have the same. */
	function jain(values: number[]): number {
		const sum = values.reduce((a, b) => a + b, 0)
		return sum ** 2 / (values.length * values.reduce((a, b) => a + b * b, 0))
	}

	/** Random numbers from 0 to 1, the same each time. */
	function seeded(seed: number): () => number {
		let state = seed
		return () => {
			state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
			return state / 2 ** 32
		}
	}

	/**
	 * Ten flows at a limit of 10 for 10 s, `rates` their requests in each ms; each takes `hold` ms on
	 * average.
	 *
	 * @returns how much each was served, in ms of work, and how many requests of each were rejected.
	 */
	async function serveFlows(
		rates: number[],
		hold: (flow: number) => number,
		options: Partial<LimiterOptions<Request>>,
	): Promise<{ work: number[]; rejected: number[] }> {
		const random = seeded(1)
		const limiter = new Limiter({ capacity: 10, maxQueue: 200, ...options } as LimiterOptions)
		const work = rates.map(() => 0)
		const rejected = rates.map(() => 0)
		const come = async (flow: number): Promise<void> => {
			const stay = await settle(limiter[enter]({ flow: `${flow}` }, present))
			const time = -Math.log(1 - random()) * hold(flow)
			await new Promise((resolve) => setTimeout(resolve, time))
			stay?.leave('ok')
			work[flow] = (work[flow] as number) + time
		}
		for (let t = 0; t < 10_000; t++) {
			for (const [flow, rate] of rates.entries()) {
				for (let left = rate; left > 0; left--) {
					if (random() < left) {
						come(flow).catch(() => {
							rejected[flow] = (rejected[flow] as number) + 1
						})
					}
				}
			}
			await vi.advanceTimersByTimeAsync(1)
		}
		return { work, rejected }
	}

	// 10 permits and 20 ms each: 0.5 in each ms, of which an equal share is 0.05.
	const greedy = [1.2, ...Array.from({ length: 9 }, () => 0.06)]

	test('one that sends 20 times as much gets no more than its share, while the others want theirs', async () => {
		const fair = await serveFlows(greedy, () => 20, { fairBy })
		expect(jain(fair.work)).toBeGreaterThan(0.98)
		const unfair = await serveFlows(greedy, () => 20, {})
		expect(jain(unfair.work)).toBeLessThan(0.3)
	})

	test('also if its requests take four times as long: what is shared is the capacity', async () => {
		const fair = await serveFlows(greedy, (flow) => (flow === 0 ? 80 : 20), { fairBy })
		expect(jain(fair.work)).toBeGreaterThan(0.98)
	})

	test('it gets everything that the others leave', async () => {
		const rates = [1.2, ...Array.from({ length: 9 }, () => 0.01)]
		const { work, rejected } = await serveFlows(rates, () => 20, { fairBy })
		expect(rejected.slice(1)).toEqual(Array.from({ length: 9 }, () => 0))
		expect(work.reduce((a, b) => a + b, 0)).toBeGreaterThan(10 * 10_000 * 0.97)
	})

	test('a flow may be called __proto__', async () => {
		const { come, drain, admitted } = setup({ fairBy })
		for (const id of ['a', 'b', 'c'])
			await come(id, { flow: id === 'b' ? '__proto__' : 'constructor' })
		await drain()
		expect(admitted).toEqual(['a', 'b', 'c'])
	})

	test('what is not a string fails its own request', () => {
		const { limiter } = setup({ fairBy: () => undefined as never })
		expect(() => limiter[enter]({}, present)).toThrow(
			'what fairBy returns must be a string, a number or a bigint; got undefined',
		)
	})

	test('a client that leaves frees its place, from the middle of a flow', async () => {
		const { come, drain, admitted, limiter } = setup({ fairBy })
		const leaver = new AbortController()
		await come('a1', { flow: 'a' })
		await come('a2', { flow: 'a' })
		await come('a3', { flow: 'a' }, leaver.signal)
		await come('a4', { flow: 'a' })
		leaver.abort('left')
		await settled()
		await drain()
		expect(admitted).toEqual(['a1', 'a2', 'a4'])
		await limiter.onIdle()
	})

	test('one that leaves after its permit was handed over gives it back', async () => {
		const { come, leave, admitted, limiter } = setup({ fairBy })
		const leaver = { aborted: false, addEventListener() {}, removeEventListener() {} }
		await come('a', { flow: 'a' })
		await come('b', { flow: 'b' }, leaver as never)
		await come('c', { flow: 'b' })
		leaver.aborted = true
		await leave('a')
		expect(admitted).toEqual(['a', 'c'])
		expect(limiter.stats().rejected.aborted).toBe(1)
	})
})

test('with key, each key has a queue of its own', async () => {
	const { come, leave, drain, admitted, limiter } = setup({
		key: (request) => (request as Request).key,
		priority: (request) => (request as Request).priority ?? 0,
		fairBy: (request) => (request as Request).flow ?? '',
	})
	await come('x1', { key: 'x' })
	await come('y1', { key: 'y' })
	await come('x2', { key: 'x' })
	await come('y2', { key: 'y' })
	await come('x3', { key: 'x', priority: 1 })
	await leave('y1')
	expect(admitted).toEqual(['x1', 'y1', 'y2'])
	await leave('x1')
	expect(admitted).toEqual(['x1', 'y1', 'y2', 'x3'])
	await drain()
	expect(limiter.stats()).toMatchObject({ keys: 0, active: 0, queued: 0 })
})

test('close rejects all that wait, in every order; resize admits the next one', async () => {
	const { come, admitted, rejected, limiter } = setup({
		priority: (request) => (request as Request).priority ?? 0,
		fairBy: (request) => (request as Request).flow ?? '',
		order: 'lifo',
	})
	for (const [i, id] of ['a', 'b', 'c', 'd', 'e'].entries())
		await come(id, { priority: i % 2, flow: id })
	limiter.resize(2)
	await settled()
	expect(admitted).toEqual(['a', 'b'])
	limiter.close()
	await settled()
	expect(rejected).toEqual({ c: 'closed', d: 'closed', e: 'closed' })
	await come('f', { deadline: 0 })
	expect(rejected).toMatchObject({ f: 'closed' })
})

describe('deadline', () => {
	const deadline = (request: Request): number | undefined => request.deadline

	/** One permit comes back in each 100 ms. */
	async function paced(
		options: Partial<LimiterOptions<Request>> = {},
	): Promise<ReturnType<typeof setup>> {
		const all = setup({ deadline, ...options })
		await all.come('0')
		for (let i = 1; i <= 20; i++) {
			await all.come(`${i}`)
			await vi.advanceTimersByTimeAsync(100)
			await all.leave(`${i - 1}`)
		}
		return all
	}

	test('one that has passed is rejected at once, also when there is room', async () => {
		const { come, rejected, limiter } = setup({ deadline })
		await come('late', { deadline: Date.now() })
		await come('never', { deadline: Number.NEGATIVE_INFINITY })
		expect(rejected).toEqual({ late: 'timeout', never: 'timeout' })
		expect(limiter.active).toBe(0)
	})

	test('as long as nothing is measured, all may wait, and leave when it passes', async () => {
		const { come, rejected, limiter } = setup({ deadline })
		await come('a')
		await come('b', { deadline: Date.now() + 50 })
		await come('c')
		await vi.advanceTimersByTimeAsync(49)
		expect(rejected).toEqual({})
		await vi.advanceTimersByTimeAsync(1)
		expect(rejected).toEqual({ b: 'timeout' })
		expect(limiter.queued).toBe(1)
	})

	test('maxWait holds all the same, and a deadline beyond what a timer can hold is none', async () => {
		const { come, rejected } = setup({ deadline, maxWait: 100 })
		await come('a')
		await come('b', { deadline: Date.now() + 1e15 })
		await vi.advanceTimersByTimeAsync(100)
		expect(rejected).toEqual({ b: 'timeout' })
		const unbounded = setup({ deadline, maxWait: Number.POSITIVE_INFINITY })
		await unbounded.come('a')
		await unbounded.come('b', { deadline: Date.now() + 1e15 })
		await unbounded.come('c', { deadline: Number.POSITIVE_INFINITY })
		expect(vi.getTimerCount()).toBe(0)
	})

	test('one that can’t be done by then, at the pace of the queue, is rejected at once', async () => {
		const { come, rejected, limiter } = await paced()
		// It waits for one, and takes as long itself.
		await come('too early', { deadline: Date.now() + 190 })
		expect(rejected).toEqual({ 'too early': 'timeout' })
		await come('in time', { deadline: Date.now() + 210 })
		await come('behind it', { deadline: Date.now() + 290 })
		await come('late enough', { deadline: Date.now() + 310 })
		expect(rejected).toEqual({ 'too early': 'timeout', 'behind it': 'timeout' })
		expect(limiter.queued).toBe(2)
	})

	test('a pace that was slow once does not count against requests that come when it is fast again', async () => {
		const { come, leave, rejected } = await paced()
		await come('slow')
		await vi.advanceTimersByTimeAsync(60_000)
		await leave('20')
		await leave('slow')
		for (let i = 0; i < 1_000; i++) {
			await come(`${i}`)
			await come(`second ${i}`, { deadline: Date.now() + 1_000 })
			await vi.advanceTimersByTimeAsync(10)
			await leave(`${i}`)
			await leave(`second ${i}`)
		}
		expect(rejected['second 0']).toBe('timeout')
		expect(rejected['second 999']).toBe(undefined)
	})

	test('a slow phase is forgotten 40 s later, even if nothing but short rushes came since', async () => {
		const { come, leave, rejected } = setup({ deadline, capacity: 5 })
		let id = 0
		/** A burst of ten: five at work, five waiting, then the other way round. */
		const burst = async (ms: number, left: number): Promise<void> => {
			const ids = Array.from({ length: 10 }, () => `${id++}`)
			for (const each of ids) await come(each, { deadline: Date.now() + left })
			for (let i = 0; i < 2; i++) {
				await vi.advanceTimersByTimeAsync(ms)
				for (const each of ids.slice(5 * i, 5 * i + 5)) await leave(each)
			}
			await vi.advanceTimersByTimeAsync(1_000)
		}
		for (let i = 0; i < 4; i++) await burst(2_500, 60_000)
		for (let i = 0; i < 40; i++) await burst(10, 1_000)
		const before = Object.keys(rejected).length
		expect(before).toBeGreaterThan(0)
		for (let i = 0; i < 20; i++) await burst(10, 1_000)
		expect(Object.keys(rejected).length).toBe(before)
	})

	test('with key, the pace of one key is not held against the others', async () => {
		const { come, leave, rejected } = setup({ deadline, key: (request) => request.key })
		await come('slow', { key: 'eve' })
		await come('slow too', { key: 'eve' })
		await vi.advanceTimersByTimeAsync(5_000)
		await leave('slow')
		await come('late', { key: 'eve', deadline: Date.now() + 1_000 })
		await come('first', { key: 'ada' })
		await come('second', { key: 'ada', deadline: Date.now() + 1_000 })
		expect(rejected).toEqual({ late: 'timeout' })
	})

	test('only those count that go before it', async () => {
		const { come, rejected } = await paced({
			priority: (request) => (request as Request).priority ?? 0,
			fairBy: (request) => (request as Request).flow ?? '',
		})
		const soon = Date.now() + 210
		for (let i = 0; i < 5; i++) await come(`a ${i}`, { flow: 'a' })
		await come('a high', { priority: 1, flow: 'a', deadline: soon })
		await come('b high', { priority: 1, flow: 'b', deadline: soon + 100 })
		await come('b', { flow: 'b', deadline: soon + 300 })
		await come('c', { flow: 'c', deadline: soon + 300 })
		await come('a', { flow: 'a', deadline: soon + 300 })
		expect(rejected).toEqual({ c: 'timeout', a: 'timeout' })
	})

	test('no request goes before it in a queue of newest first', async () => {
		const { come, rejected } = await paced({ order: 'lifo' })
		for (let i = 0; i < 5; i++) await come(`a ${i}`)
		await come('b', { deadline: Date.now() + 210 })
		expect(rejected).toEqual({})
	})

	test.each([
		[Number.NaN, new RangeError('what deadline returns must be a number; got NaN')],
		['soon', new TypeError('what deadline returns must be a number; got "soon"')],
		[null, new TypeError('what deadline returns must be a number; got null')],
	])('%o fails its own request', (value, error) => {
		const { limiter } = setup({ deadline: () => value as never })
		expect(() => limiter[enter]({}, present)).toThrow(
			expect.objectContaining({ name: error.name, message: error.message }),
		)
	})
})
