// What the server has sent: its process, its limiters, and their samples.

export const REJECTIONS = [
	'queue-full',
	'timeout',
	'evicted',
	'overloaded',
	'unavailable',
	'closed',
] as const
export type Rejection = (typeof REJECTIONS)[number]

/** The fields of a sample that are counts since the start of the limiter. */
export type Counted = 'admitted' | 'completed' | 'abandoned' | 'aborted' | 'rejected' | Rejection

/** A limiter at one moment. Percentiles are of one second; `null`: nothing ended in it. */
export type Sample = Record<Counted | 'active' | 'queued' | 'keys' | 'saturated', number> &
	Record<'waitP50' | 'waitP90' | 'waitP99' | 'holdP50' | 'holdP90' | 'holdP99', number | null> & {
		/** `null`: no bound. */
		capacity: number | null
		maxQueue: number | null
		/** At work without a client. `null`: not known. */
		leftBehind: number | null
		more:
			| 0
			| {
					loop?: { delay: number; overloaded: boolean }
					fleet?: { processes: number; active: number; queued: number }
					available?: boolean
					/** Why a controller found this capacity. */
					why?: string
					longest?: [key: string, waited: number][]
					rejected?: [key: string, count: number][]
			  }
	}

interface Settings {
	capacity: 'given' | 'shared' | 'found' | 'by key'
	keyed: boolean
	maxWait: number | null
	order: 'fifo' | 'lifo' | 'adaptive'
	priority: boolean
	fair: boolean
	/** All requests are admitted; it is only counted what the limit would do. */
	dryRun: boolean
}

type Times = [p50: number, p90: number, p99: number, max: number]

/** Since the start of the limiter. */
interface Totals {
	waits: Times
	holds: Times
	busiest?: [key: string, active: number, queued: number, capacity: number | null][]
}

export interface Process {
	id: string
	host: string
	pid: number
	node: string
	version: string
	/** When it started, in ms since 1970. */
	since: number
}

export interface Limiter {
	name: string
	/** `null`: a limiter of another version of the package. */
	settings: Settings | null
	totals: Totals
	/** One for each of the times; `undefined`: not known. */
	samples: (Sample | undefined)[]
}

/** The samples kept, as long as those of the server: 15 minutes, in ms. */
const KEPT = 900_500

/** A longer time than this between two samples, in ms, is a gap. */
const GAP = 3000

type Row = unknown[] | 0
interface History {
	times: number[]
	busy: number[]
	limiters: { rows: Row[] }[]
}
type Begin = Omit<History, 'limiters'> & {
	process: Process
	fields: string[]
	keys: boolean
	limiters: { rows: Row[]; name: string; settings: Settings | null; totals: Totals }[]
}
interface Update {
	time: number
	busy: number
	limiters: [row: Row, totals: Totals | 0][]
}

export const store: {
	process: Process | undefined
	/** When another process has answered than before. */
	changed: { at: number; from: Process; restarted: boolean } | undefined
	/** Whether the server shows keys. */
	keys: boolean
	limiters: Limiter[]
	/**
	 * The times of the samples, in ms, oldest first; of each, its process and how busy its event loop
	 * was.
	 */
	times: number[]
	processes: string[]
	busy: (number | null)[]
} = {
	process: undefined,
	changed: undefined,
	keys: false,
	limiters: [],
	times: [],
	processes: [],
	busy: [],
}

/** The place of each field in a row, as the server has told. */
const places = {
	capacity: 0,
	active: 0,
	queued: 0,
	maxQueue: 0,
	leftBehind: 0,
	keys: 0,
	saturated: 0,
	admitted: 0,
	completed: 0,
	abandoned: 0,
	aborted: 0,
	'queue-full': 0,
	timeout: 0,
	evicted: 0,
	overloaded: 0,
	unavailable: 0,
	closed: 0,
	waitP50: 0,
	waitP90: 0,
	waitP99: 0,
	holdP50: 0,
	holdP90: 0,
	holdP99: 0,
	more: 0,
}

type Field = keyof typeof places

function sampleOf(row: Row, before: Sample | undefined): Sample | undefined {
	// The same object again, so that limiters without requests take no memory.
	if (row === 0) return before
	const at = <T>(place: number): T => row[place] as T
	// A literal, and not a loop: there are thousands at the start, and all must have the same shape.
	const sample: Sample = {
		capacity: at(places.capacity),
		active: at(places.active),
		queued: at(places.queued),
		maxQueue: at(places.maxQueue),
		leftBehind: at(places.leftBehind),
		keys: at(places.keys),
		saturated: at(places.saturated),
		admitted: at(places.admitted),
		completed: at(places.completed),
		abandoned: at(places.abandoned),
		aborted: at(places.aborted),
		'queue-full': at(places['queue-full']),
		timeout: at(places.timeout),
		evicted: at(places.evicted),
		overloaded: at(places.overloaded),
		unavailable: at(places.unavailable),
		closed: at(places.closed),
		// All reasons together, as it is asked for often.
		rejected: 0,
		waitP50: at(places.waitP50),
		waitP90: at(places.waitP90),
		waitP99: at(places.waitP99),
		holdP50: at(places.holdP50),
		holdP90: at(places.holdP90),
		holdP99: at(places.holdP99),
		more: at(places.more),
	}
	for (const reason of REJECTIONS) sample.rejected += sample[reason]
	return sample
}

function samplesOf(rows: Row[]): (Sample | undefined)[] {
	let before: Sample | undefined
	return rows.map((row) => {
		before = sampleOf(row, before)
		return before
	})
}

/**
 * The first event of a connection: who answers, and the last minute. What was known before it
 * stays.
 */
export function begin(data: Begin): void {
	const { process, times } = data
	const before = store.process
	for (const [i, name] of data.fields.entries()) if (name in places) places[name as Field] = i
	const start = times[0] ?? 0
	const known = store.times.filter((time) => time < start).length
	const gap =
		known > 0 && (before?.id !== process.id || start - (store.times[known - 1] as number) > GAP)
	if (before !== undefined && before.id !== process.id) {
		store.changed = {
			at: start,
			from: before,
			restarted: process.since > (store.times.at(-1) ?? 0) - 2000,
		}
	}
	const old = new Map(
		store.limiters.map((limiter) => [limiter.name, limiter.samples.slice(0, known)]),
	)
	const blank = Array.from<undefined>({ length: known })
	store.process = process
	store.keys = data.keys
	store.times = [...store.times.slice(0, known), ...(gap ? [gapAfter(known)] : []), ...times]
	store.busy = [...store.busy.slice(0, known), ...(gap ? [null] : []), ...data.busy]
	store.processes = [
		...store.processes.slice(0, known),
		// The gap belongs to the one before: the charts mark where the new one begins.
		...(gap ? [before?.id ?? ''] : []),
		...times.map(() => process.id),
	]
	store.limiters = data.limiters.map(({ name, settings, totals, rows }) => ({
		name,
		settings,
		totals,
		samples: [...(old.get(name) ?? blank), ...(gap ? [undefined] : []), ...samplesOf(rows)],
	}))
	trim()
}

function gapAfter(known: number): number {
	return (store.times[known - 1] as number) + 1000
}

/**
 * What the process that answers has kept of the time before. It takes the place of what was known
 * of that time.
 */
export function addEarlier({ times, busy, limiters }: History): void {
	const id = store.process?.id ?? ''
	const from = times[0] ?? 0
	const to = times.at(-1) ?? 0
	const before = store.times.filter((time) => time < from).length
	const after = store.times.findIndex((time) => time > to)
	const join = <T>(all: T[], own: T[]): T[] => [
		...all.slice(0, before),
		...own,
		...all.slice(after),
	]
	store.times = join(store.times, times)
	store.busy = join(store.busy, busy)
	store.processes = join(
		store.processes,
		times.map(() => id),
	)
	// New objects, as what was concluded from the old ones may be wrong now.
	store.limiters = store.limiters.map((limiter, i) => ({
		...limiter,
		samples: join(limiter.samples, samplesOf(limiters[i]?.rows ?? [])),
	}))
	trim()
}

export function update({ time, busy, limiters }: Update): void {
	store.times.push(time)
	store.busy.push(busy)
	store.processes.push(store.process?.id ?? '')
	for (const [i, limiter] of store.limiters.entries()) {
		const [row, totals] = limiters[i] ?? [0, 0]
		limiter.samples.push(sampleOf(row, limiter.samples.at(-1)))
		if (totals !== 0) limiter.totals = totals
	}
	trim()
}

function trim(): void {
	const oldest = (store.times.at(-1) ?? 0) - KEPT
	const late = store.times.findIndex((time) => time >= oldest)
	if (late <= 0) return
	for (const all of [
		store.times,
		store.busy,
		store.processes,
		...store.limiters.map(({ samples }) => samples),
	]) {
		all.splice(0, late)
	}
}

/** The increase of a count since the sample before; `undefined` if it is not known. */
export function increase(limiter: Limiter, i: number, field: Counted): number | undefined {
	const now = limiter.samples[i]
	const before = limiter.samples[i - 1]
	if (now === undefined || before === undefined || store.processes[i] !== store.processes[i - 1])
		return undefined
	return now[field] - before[field]
}

/** The increase of a count over the samples after `from` up to `to`. */
export function sum(limiter: Limiter, from: number, to: number, field: Counted): number {
	let total = 0
	for (let i = from + 1; i <= to; i++) total += increase(limiter, i, field) ?? 0
	return total
}
