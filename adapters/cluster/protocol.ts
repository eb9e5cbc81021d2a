import { HEAVIEST } from '../../src/checks.js'
import { REJECTION_REASONS, type RejectionReason } from '../../src/errors.js'
import type { Outcome } from '../../src/stats/observer.js'

/*
 * What a worker and the primary say to each other, and the checks of it. The messages of others
 * travel over the same channels: what is not exactly one of these messages is ignored.
 *
 * A worker asks for permits in numbered messages, at most one of which is on its way: the primary
 * acknowledges each, and so shows that it is there. What came up meanwhile travels in the next one,
 * a new capacity too: a primary that is not there yet gets it when it has begun. Permits that are
 * given back, weights that change, and requests that leave the queue, are told at once.
 *
 * The number of a request is used once in its process. An answer for a number that the worker does
 * not know any more is answered with "leave", and a primary ignores the numbers that it does not
 * know: so it is no matter which of two messages comes first, or that one comes twice.
 */

/** A request that wants permits. Without `key` in the options, its key is `null`. */
export type Acquire = readonly [id: number, weight: number, key: string | null]

/** A request that gives its permits back, or leaves the queue. */
export type Leave = readonly [id: number, outcome: Outcome]

/** A request at work that changes how many permits it has. */
export type Weigh = readonly [id: number, weight: number]

/** `queued`: requests that were ahead of it when it came; `available`: permits that were left. */
export type Admit = readonly [id: number, queued: number, available: number]

export type Reject = readonly [
	id: number,
	reason: RejectionReason,
	retryAfter: number,
	active: number,
	queued: number,
]

/** What a worker tells the primary. */
export interface Ask {
	/** The name of the limiter. */
	readonly name: string
	/** The number of this message, if it must be acknowledged; 0: it need not be. */
	readonly turn: number
	readonly acquire: readonly Acquire[]
	readonly leave: readonly Leave[]
	/** They come before those that leave. */
	readonly weigh: readonly Weigh[]
	/** The options that must be the same, in the first message. */
	readonly terms?: string | undefined
	/** The new capacity. */
	readonly resize?: number | undefined
}

/** What the primary tells a worker. */
export interface Answer {
	/** The name of the limiter. */
	readonly name: string
	/** The number of the message that is acknowledged; 0: none. */
	readonly turn: number
	readonly capacity: number
	readonly admit: readonly Admit[]
	readonly reject: readonly Reject[]
	/** Its own options, if those of the worker differ from them. */
	readonly terms?: string | undefined
	/** It serves from now on: what it was told before is lost. */
	readonly begun?: boolean | undefined
}

const ASK = 'inflight-limit.ask'
const ANSWER = 'inflight-limit.answer'

/** The requests that one message may ask for, so that the primary is never busy for long. */
export const AT_ONCE = 1000

/** The longest name of a limiter, key, or list of options, in characters. */
const LONGEST = 1024

export function askMessage(ask: Ask): object {
	return { [ASK]: ask }
}

export function answerMessage(answer: Answer): object {
	return { [ANSWER]: answer }
}

/** @returns `undefined` if it is a message of others. */
export function readAsk(message: unknown): Ask | undefined {
	const ask = content(message, ASK) as Partial<Ask> | undefined
	if (ask === undefined) return undefined
	const fits =
		isText(ask.name) &&
		isCount(ask.turn) &&
		isList(ask.acquire, isAcquire) &&
		ask.acquire.length <= AT_ONCE &&
		isList(ask.leave, isLeave) &&
		isList(ask.weigh, isWeigh) &&
		(ask.terms === undefined || isText(ask.terms)) &&
		(ask.resize === undefined || isPositive(ask.resize))
	return fits ? (ask as Ask) : undefined
}

/** @returns `undefined` if it is a message of others. */
export function readAnswer(message: unknown): Answer | undefined {
	const answer = content(message, ANSWER) as Partial<Answer> | undefined
	if (answer === undefined) return undefined
	const fits =
		isText(answer.name) &&
		isCount(answer.turn) &&
		isPositive(answer.capacity) &&
		isList(answer.admit, isAdmit) &&
		isList(answer.reject, isReject) &&
		(answer.terms === undefined || isText(answer.terms)) &&
		(answer.begun === undefined || answer.begun === true)
	return fits ? (answer as Answer) : undefined
}

function content(message: unknown, name: string): object | undefined {
	if (typeof message !== 'object' || message === null || !Object.hasOwn(message, name))
		return undefined
	const found = (message as Record<string, unknown>)[name]
	return typeof found === 'object' && found !== null ? found : undefined
}

function isText(value: unknown): value is string {
	return typeof value === 'string' && value.length <= LONGEST
}

function isCount(value: unknown): value is number {
	return Number.isSafeInteger(value) && (value as number) >= 0
}

function isPositive(value: unknown): value is number {
	return isCount(value) && value > 0
}

function isList<T>(
	value: unknown,
	fits: (item: readonly unknown[]) => boolean,
): value is readonly T[] {
	if (!Array.isArray(value)) return false
	// Not by `every`, which leaves out the holes of a sparse array.
	for (const item of value) if (!(Array.isArray(item) && fits(item))) return false
	return true
}

function isAcquire(item: readonly unknown[]): boolean {
	const key = item[2]
	return (
		item.length === 3 && isPositive(item[0]) && isPositive(item[1]) && (key === null || isText(key))
	)
}

const OUTCOMES: readonly unknown[] = [
	'ok',
	'client-error',
	'server-error',
	'abandoned',
] satisfies Outcome[]

function isLeave(item: readonly unknown[]): boolean {
	return item.length === 2 && isPositive(item[0]) && OUTCOMES.includes(item[1])
}

function isWeigh(item: readonly unknown[]): boolean {
	const [id, weight] = item
	return item.length === 2 && isPositive(id) && isPositive(weight) && weight <= HEAVIEST
}

function isAdmit(item: readonly unknown[]): boolean {
	return item.length === 3 && isPositive(item[0]) && isCount(item[1]) && isCount(item[2])
}

const REASONS: readonly unknown[] = REJECTION_REASONS

function isReject(item: readonly unknown[]): boolean {
	const known = isPositive(item[0]) && REASONS.includes(item[1]) && isPositive(item[2])
	return item.length === 5 && known && isCount(item[3]) && isCount(item[4])
}
