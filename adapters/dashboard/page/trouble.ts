// Which limiter is in trouble, since when, and why.
import { count, duration, rate } from './format.js'
import {
	increase,
	type Limiter,
	REJECTIONS,
	type Rejection,
	type Sample,
	store,
	sum,
} from './store.js'

/** The worst first. */
export const TROUBLES = [
	'rejecting',
	'filling',
	'saturated',
	'abandoned',
	'would-reject',
	'fine',
] as const
export type Trouble = (typeof TROUBLES)[number]

export interface Diagnosis {
	trouble: Trouble
	/** In ms since 1970; `undefined`: there is no trouble. */
	since: number | undefined
	/** How bad it is, among limiters in the same trouble. */
	weight: number
	/** Rejections a second by reason, the most frequent first. */
	rejections: [reason: Rejection, perSecond: number][]
	/** In a second. */
	arrivals: number
	done: number
	/** The longest of the p99 of each second. */
	waitP99: number | null
	why: string[]
}

/** Rates, and what is called "lately", are of this many seconds. */
const LATELY = 10

/** What is so in one of this many seconds is so now. */
const NOW = 3

/** From this part of its bound on, a queue or a wait is near it. */
const NEAR = 0.8

/** From this part of all at work on, handlers without a client are a trouble. */
const MANY = 0.25

/** By this factor, something has changed. */
const CHANGED = 1.6

const conditions: Record<Exclude<Trouble, 'fine'>, (limiter: Limiter, i: number) => boolean> = {
	rejecting: hasRejected,
	filling: (limiter, i) => secondsIn(i, NOW, (j) => isNearBound(limiter, limiter.samples[j])) > 0,
	saturated: (limiter, i) => {
		const isSo = (j: number): boolean => isFull(limiter, limiter.samples[j])
		return secondsIn(i, LATELY, isSo) > 0.6 * Math.min(i + 1, LATELY) && secondsIn(i, NOW, isSo) > 0
	},
	abandoned: (limiter, i) => isAbandoned(limiter.samples[i]),
	'would-reject': hasRejected,
}

/** A dry run does no harm, so it is in no other trouble than that it would reject. */
function isIn(limiter: Limiter, trouble: Exclude<Trouble, 'fine'>, i: number): boolean {
	const dryRun = limiter.settings?.dryRun === true
	return dryRun === (trouble === 'would-reject') && conditions[trouble](limiter, i)
}

/** Whether much of what is at work has no client any more. */
function isAbandoned(sample: Sample | undefined): boolean {
	const { leftBehind, active } = sample ?? {}
	return leftBehind != null && leftBehind > 0 && leftBehind >= MANY * (active ?? 0)
}

/** Whether it rejected a request lately. */
export function isRejecting(limiter: Limiter, i: number): boolean {
	return isIn(limiter, 'rejecting', i)
}

/** In a dry run, too. */
function hasRejected(limiter: Limiter, i: number): boolean {
	return secondsIn(i, LATELY, (j) => (increase(limiter, j, 'rejected') ?? 0) > 0) > 0
}

/** Of how many of the last seconds, up to that of the sample `i`, it is so. */
function secondsIn(i: number, seconds: number, isSo: (j: number) => boolean): number {
	let found = 0
	for (let j = Math.max(0, i - seconds + 1); j <= i; j++) if (isSo(j)) found++
	return found
}

/**
 * Since when a limiter has been in its trouble, and until when this is known. So the time before is
 * not looked at again each second; and a trouble can be older than the samples that are kept.
 */
const spells = new WeakMap<Limiter, { trouble: Trouble; since: number; until: number }>()

function sinceWhen(limiter: Limiter, trouble: Exclude<Trouble, 'fine'>, i: number): number {
	const { times } = store
	const known = spells.get(limiter)
	const until = times[i] as number
	let begin = i
	let since = until
	while (begin > 0 && limiter.samples[begin - 1] !== undefined) {
		const before = times[begin - 1] as number
		if (known?.trouble === trouble && before <= known.until && before >= known.since) {
			since = known.since
			break
		}
		if (!isIn(limiter, trouble, begin - 1)) break
		begin--
		since = before
	}
	spells.set(limiter, { trouble, since, until })
	return since
}

function isFull({ settings }: Limiter, sample: Sample | undefined): boolean {
	if (sample === undefined) return false
	// A key at its limit is as usual; one whose requests wait is not.
	if (sample.keys > 0) return sample.saturated > 0 && sample.queued > 0
	// The capacity of a fleet is that of all its processes. Those of a cluster don't know each other.
	const fleet = sample.more !== 0 ? sample.more.fleet : undefined
	if (settings?.capacity === 'shared' && fleet === undefined) return sample.queued > 0
	const { active } = fleet ?? sample
	return sample.capacity !== null && active >= sample.capacity
}

function isNearBound({ settings }: Limiter, sample: Sample | undefined): boolean {
	if (sample === undefined || sample.queued === 0) return false
	const { maxQueue, waitP99, keys } = sample
	const long = settings?.maxWait != null && (waitP99 ?? 0) >= NEAR * settings.maxWait
	return long || (keys === 0 && maxQueue !== null && sample.queued >= NEAR * maxQueue)
}

/** @param i - the index of the moment. */
export function diagnose(limiter: Limiter, i: number): Diagnosis {
	const { samples } = limiter
	const now = samples[i]
	const trouble = TROUBLES.find((each) => each !== 'fine' && isIn(limiter, each, i)) ?? 'fine'
	const since = trouble === 'fine' || now === undefined ? undefined : sinceWhen(limiter, trouble, i)
	const recent = flowOf(limiter, Math.max(0, i - LATELY), i)
	const rejections: Diagnosis['rejections'] = []
	if (trouble === 'rejecting' || trouble === 'would-reject') {
		for (const reason of REJECTIONS) {
			const perSecond = sum(limiter, Math.max(0, i - LATELY), i, reason) / recent.seconds
			if (perSecond > 0) rejections.push([reason, perSecond])
		}
		rejections.sort(([, a], [, b]) => b - a)
	}
	let waitP99: number | null = null
	for (let j = Math.max(0, i - LATELY + 1); j <= i; j++) {
		const wait = samples[j]?.waitP99 ?? null
		if (wait !== null) waitP99 = Math.max(wait, waitP99 ?? 0)
	}
	const diagnosis: Diagnosis = {
		trouble,
		since,
		weight: now === undefined ? -1 : weightOf(trouble, now, rejections),
		rejections,
		arrivals: recent.arrivals,
		done: recent.done,
		waitP99,
		why: [],
	}
	if (now !== undefined && since !== undefined) {
		const begin = store.times.findIndex((time) => time >= since)
		// What was usual: the minute before it began.
		const usual =
			begin > LATELY ? flowOf(limiter, Math.max(0, begin - LATELY - 60), begin - LATELY) : undefined
		diagnosis.why = explain(limiter, now, diagnosis, recent, usual)
	}
	return diagnosis
}

function weightOf(trouble: Trouble, now: Sample, rejections: Diagnosis['rejections']): number {
	if (trouble === 'rejecting' || trouble === 'would-reject')
		return rejections.reduce((total, [, perSecond]) => total + perSecond, 0)
	if (trouble === 'abandoned') return now.leftBehind ?? 0
	return now.queued + now.active / (now.capacity ?? Number.POSITIVE_INFINITY)
}

/** What came and went, a second, and how long a permit was held, in ms, between two samples. */
interface Flow {
	seconds: number
	arrivals: number
	done: number
	held: number | undefined
}

function flowOf(limiter: Limiter, from: number, to: number): Flow {
	const seconds = Math.max(1, ((store.times[to] ?? 0) - (store.times[from] ?? 0)) / 1000)
	const total = (...fields: Parameters<typeof sum>[3][]): number =>
		fields.reduce((all, field) => all + sum(limiter, from, to, field), 0) / seconds
	const grown =
		((limiter.samples[to]?.queued ?? 0) - (limiter.samples[from]?.queued ?? 0)) / seconds
	const holds = limiter.samples
		.slice(from, to + 1)
		.map((sample) => sample?.holdP50 ?? null)
		.filter((held) => held !== null)
		.sort((a, b) => a - b)
	return {
		seconds,
		arrivals: Math.max(0, total('admitted', 'aborted', 'rejected') + grown),
		done: total('completed', 'abandoned'),
		held: holds[Math.floor(holds.length / 2)],
	}
}

const BY_REASON: Record<Rejection, (limiter: Limiter, now: Sample) => string> = {
	'queue-full': ({ settings }, { maxQueue, queued, keys }) => {
		if (maxQueue === 0) return 'No request may wait (maxQueue is 0), and all permits are held.'
		if (settings?.keyed || keys > 0)
			return `The queues of some keys are full (${count(maxQueue)} each).`
		const places = `${count(queued)} of ${count(maxQueue)} places are taken`
		return queued >= (maxQueue ?? 0)
			? `The queue is full: ${places}.`
			: `The queue is full again and again: now, ${places}.`
	},
	timeout: ({ settings }) =>
		settings?.maxWait == null
			? 'Requests wait for longer than they may.'
			: `Requests wait for longer than they may: ${duration(settings.maxWait)}, or their deadline.`,
	evicted: () =>
		'The queue is full, and requests with a better right to wait take the places of others.',
	overloaded: () => 'The event loop of the process is late: handlers compute more than they wait.',
	unavailable: () => 'Redis does not answer.',
	closed: () => 'The limiter is closed: the server is shutting down.',
}

function explain(
	limiter: Limiter,
	now: Sample,
	{ trouble, rejections }: Diagnosis,
	recent: Flow,
	usual: Flow | undefined,
): string[] {
	const why: string[] = []
	const [most] = rejections
	const keyed = limiter.settings?.keyed || now.keys > 0
	if (trouble === 'would-reject') why.push('A dry run: it would reject requests, but admits all.')
	if (most !== undefined) why.push(BY_REASON[most[0]](limiter, now))
	if (trouble === 'filling')
		why.push('The queue, or the wait, is near its bound: requests will be rejected soon.')
	if (trouble === 'saturated' && !keyed) why.push(`All ${count(now.capacity)} permits are held.`)
	if (keyed && now.saturated > 0) {
		why.push(`${count(now.saturated)} of ${count(now.keys)} keys are at their limit.`)
	}
	if (isAbandoned(now)) {
		const part = `${count(now.leftBehind)} of ${count(now.active)} at work`
		why.push(`${part} have no client any more: it has left, and the handler goes on.`)
	}
	if (
		usual?.held !== undefined &&
		recent.held !== undefined &&
		recent.held > CHANGED * usual.held
	) {
		// The cause comes before what follows from it.
		why.unshift(
			`A request takes longer: it holds its permit for ${duration(recent.held)} (median); before this began, ${duration(usual.held)}.`,
		)
	}
	if (usual !== undefined && usual.arrivals > 0 && recent.arrivals > CHANGED * usual.arrivals) {
		why.push(
			`More requests come: ${rate(recent.arrivals)} a second; before this began, ${rate(usual.arrivals)}.`,
		)
	} else {
		why.push(
			`${rate(recent.arrivals)} requests come in a second, and ${rate(recent.done)} are done.`,
		)
	}
	return why
}
