import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import type { Rank, Ranked } from '../../src/queue/group.js'
import { Line } from '../../src/queue/line.js'
import { WeightedFlows } from '../../src/queue/weighted-flows.js'
import { Pace } from '../../src/semaphore/pace.js'
import { settle } from '../support/gate.js'

interface Request {
	flow: string
	weight?: number
}

const present = { aborted: false, addEventListener() {}, removeEventListener() {} }

beforeEach(() => {
	vi.useFakeTimers()
})

afterEach(() => {
	vi.useRealTimers()
})

/** Random numbers from 0 to 1, the same each time. */
function seeded(seed: number): () => number {
	let state = seed
	return () => {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
		return state / 2 ** 32
	}
}

/** Jain’s index of fairness: 1 when all have the same. */
function jain(values: number[]): number {
	const sum = values.reduce((a, b) => a + b, 0)
	return sum ** 2 / (values.length * values.reduce((a, b) => a + b * b, 0))
}

interface Demand {
	share: number
	/** How long its requests hold their permits, in ms. */
	hold: (random: () => number) => number
	/** How many of its requests are waiting or at work at once. */
	clients: number
	weight?: number
	/** When it begins, in ms. */
	from?: number
}

interface Served {
	/** Permits × ms, of the requests that have ended. */
	work: number[]
	/** Permits held at each moment that was asked for. */
	held: number[][]
}

const exponential =
	(mean: number) =>
	(random: () => number): number =>
		-Math.log(1 - random()) * mean

/** Flows whose clients send their next request as soon as they are answered. */
async function serve(
	capacity: number,
	demands: Demand[],
	until: number,
	looks: number[] = [],
): Promise<Served> {
	const random = seeded(7)
	const limiter = new Limiter({
		capacity,
		maxQueue: Number.POSITIVE_INFINITY,
		maxWait: Number.POSITIVE_INFINITY,
		weight: (request: Request) => request.weight ?? 1,
		fairBy: (request: Request) => request.flow,
		share: (flow: string) => demands[Number(flow)]?.share,
	} as LimiterOptions)
	const begin = performance.now()
	const work = demands.map(() => 0)
	const now = demands.map(() => 0)
	const held: number[][] = []
	const events: { at: number; run: () => void }[] = []
	const at = (time: number, run: () => void): void => {
		let i = events.length
		while (i > 0 && (events[i - 1] as { at: number }).at < time) i--
		events.splice(i, 0, { at: time, run })
	}
	const come = (flow: number): void => {
		const { weight = 1, hold } = demands[flow] as Demand
		settle(limiter[enter]({ flow: String(flow), weight }, present)).then((stay) => {
			const time = hold(random)
			now[flow] = (now[flow] as number) + weight
			at(performance.now() - begin + time, () => {
				now[flow] = (now[flow] as number) - weight
				work[flow] = (work[flow] as number) + weight * time
				stay?.leave('ok')
				come(flow)
			})
		})
	}
	for (const [flow, { clients, from = 0 }] of demands.entries()) {
		at(from, () => {
			for (let i = 0; i < clients; i++) come(flow)
		})
	}
	for (const time of looks) at(time, () => held.push([...now]))
	for (let event = events.pop(); event !== undefined && event.at <= until; event = events.pop()) {
		vi.advanceTimersByTime(Math.max(0, event.at - (performance.now() - begin)))
		event.run()
		for (let i = 0; i < 8; i++) await null
	}
	return { work, held }
}

const fairness = ({ work }: Served, demands: Demand[]): number =>
	jain(work.map((each, i) => each / (demands[i] as Demand).share))

describe('the capacity is divided by weight', () => {
	const holds: [string, Demand['hold']][] = [
		['all as long', () => 20],
		['of random length', exponential(20)],
	]

	describe.each(holds)('between flows whose requests are %s', (_, hold) => {
		test.each([
			[1, [1, 3]],
			[1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
			[3, [1, 5]],
			[3, [1, 1, 1, 1, 1, 1, 1, 1, 1, 10]],
			[9, [1, 2, 3]],
			[10, [0.001, 0.01]],
			[20, [1, 300]],
			[40, [1, 2, 4, 8, 16, 32, 64, 128]],
		])('%i permits between %o', async (capacity, shares) => {
			const demands = shares.map((share) => ({ share, hold, clients: capacity + 5 }))
			const total = shares.reduce((a, b) => a + b, 0)
			// The smallest flow has room for 200 requests.
			const until = (200 * 20 * total) / capacity / Math.min(...shares)
			expect(fairness(await serve(capacity, demands, until), demands)).toBeGreaterThan(0.98)
		})
	})

	test.each([1, 3, 12])(
		'of %i permits, if some hold theirs four times as long',
		async (capacity) => {
			const hold = (share: number): Demand['hold'] => exponential(share % 2 === 0 ? 80 : 20)
			const demands = [1, 2, 3, 4, 5].map((share) => ({ share, hold: hold(share), clients: 20 }))
			expect(fairness(await serve(capacity, demands, 30_000), demands)).toBeGreaterThan(0.98)
		},
	)

	test('if requests take several permits', async () => {
		const demands = [1, 2, 3].map((share) => ({
			share,
			weight: 4 - share,
			hold: exponential(20),
			clients: 20,
		}))
		expect(fairness(await serve(7, demands, 30_000), demands)).toBeGreaterThan(0.98)
	})

	test('if a flow has only one request at a time, which comes when the one before it has ended', async () => {
		const one = { share: 1, hold: () => 20, clients: 1 }
		const many = { share: 3, hold: () => 20, clients: 10 }
		const { work } = await serve(1, [one, many], 20_000)
		expect((work[1] as number) / (work[0] as number)).toBeCloseTo(3, 1)
	})

	test('and a flow whose requests never end does not get more and more of it', async () => {
		const endless = { share: 1, hold: () => 60_000, clients: 60 }
		const short = { share: 1, hold: () => 10, clients: 60 }
		const { held } = await serve(10, [endless, short], 59_000, [100, 58_000])
		for (const [first] of held) expect(first).toBeGreaterThanOrEqual(4)
		for (const [first] of held) expect(first).toBeLessThanOrEqual(6)
	})
})

test('a flow that wants less than its share gets all of it, and the others divide the rest', async () => {
	const shares = [1, 1, 2]
	const demands = shares.map((share, i) => ({ share, hold: () => 20, clients: i === 0 ? 2 : 60 }))
	const { work } = await serve(11, demands, 20_000)
	for (const [i, permits] of [2, 3, 6].entries()) {
		expect((work[i] as number) / 20_000).toBeCloseTo(permits, 1)
	}
})

test('the share of an idle flow is used, and given back within the time of one request', async () => {
	const first: Demand = { share: 1, hold: () => 20, clients: 60 }
	const second: Demand = { ...first, share: 3 }
	const looks = [1_000, 1_030.001, 1_050, 1_100, 1_200]
	const { held } = await serve(20, [first, { ...second, from: 1_010 }], 1_300, looks)
	expect(held[0]).toEqual([20, 0])
	for (const [, back] of held.slice(1)) {
		expect(back).toBeGreaterThanOrEqual(15)
		expect(back).toBeLessThanOrEqual(16)
	}
})

test('a flow that had to wait for long requests of others is not paid for it', async () => {
	const begin = performance.now()
	const end = (): number => 21_000 - (performance.now() - begin)
	const busy: Demand = {
		share: 1,
		hold: () => (end() <= 20_000 && end() > 0 ? end() : 20),
		clients: 10,
	}
	const demands = [
		...Array.from({ length: 5 }, () => busy),
		{ ...busy, hold: () => 20, from: 1_100 },
	]
	const { held } = await serve(12, demands, 21_500, [20_900, 21_061, 21_121, 21_401])
	expect(held[0]?.[5]).toBe(0)
	for (const each of held.slice(1)) {
		for (const permits of each) expect(permits).toBeGreaterThanOrEqual(1)
		expect(each[5]).toBeLessThanOrEqual(3)
	}
})

describe('a limiter with shares', () => {
	const shares = new Map<string, unknown>()

	function setup(options: Partial<LimiterOptions<Request>> = {}) {
		const limiter = new Limiter({
			capacity: 1,
			fairBy: ({ flow }: Request) => flow,
			share: (flow: string) => shares.get(flow),
			...options,
		} as LimiterOptions)
		const admitted: string[] = []
		const rejected: string[] = []
		let stay: Stay | undefined
		const come = async (id: string): Promise<void> => {
			settle(limiter[enter]({ flow: id[0] }, present)).then(
				(admission) => {
					admitted.push(id)
					stay = admission
				},
				({ reason }) => rejected.push(`${id} ${reason}`),
			)
			for (let i = 0; i < 10; i++) await null
		}
		const drain = async (): Promise<void> => {
			while (limiter.active > 0) {
				vi.advanceTimersByTime(10)
				stay?.leave('ok')
				for (let i = 0; i < 10; i++) await null
			}
		}
		return { limiter, admitted, rejected, come, drain }
	}

	beforeEach(() => {
		shares.clear()
		for (const [flow, share] of Object.entries({ a: 1, b: 1, c: 2 })) shares.set(flow, share)
	})

	test('evicts from the flow that has most waiting for its share, and never its only one', async () => {
		const { come, rejected } = setup({ maxQueue: 6 })
		for (const id of ['a1', 'a2', 'a3', 'a4', 'b1', 'c1', 'c2']) await come(id)
		// c has two more than its share of one of a: a has three.
		for (const id of ['c3', 'c4', 'c5', 'b2', 'a5']) await come(id)
		expect(rejected).toEqual([
			'a4 evicted',
			'c4 queue-full',
			'c5 queue-full',
			'b2 queue-full',
			'a5 queue-full',
		])
	})

	test('a share that changes is that of the whole flow, from its next request', async () => {
		const { come, drain, admitted } = setup()
		for (let i = 0; i < 30; i++) await come(`a${i}`)
		for (let i = 0; i < 30; i++) await come(`b${i}`)
		shares.set('b', 4)
		await come('b30')
		await drain()
		const first = admitted.slice(0, 25).filter((id) => id.startsWith('b')).length
		expect(first).toBeGreaterThanOrEqual(18)
		expect(first).toBeLessThanOrEqual(21)
	})

	test.each([
		[0, new RangeError('what share returns must be a number from 0.001 to 1000000; got 0')],
		[-1, new RangeError('what share returns must be a number from 0.001 to 1000000; got -1')],
		[
			Infinity,
			new RangeError('what share returns must be a number from 0.001 to 1000000; got Infinity'),
		],
		[Number.NaN, new RangeError('what share returns must be a number; got NaN')],
		['2', new TypeError('what share returns must be a number; got "2"')],
		[undefined, new TypeError('what share returns must be a number; got undefined')],
		[
			Promise.resolve(1),
			new TypeError(
				'what share returns must be a number; got a promise: find it in a middleware before this one',
			),
		],
	])('%o fails its own request, which takes no permit', async (share, { name, message }) => {
		shares.set('a', share)
		const { limiter } = setup()
		expect(() => limiter[enter]({ flow: 'a' }, present)).toThrow(
			expect.objectContaining({ name, message }),
		)
		expect(limiter.active).toBe(0)
	})
})

describe('WeightedFlows', () => {
	class Member implements Ranked<Member> {
		previous: Member | undefined = undefined
		next: Member | undefined = undefined
		readonly waited = 0
		readonly rank: Rank

		constructor(rank: Rank) {
			this.rank = rank
		}
	}

	const groupOf = (): WeightedFlows<Member> => new WeightedFlows(() => new Line('fifo', new Pace()))

	type Step = {
		kind: 'push' | 'hold' | 'take' | 'remove' | 'release'
		which: number
		share: number
		ms: number
	}

	const steps: fc.Arbitrary<Step[]> = fc.array(
		fc.record({
			kind: fc.constantFrom('push', 'push', 'hold', 'take', 'take', 'remove', 'release', 'release'),
			which: fc.nat({ max: 5 }),
			share: fc.constantFrom(0.001, 0.5, 1, 3, 1_000_000),
			ms: fc.constantFrom(0, 0, 1, 50),
		}),
		{ maxLength: 100, size: 'max' },
	)

	test('after any history, whatever has left is counted no more, and nothing stays', () => {
		fc.assert(
			fc.property(steps, (history) => {
				const group = groupOf()
				const waiting: Member[] = []
				const working: Member[] = []
				const end = (members: Member[], which: number): Member | undefined =>
					members.length === 0 ? undefined : members.splice(which % members.length, 1)[0]
				const apply = ({ kind, which, share, ms }: Step): void => {
					vi.advanceTimersByTime(ms)
					const member = new Member({
						priority: 0,
						flow: `${which}`,
						weight: 1 + (which % 3),
						share,
					})
					if (kind === 'push') {
						group.push(member)
						waiting.push(member)
					} else if (kind === 'hold') {
						group.hold(member.rank)
						working.push(member)
					} else if (kind === 'take') {
						const { head } = group
						if (head === undefined) return
						expect(group.head).toBe(head)
						group.take(head)
						waiting.splice(waiting.indexOf(head), 1)
						working.push(head)
					} else if (kind === 'remove') {
						const left = end(waiting, which)
						if (left !== undefined) group.remove(left)
					} else {
						const done = end(working, which)
						if (done !== undefined) group.release(done.rank, ms)
					}
				}
				for (const step of history) {
					apply(step)
					expect(group.size).toBe(waiting.length)
					expect(group.wanted).toBe(waiting.reduce((sum, { rank }) => sum + rank.weight, 0))
					expect([group.head !== undefined, group.last !== undefined]).toEqual([
						group.size > 0,
						group.size > 0,
					])
				}
				const [step] = history
				while (step !== undefined && waiting.length > 0) apply({ ...step, kind: 'take' })
				while (step !== undefined && working.length > 0) apply({ ...step, kind: 'release' })
				expect([group.size, group.wanted, group.idle]).toEqual([0, 0, true])
			}),
			{ numRuns: 200 },
		)
	})

	test('remembers a thousand idle flows at most, however many come while others wait', () => {
		let lines = 0
		const group = new WeightedFlows<Member>(() => {
			lines++
			return new Line('fifo', new Pace())
		})
		const member = (flow: string): Member =>
			new Member({ priority: 0, flow, weight: 1, share: 0.001 })
		const waits = member('waits')
		group.push(waits)
		for (let i = 0; i < 5_000; i++) {
			const each = member(`${i}`)
			group.push(each)
			group.take(each)
			vi.advanceTimersByTime(1)
			group.release(each.rank, 1)
		}
		// A flow that it knows needs no new line.
		const before = lines
		const again = Array.from({ length: 5_000 }, (_, i) => member(`${i}`))
		for (const each of again) group.push(each)
		const remembered = 5_000 - (lines - before)
		expect(remembered).toBeGreaterThan(900)
		expect(remembered).toBeLessThanOrEqual(1_000)
		for (const each of [waits, ...again]) group.remove(each)
		expect(group.idle).toBe(true)
	})
})
