import { beforeEach, describe, expect, test } from 'vitest'
import {
	addEarlier,
	begin,
	type Limiter,
	type Sample,
	store,
	sum,
	update,
} from '../../../adapters/dashboard/page/store.js'
import { diagnose, isRejecting } from '../../../adapters/dashboard/page/trouble.js'
import { FIELDS } from '../../../adapters/dashboard/samples.js'

const START = 1_800_000_000_000

const settings = {
	capacity: 'given',
	keyed: false,
	maxWait: 1000,
	order: 'fifo',
	priority: false,
	fair: false,
	dryRun: false,
} as const
const totals = { waits: [0, 0, 0, 0], holds: [0, 0, 0, 0] } satisfies Limiter['totals']

/** A limiter with nothing at work. */
const idle = {
	...Object.fromEntries(FIELDS.map((name) => [name, 0])),
	capacity: 10,
	maxQueue: 40,
	waitP99: null,
	holdP50: null,
} as unknown as Sample

function row(sample: Partial<Sample>): unknown[] {
	const all = { ...idle, ...sample } as Record<string, unknown>
	return FIELDS.map((name) => all[name])
}

function processOf(id: string, since = START - 1000): NonNullable<typeof store.process> {
	return { id, host: 'here', pid: 1, node: 'v20.0.0', version: '0.1.0', since }
}

/** What a process sends first: samples of one limiter, each a second after the one before. */
function connect(id: string, from: number, samples: Partial<Sample>[], since?: number): Limiter {
	begin({
		process: processOf(id, since),
		fields: [...FIELDS],
		keys: false,
		times: samples.map((_, i) => from + 1000 * i),
		busy: samples.map(() => 0),
		limiters: [{ name: 'reports', settings, totals, rows: samples.map(row) }],
	})
	return store.limiters[0] as Limiter
}

beforeEach(() => {
	Object.assign(store, {
		process: undefined,
		changed: undefined,
		limiters: [],
		times: [],
		processes: [],
		busy: [],
	})
})

/** Seconds of the same kind. `counts` grow by so many in each. */
function seconds(
	number: number,
	sample: Partial<Sample>,
	counts: Partial<Sample> = {},
	from: Partial<Sample> = {},
): Partial<Sample>[] {
	return Array.from({ length: number }, (_, i) => ({
		...sample,
		...Object.fromEntries(
			Object.entries(counts).map(([name, each]) => [
				name,
				((from as Record<string, number>)[name] ?? 0) + Number(each) * (i + 1),
			]),
		),
	}))
}

describe('what is wrong', () => {
	const usual = seconds(80, { active: 4, holdP50: 100 }, { admitted: 20, completed: 20 })
	const last = usual.at(-1) as Partial<Sample>

	test.each<[string, Partial<Sample>[], object]>([
		[
			'nothing',
			seconds(20, { active: 9 }, { admitted: 5, completed: 5 }, last),
			{ trouble: 'fine', since: undefined, why: [] },
		],
		[
			'rejections, as handlers are slower',
			seconds(
				20,
				{ active: 10, queued: 40, holdP50: 800 },
				{ admitted: 12, completed: 12, 'queue-full': 8 },
				last,
			),
			{
				trouble: 'rejecting',
				since: START + 80_000,
				rejections: [['queue-full', 8]],
				done: 12,
				why: [
					expect.stringContaining('800 ms (median); before this began, 100 ms'),
					'The queue is full: 40 of 40 places are taken.',
					'20 requests come in a second, and 12 are done.',
				],
			},
		],
		[
			'rejections, as more requests come',
			seconds(
				20,
				{ active: 10, queued: 40, holdP50: 100 },
				{ admitted: 90, completed: 90, timeout: 10 },
				last,
			),
			{
				trouble: 'rejecting',
				why: [
					'Requests wait for longer than they may: 1.0 s, or their deadline.',
					'More requests come: 100 a second; before this began, 20.',
				],
			},
		],
		[
			'a queue near its bound',
			seconds(20, { active: 10, queued: 33 }, { admitted: 20, completed: 20 }, last),
			{ trouble: 'filling', since: START + 80_000 },
		],
		[
			'a wait near its bound',
			seconds(20, { active: 10, queued: 3, waitP99: 900 }, { admitted: 20, completed: 20 }, last),
			{ trouble: 'filling' },
		],
		[
			'all permits held',
			seconds(20, { active: 10, queued: 3 }, {}, last),
			{ trouble: 'saturated' },
		],
		[
			'handlers without clients',
			seconds(20, { active: 8, leftBehind: 5 }, {}, last),
			{
				trouble: 'abandoned',
				why: expect.arrayContaining([expect.stringContaining('5 of 8 at work have no client')]),
			},
		],
		[
			'clients that leave the queue are no rejections',
			seconds(20, { active: 1 }, { aborted: 9 }, last),
			{ trouble: 'fine' },
		],
	])('%s', (_name, then, expected) => {
		const limiter = connect('a', START, [...usual, ...then])
		expect(diagnose(limiter, store.times.length - 1)).toMatchObject(expected)
		expect(diagnose(limiter, 79).trouble).toBe('fine')
	})

	test('a rejection counts for ten seconds, and one second at the capacity does not', () => {
		const once = { admitted: 1, 'queue-full': 1 }
		const limiter = connect('a', START, [
			{ admitted: 1 },
			{ ...once, active: 10 },
			...seconds(20, once),
		])
		const troubles = limiter.samples.map((_, i) => diagnose(limiter, i).trouble)
		expect(troubles.join()).toBe(
			['fine', ...Array(10).fill('rejecting'), ...Array(11).fill('fine')].join(),
		)
	})

	test('keys at their limit are no trouble, unless others wait for them', () => {
		const key = { keys: 3, saturated: 3, active: 3, capacity: 1 }
		const limiter = connect('a', START, [
			...seconds(20, key),
			...seconds(20, { ...key, queued: 2 }),
		])
		expect(diagnose(limiter, 19).trouble).toBe('fine')
		expect(diagnose(limiter, 39)).toMatchObject({
			trouble: 'saturated',
			why: expect.arrayContaining(['3 of 3 keys are at their limit.']),
		})
	})
})

test('a limit of all processes is full by all that is at work, or where requests wait', () => {
	const shared = { ...settings, capacity: 'shared' } as const
	const troubleOf = (sample: Partial<Sample>): string => {
		const limiter = connect('a', START, seconds(20, sample))
		return diagnose({ ...limiter, settings: shared }, 19).trouble
	}
	const fleet = (active: number): Partial<Sample> => ({
		more: { fleet: { processes: 2, active, queued: 0 } },
	})
	expect(troubleOf({ active: 4, ...fleet(10) })).toBe('saturated')
	expect(troubleOf({ active: 4, ...fleet(9) })).toBe('fine')
	// The workers of a cluster don't know each other.
	expect(troubleOf({ active: 4, queued: 1 })).toBe('saturated')
	expect(troubleOf({ active: 4 })).toBe('fine')
})

test('a dry run is in no trouble: it would reject', () => {
	const limiter = connect('a', START, seconds(20, { active: 10 }, { 'queue-full': 2 }))
	expect(diagnose(limiter, 19).trouble).toBe('rejecting')
	const dry = { ...limiter, settings: { ...settings, dryRun: true } }
	const { trouble, rejections, why } = diagnose(dry, 19)
	expect(trouble).toBe('would-reject')
	expect(rejections).toEqual([['queue-full', expect.any(Number)]])
	expect(why[0]).toBe('A dry run: it would reject requests, but admits all.')
	expect(isRejecting(dry, 19)).toBe(false)
	const full = connect('b', START, seconds(20, { active: 10, queued: 40, leftBehind: 10 }))
	expect(diagnose({ ...full, settings: dry.settings }, 19).trouble).toBe('fine')
})

describe('what is kept', () => {
	test('a sample that is the same as the one before is sent as 0', () => {
		const limiter = connect('a', START, [{ admitted: 1 }])
		update({ time: START + 1000, busy: 0, limiters: [[0, 0]] })
		update({ time: START + 2000, busy: 0, limiters: [[row({ admitted: 5 }), 0]] })
		expect(limiter.samples.map((sample) => sample?.admitted)).toEqual([1, 1, 5])
		expect(sum(limiter, 0, 2, 'admitted')).toBe(4)
	})

	test('what was before is added later, and 15 minutes are kept', () => {
		connect('a', START, [{ admitted: 9 }])
		addEarlier({
			times: [START - 2000, START - 1000],
			busy: [0, 0],
			limiters: [{ rows: [row({ admitted: 7 }), 0] }],
		})
		const limiter = store.limiters[0] as Limiter
		expect(limiter.samples.map((sample) => sample?.admitted)).toEqual([7, 7, 9])
		for (let i = 1; i < 2000; i++) update({ time: START + 1000 * i, busy: 0, limiters: [[0, 0]] })
		expect(store.times).toHaveLength(901)
		expect(limiter.samples).toHaveLength(901)
		expect(store.processes).toHaveLength(901)
	})

	test('since when is known, also of what began before the samples that are kept', () => {
		const limiter = connect('a', START, [{}])
		const full = row({ active: 10, queued: 5 })
		for (let i = 1; i < 2000; i++) {
			update({ time: START + 1000 * i, busy: 0, limiters: [[i < 20 ? 0 : full, 0]] })
			const { trouble, since } = diagnose(limiter, store.times.length - 1)
			// It has been full for most of the last ten seconds.
			if (i >= 26) expect([trouble, since]).toEqual(['saturated', START + 26_000])
		}
		// What is seen again after a pause is the same.
		expect(diagnose(limiter, 500).since).toBe(START + 26_000)
		expect(diagnose(limiter, store.times.length - 1).since).toBe(START + 26_000)
		// What began anew is new.
		for (let i = 2000; i < 2040; i++) {
			const sample = i < 2020 ? row({}) : full
			update({ time: START + 1000 * i, busy: 0, limiters: [[sample, 0]] })
		}
		expect(diagnose(limiter, store.times.length - 1).since).toBe(START + 2_026_000)
	})

	test('the same process is not another one, and what was missed takes its place', () => {
		connect('a', START, seconds(5, {}, { admitted: 1 }))
		const limiter = connect('a', START + 3000, seconds(10, {}, { admitted: 1 }, { admitted: 3 }))
		expect(store.changed).toBeUndefined()
		expect(limiter.samples.map((sample) => sample?.admitted)).toEqual([
			1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
		])
	})

	test('after a restart the charts go on, with a gap, and no count becomes negative', () => {
		connect('a', START, seconds(5, {}, { admitted: 100 }))
		const limiter = connect('b', START + 9000, seconds(3, {}, { admitted: 1 }), START + 8000)
		expect(store.changed).toMatchObject({ restarted: true, from: { id: 'a' }, at: START + 9000 })
		expect(limiter.samples.map((sample) => sample?.admitted)).toEqual([
			100,
			200,
			300,
			400,
			500,
			undefined,
			1,
			2,
			3,
		])
		expect(store.times[5]).toBe(START + 5000)
		expect(sum(limiter, 0, 8, 'admitted')).toBe(402)
	})

	test('another process that has long been there is told from a restart', () => {
		connect('a', START, seconds(5, {}))
		connect('b', START + 6000, seconds(3, {}), START - 60_000)
		expect(store.changed).toMatchObject({ restarted: false })
	})
})
