import { checkInteger, checkKey, checkSkip, checkWeight, LONGEST_TIMER } from '../../src/checks.js'
import { coded, RejectedError, type RejectionReason, withoutStack } from '../../src/errors.js'
import {
	type Entrance,
	enter,
	type Gate,
	type Rejected,
	SKIPPED,
	type Stay,
} from '../../src/limiter/gate.js'
import { type Inspection, inspect } from '../../src/limiter/inspection.js'
import type { LimiterStats } from '../../src/limiter/limiter.js'
import { acquireTask, runTask, type TaskOptions } from '../../src/limiter/tasks.js'
import { now, onNextTurn } from '../../src/semaphore/clock.js'
import { type Deferred, deferred } from '../../src/semaphore/deferred.js'
import type { Permit } from '../../src/semaphore/permit.js'
import { type AbortSignalLike, hasAborted, listen, unlisten } from '../../src/semaphore/signals.js'
import { Figures } from '../../src/stats/figures.js'
import type { Observer, Outcome } from '../../src/stats/observer.js'
import type { Client } from './channel.js'
import { type Asked, Dialog, type State } from './dialog.js'
import type { Settings } from './options.js'
import type { Admit, Answer, Ask, Reject } from './protocol.js'

/** The last number of a request in this process. */
let lastId = 0

/** Permits held and requests waiting in this process: all, or those of one key. */
interface Tally {
	active: number
	queued: number
}

/** A request that waits for the primary. It is itself the listener on its signal. */
class Caller implements Asked {
	readonly id: number = ++lastId
	readonly since: number = now()
	/** How many permits it wants, or has. */
	weight: number
	readonly key: string | undefined
	readonly #abort: (caller: Caller) => void
	decide!: (outcome: Admit | RejectedError) => void

	constructor(weight: number, key: string | undefined, abort: (caller: Caller) => void) {
		this.weight = weight
		this.key = key
		this.#abort = abort
	}

	handleEvent(): void {
		this.#abort(this)
	}
}

/** The limiter in a worker. It asks the primary for each permit. */
export class WorkerLimiter implements Gate, Client {
	readonly name: string
	readonly abandonedTimeout: number
	readonly stallTimeout: number
	readonly statusCode: number
	readonly serverTiming: boolean
	readonly rateLimitFields: boolean = false
	readonly overloaded: boolean = false
	readonly #settings: Settings
	readonly #dialog: Dialog<Caller>
	readonly #figures: Figures
	readonly #all: Tally = { active: 0, queued: 0 }
	/** With `key`: those that have a request at work or waiting. */
	readonly #tallies = new Map<string, Tally>()
	/** All that wait, in order of arrival. */
	readonly #callers = new Map<number, Caller>()
	#waitTimer: NodeJS.Timeout | undefined = undefined
	#capacity: number
	#closed = false
	#idle: Deferred | undefined = undefined
	/** The options differ from those of the primary. */
	#fault: Error | undefined = undefined

	/** The request of a caller is over. */
	readonly #abort = (caller: Caller): void => this.#reject(caller, this.#rejection('aborted'))

	/** @param post - sends a message to the primary. */
	constructor(settings: Settings, post: (ask: Ask) => void) {
		this.name = settings.name
		this.abandonedTimeout = settings.abandonedTimeout
		this.stallTimeout = settings.stallTimeout
		this.statusCode = settings.statusCode
		this.serverTiming = settings.serverTiming
		this.#capacity = settings.capacity
		this.#settings = settings
		this.#dialog = new Dialog(
			{
				changed: (before) => this.#changed(before),
				unanswered: (callers) => this.#rejectAll(callers, 'unavailable'),
			},
			settings,
			post,
		)
		this.#figures = new Figures(settings.name)
	}

	/** Begins to ask the primary. */
	begin(): void {
		this.#dialog.begin()
	}

	get capacity(): number {
		return this.#capacity
	}

	get active(): number {
		return this.#all.active
	}

	get queued(): number {
		return this.#all.queued
	}

	get available(): boolean {
		return this.#dialog.state === 'in' && this.#fault === undefined
	}

	get over(): boolean {
		return this.#closed && this.active === 0 && this.queued === 0
	}

	stats(): LimiterStats {
		const { name, capacity, active, queued } = this
		return { name, capacity, active, queued, keys: this.#tallies.size, ...this.#figures.counts() }
	}

	/** @internal */
	[inspect](): Inspection {
		const { capacity } = this
		const { functions, maxQueue, maxWait } = this.#settings
		return {
			capacity: 'shared',
			keyed: functions.key !== undefined,
			maxQueue,
			maxWait,
			order: 'fifo',
			priority: false,
			fair: false,
			dryRun: false,
			closed: this.#closed,
			abandoned: this.#figures.leftBehind,
			reason: undefined,
			keys: () => Array.from(this.#tallies, ([key, tally]) => ({ key, capacity, ...tally })),
		}
	}

	observe(observer: Observer): () => void {
		return this.#figures.observe(observer)
	}

	resize(capacity: number): void {
		if (this.#fault !== undefined) throw this.#fault
		this.#dialog.resize(checkInteger('capacity', capacity, 1, false))
	}

	close(): void {
		this.#closed = true
		this.#rejectAll(this.#callers.values(), 'closed')
	}

	async onIdle(): Promise<void> {
		while (this.active > 0 || this.queued > 0) {
			this.#idle ??= deferred()
			await this.#idle.promise
		}
	}

	acquire(context: object = {}, options: TaskOptions = {}): Promise<Permit> {
		return acquireTask(this, context, options)
	}

	run<T>(
		task: (permit: Permit) => T | PromiseLike<T>,
		context: object = {},
		options: TaskOptions = {},
	): Promise<T> {
		return runTask(this, task, context, options)
	}

	/** @internal */
	[enter](request: object, signal: AbortSignalLike): Entrance {
		if (this.#fault !== undefined) throw this.#fault
		const { skip, key: keyOf, weight: weightOf } = this.#settings.functions
		if (signal.aborted) return this.#rejected(this.#rejection('aborted'), 0, undefined)
		if (skip !== undefined && checkSkip(skip(request))) return this.#skipped(signal)
		let key: string | undefined
		if (keyOf !== undefined) {
			key = checkKey(keyOf(request))
			if (key === undefined) return this.#skipped(signal)
		}
		const weight = weightOf === undefined ? 1 : checkWeight(weightOf(request), this.#capacity)
		// One of the functions may have ended the request.
		if (signal.aborted) return this.#rejected(this.#rejection('aborted'), 0, key)
		if (this.#closed) return this.#rejected(this.#rejection('closed'), 0, key)
		if (this.#dialog.state === 'out' || this.#dialog.state === 'gone') {
			return this.#rejected(this.#rejection('unavailable'), 0, key)
		}
		const caller = new Caller(weight, key, this.#abort)
		return { tag: 'waiting', settled: this.#wait(caller, signal) }
	}

	/** One of the functions may have answered the request: then its handler must not run. */
	#skipped(signal: AbortSignalLike): Entrance {
		if (signal.aborted) return this.#rejected(this.#rejection('aborted'), 0, undefined)
		return SKIPPED
	}

	async #wait(caller: Caller, signal: AbortSignalLike): Promise<Stay | Rejected> {
		const { id, since, key } = caller
		const decided = new Promise<Admit | RejectedError>((resolve) => {
			caller.decide = resolve
		})
		listen(signal, caller)
		this.#callers.set(id, caller)
		this.#count(key, 0, 1)
		this.#dialog.ask(caller)
		this.#boundWaits()
		let outcome = await decided
		unlisten(signal, caller)
		const waited = now() - since
		// The request can be over after the permit was handed to it and before this line runs.
		if (!(outcome instanceof RejectedError) && hasAborted(signal)) {
			this.#leave(caller, 'abandoned')
			outcome = this.#rejection('aborted')
		}
		if (outcome instanceof RejectedError) return this.#rejected(outcome, waited, key)
		const [, queued, available] = outcome
		this.#figures.admitted(waited, key, this.#tallyOf(key))
		const admitted = now()
		let over = false
		let abandoned = false
		const abandon = (): void => {
			if (over || abandoned) return
			abandoned = true
			this.#figures.leftBehind++
		}
		const leave = (outcome: Outcome): void => {
			if (over) return
			over = true
			if (abandoned) this.#figures.leftBehind--
			this.#leave(caller, outcome)
			this.#figures.released(waited, now() - admitted, outcome, key, this.#tallyOf(key))
		}
		const weigh = (weight: number): void => {
			checkWeight(weight, Number.POSITIVE_INFINITY)
			if (!over) this.#weigh(caller, weight)
		}
		const { capacity } = this
		return { tag: 'admitted', waited, queued, capacity, available, weigh, abandon, leave }
	}

	receive(answer: Answer): void {
		if (answer.terms !== undefined) this.#differ(answer.terms)
		if (answer.capacity !== this.#capacity) {
			this.#capacity = answer.capacity
			this.#figures.resized(answer.capacity)
		}
		for (const admit of answer.admit) this.#admit(admit)
		for (const reject of answer.reject) this.#rejectedThere(reject)
		this.#dialog.answered(answer)
	}

	disconnected(): void {
		this.#dialog.end()
		this.#rejectAll(this.#callers.values(), 'unavailable')
	}

	#admit(admit: Admit): void {
		const [id] = admit
		const caller = this.#callers.get(id)
		if (caller === undefined) {
			// It was rejected here meanwhile.
			this.#dialog.leave(id, 'ok')
			return
		}
		this.#forget(caller)
		this.#count(caller.key, caller.weight, 0)
		caller.decide(admit)
	}

	#rejectedThere([id, reason, retryAfter, active, queued]: Reject): void {
		const caller = this.#callers.get(id)
		if (caller === undefined) return
		const load = { active, queued, capacity: this.#capacity }
		this.#forget(caller)
		caller.decide(withoutStack(() => new RejectedError(reason, retryAfter, load)))
		this.#settleIdle()
	}

	/** Ends a wait without a permit. */
	#reject(caller: Caller, error: RejectedError): void {
		if (!this.#callers.has(caller.id)) return
		if (this.#forget(caller)) this.#dialog.leave(caller.id, 'ok')
		caller.decide(error)
		this.#settleIdle()
	}

	#rejectAll(callers: Iterable<Caller>, reason: RejectionReason): void {
		for (const caller of callers) this.#reject(caller, this.#rejection(reason))
	}

	/** Changes how many permits a request has. */
	#weigh(caller: Caller, weight: number): void {
		this.#dialog.weigh(caller.id, weight)
		this.#count(caller.key, weight - caller.weight, 0)
		caller.weight = weight
	}

	/** Gives the permits of a request back. */
	#leave({ id, weight, key }: Caller, outcome: Outcome): void {
		this.#dialog.leave(id, outcome)
		this.#count(key, -weight, 0)
		this.#settleIdle()
	}

	/** A request waits no longer. @returns whether the primary may have been asked for it. */
	#forget(caller: Caller): boolean {
		this.#callers.delete(caller.id)
		this.#count(caller.key, 0, -1)
		if (this.#callers.size === 0) {
			clearTimeout(this.#waitTimer)
			this.#waitTimer = undefined
		}
		return this.#dialog.forget(caller)
	}

	#count(key: string | undefined, active: number, queued: number): void {
		this.#all.active += active
		this.#all.queued += queued
		if (key === undefined) return
		const tally = this.#tallies.get(key) ?? { active: 0, queued: 0 }
		tally.active += active
		tally.queued += queued
		if (tally.active === 0 && tally.queued === 0) this.#tallies.delete(key)
		else this.#tallies.set(key, tally)
	}

	#tallyOf(key: string | undefined): Tally {
		return key === undefined ? this.#all : (this.#tallies.get(key) ?? { active: 0, queued: 0 })
	}

	/**
	 * The primary rejects those that have waited for `maxWait`. If it does not answer, this does, for
	 * the oldest first. The timer keeps the process alive while a request waits.
	 */
	#boundWaits(): void {
		const { maxWait, primaryTimeout } = this.#settings
		if (this.#waitTimer !== undefined || maxWait === Number.POSITIVE_INFINITY) return
		const [oldest] = this.#callers.values()
		if (oldest === undefined) return
		const longest = maxWait + primaryTimeout
		const left = Math.min(Math.max(0, oldest.since + longest - now()), LONGEST_TIMER)
		this.#waitTimer = setTimeout(() => {
			onNextTurn(() => {
				clearTimeout(this.#waitTimer)
				this.#waitTimer = undefined
				for (const caller of this.#callers.values()) {
					if (now() - caller.since < longest) break
					this.#reject(caller, this.#rejection('timeout'))
				}
				this.#boundWaits()
			})
		}, left)
	}

	#changed(before: State): void {
		const { state } = this.#dialog
		if (state === 'out') warn('INFLIGHT_PRIMARY_UNAVAILABLE', this.#outage(before))
		if (state === 'in' && before === 'out') {
			warn(
				'INFLIGHT_PRIMARY_BACK',
				`The primary answers the limiter ${JSON.stringify(this.name)} again`,
			)
		}
		if (before !== 'joining' || state !== 'in') this.#figures.availability(state === 'in')
	}

	#outage(before: State): string {
		const name = JSON.stringify(this.name)
		const what = `The primary of the cluster does not answer the limiter ${name}: requests are rejected`
		if (before === 'in') return what
		return `${what}. Does the primary call clusterLimiter() with this name, too?`
	}

	#differ(terms: string): void {
		if (this.#fault !== undefined) return
		const whose = `the options of the limiter ${JSON.stringify(this.name)}`
		const message = `${whose} must be those that the primary gave, ${terms}; got ${this.#settings.terms}`
		this.#fault = coded('ERR_INFLIGHT_OPTIONS_DIFFER', new TypeError(message))
		warn('INFLIGHT_OPTIONS_DIFFER', message)
		this.#rejectAll(this.#callers.values(), 'unavailable')
	}

	/** The error for a request that is rejected in this process. */
	#rejection(reason: RejectionReason): RejectedError {
		return withoutStack(() => new RejectedError(reason, 1, this))
	}

	#rejected(error: RejectedError, waited: number, key: string | undefined): Rejected {
		this.#figures.rejected(error.reason, waited, key, this.#tallyOf(key))
		return { tag: 'rejected', error }
	}

	#settleIdle(): void {
		if (this.active > 0 || this.queued > 0) return
		this.#idle?.resolve()
		this.#idle = undefined
	}
}

function warn(code: string, text: string): void {
	process.emitWarning(text, { type: 'InflightLimitWarning', code })
}
