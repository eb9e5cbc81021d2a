import fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import { Pace } from '../../src/semaphore/pace.js'
import { settle } from '../support/gate.js'

interface Caller {
	id: number
	priority: number
	flow: string
	weight: number
	/** When it came, in ms. */
	since: number
}

interface Rules {
	order: 'fifo' | 'lifo' | 'adaptive'
	priority: boolean
	fair: boolean
	lowerShare: number
	maxQueue: number
	capacity: number
}

/** What is known of the requests of one flow in one priority. */
interface Flow {
	priority: number
	held: number
	/** Since which moments it has held so many, and had so many waiting. */
	heldSince: number
	lengthSince: number
	/** Of its line, for `adaptive`. */
	emptyUntil: number
	newestFirst: boolean
}

/**
 * The same rules, as plainly as they can be said: one list in the order of arrival, sorted anew for
 * each question.
 */
class Model {
	active: Caller[] = []
	queue: Caller[] = []
	closed = false
	readonly admitted: number[] = []
	readonly rejected = new Map<number, string>()
	readonly #rules: Rules
	readonly #flows = new Map<string, Flow>()
	capacity: number
	#moment = 0
	#owed = 0
	#lastLower = Number.NEGATIVE_INFINITY

	constructor(rules: Rules) {
		this.#rules = rules
		this.capacity = rules.capacity
	}

	get held(): number {
		return this.active.reduce((sum, { weight }) => sum + weight, 0)
	}

	come(caller: Caller): void {
		const room = this.queue.length === 0 && this.held + caller.weight <= this.capacity
		if (this.closed) this.#reject(caller, 'closed')
		else if (room) this.#admitNow(caller)
		else this.#comeToWait(caller)
	}

	#comeToWait(caller: Caller): void {
		const flow = this.#flowOf(caller)
		const stands = (now: number): boolean => now - flow.emptyUntil > 100
		if (this.#rules.order === 'adaptive') {
			let own = this.#lineOf(caller)
			while (
				own.length > 1 &&
				stands(caller.since) &&
				caller.since - (own[0] as Caller).since > 5
			) {
				this.drop(own[0] as Caller, 'timeout')
				own = this.#lineOf(caller)
			}
		}
		if (this.queue.length >= this.#rules.maxQueue) {
			const victim = this.#victim(caller)
			if (victim !== undefined) this.drop(victim, 'evicted')
		}
		if (this.queue.length >= this.#rules.maxQueue) {
			this.#reject(caller, 'queue-full')
			return
		}

		const own = this.#lineOf(caller)
		if (own.length === 0) {
			flow.emptyUntil = caller.since
			flow.heldSince = ++this.#moment
		}
		if (this.#rules.order === 'adaptive') flow.newestFirst = stands(caller.since)
		flow.lengthSince = ++this.#moment
		this.queue.push(caller)
		if (this.#head() === caller) this.admit()
	}

	/** A waiter leaves without a permit. */
	drop(caller: Caller, reason: string): void {
		this.queue.splice(this.queue.indexOf(caller), 1)
		this.#flowOf(caller).lengthSince = ++this.#moment
		this.#reject(caller, reason)
		this.admit()
	}

	release(caller: Caller): void {
		this.active.splice(this.active.indexOf(caller), 1)
		if (this.#rules.fair) this.#hold(caller, -caller.weight)
		this.admit()
	}

	weigh(caller: Caller, weight: number): void {
		const more = weight - caller.weight
		if (more === 0) return
		caller.weight = weight
		if (this.#rules.fair) this.#hold(caller, more)
		if (more < 0) this.admit()
	}

	close(): void {
		this.closed = true
		for (const caller of this.queue.splice(0)) this.#reject(caller, 'closed')
	}

	admit(): void {
		for (let head = this.#head(); head !== undefined; head = this.#head()) {
			const alone = this.held === 0
			if (this.closed || (this.held + head.weight > this.capacity && !alone)) return
			if (this.#levels().length > 1) {
				if (this.#lowerTurn()) {
					this.#owed -= 1
					this.#lastLower = head.priority
				}
				this.#owed += this.#rules.lowerShare
			}
			this.queue.splice(this.queue.indexOf(head), 1)
			this.#flowOf(head).lengthSince = ++this.#moment
			this.#admitNow(head)
		}
	}

	#admitNow(caller: Caller): void {
		this.active.push(caller)
		this.admitted.push(caller.id)
		if (this.#rules.fair) this.#hold(caller, caller.weight)
	}

	#hold(caller: Caller, weight: number): void {
		const flow = this.#flowOf(caller)
		flow.held += weight
		flow.heldSince = ++this.#moment
	}

	#reject(caller: Caller, reason: string): void {
		this.rejected.set(caller.id, reason)
	}

	/** The priorities in which someone waits, the highest first. */
	#levels(): number[] {
		return Array.from(new Set(this.queue.map(({ priority }) => priority))).sort((a, b) => b - a)
	}

	#lowerTurn(): boolean {
		return this.#levels().length > 1 && this.#owed >= 1 - 1e-9
	}

	#head(): Caller | undefined {
		const levels = this.#levels()
		let level = levels[0]
		if (this.#lowerTurn()) {
			const lower = levels.slice(1)
			level = lower.find((priority) => priority < this.#lastLower) ?? lower[0]
		}
		const [first] = this.#flowsIn(level).sort(
			(a, b) => a.held - b.held || a.heldSince - b.heldSince,
		)
		if (first === undefined) return undefined
		const line = this.#lineIn(first)
		return first.newestFirst ? line.at(-1) : line[0]
	}

	#victim(caller: Caller): Caller | undefined {
		const { lowerShare } = this.#rules
		const { priority } = caller
		const all = this.queue.length
		const waiting = (level: number): number =>
			this.queue.filter((each) => each.priority === level).length
		const levels = this.#levels().reverse()
		const top = levels.at(-1)
		if (top === undefined) return undefined
		const places =
			lowerShare === 0 ? 0 : Math.min(all - 1, Math.max(1, Math.floor(lowerShare * all)))
		const lowest = levels[0] as number
		if (priority >= top) {
			const lower = this.queue.filter((each) => each.priority < Math.max(top, priority)).length
			return lower > places ? this.#lastOf(lowest) : this.#longerThanOwn(caller)
		}
		const below = new Set([...levels.slice(0, -1), priority])
		const part = lowerShare === 0 ? 0 : Math.max(1, Math.floor(places / below.size))
		if (waiting(priority) < part) {
			if (all - waiting(top) < places) return this.#lastOf(top)
			const [longest] = levels.slice(0, -1).sort((a, b) => waiting(b) - waiting(a) || a - b)
			if (longest !== undefined && waiting(longest) > waiting(priority) + 1)
				return this.#lastOf(longest)
		}
		const reducible = levels.find((level) => waiting(level) > part)
		if (reducible !== undefined && reducible < priority) return this.#lastOf(reducible)
		return this.#longerThanOwn(caller)
	}

	/** The one to evict in a priority: the last one of the flow that has most waiting. */
	#lastOf(priority: number): Caller | undefined {
		const [longest] = this.#flowsIn(priority).sort(
			(a, b) => this.#lineIn(b).length - this.#lineIn(a).length || a.lengthSince - b.lengthSince,
		)
		return longest === undefined ? undefined : this.#lastIn(longest)
	}

	/** Whose turn is last in a flow. */
	#lastIn(flow: Flow): Caller | undefined {
		const line = this.#lineIn(flow)
		return flow.newestFirst ? line[0] : line.at(-1)
	}

	/**
	 * The same within the caller's own priority, if that makes its flows more equal; else the oldest
	 * of its own flow, if the caller goes before it.
	 */
	#longerThanOwn(caller: Caller): Caller | undefined {
		const last = this.#lastOf(caller.priority)
		const own = this.#lineOf(caller)
		if (last !== undefined && this.#lineOf(last).length >= own.length + 2) return last
		const { order } = this.#rules
		const stands = caller.since - this.#flowOf(caller).emptyUntil > 100
		return order === 'lifo' || (order === 'adaptive' && stands) ? own[0] : undefined
	}

	/** The flows that have someone waiting in a priority. */
	#flowsIn(priority: number | undefined): Flow[] {
		const waiting = this.queue.filter((caller) => caller.priority === priority)
		return Array.from(new Set(waiting.map((caller) => this.#flowOf(caller))))
	}

	#lineIn(flow: Flow): Caller[] {
		return this.queue.filter((caller) => this.#flowOf(caller) === flow)
	}

	#lineOf(caller: Caller): Caller[] {
		return this.#lineIn(this.#flowOf(caller))
	}

	#flowOf({ priority, flow: name }: Caller): Flow {
		const key = `${priority} ${name}`
		let flow = this.#flows.get(key)
		if (flow === undefined) {
			const newestFirst = this.#rules.order === 'lifo'
			flow = { priority, held: 0, heldSince: 0, lengthSince: 0, emptyUntil: 0, newestFirst }
			this.#flows.set(key, flow)
		}
		return flow
	}
}

type Step =
	| { kind: 'come'; priority: number; flow: string; weight: number }
	| { kind: 'release' | 'abort'; which: number }
	| { kind: 'weigh'; which: number; weight: number }
	| { kind: 'resize'; capacity: number }
	| { kind: 'pass'; ms: number }
	| { kind: 'close' }

const rules: fc.Arbitrary<Rules> = fc.record({
	order: fc.constantFrom('fifo' as const, 'lifo' as const, 'adaptive' as const),
	priority: fc.boolean(),
	fair: fc.boolean(),
	lowerShare: fc.constantFrom(0, 0.1, 0.4),
	maxQueue: fc.constantFrom(0, 1, 2, 5, 8, Number.POSITIVE_INFINITY),
	capacity: fc.integer({ min: 1, max: 4 }),
})

const kind = <Kind extends string>(value: Kind): fc.Arbitrary<Kind> => fc.constant(value)
const steps: fc.Arbitrary<Step[]> = fc.array(
	fc.oneof(
		{
			weight: 100,
			arbitrary: fc.record({
				kind: kind('come'),
				priority: fc.constantFrom(-1, 0, 0.5, 7),
				flow: fc.constantFrom('a', 'b', 'c', '__proto__'),
				weight: fc.constantFrom(1, 1, 1, 2, 3),
			}),
		},
		{ weight: 30, arbitrary: fc.record({ kind: kind('release'), which: fc.nat() }) },
		{ weight: 20, arbitrary: fc.record({ kind: kind('abort'), which: fc.nat() }) },
		{
			weight: 20,
			arbitrary: fc.record({
				kind: kind('weigh'),
				which: fc.nat(),
				weight: fc.integer({ min: 1, max: 5 }),
			}),
		},
		{
			weight: 40,
			arbitrary: fc.record({ kind: kind('pass'), ms: fc.constantFrom(1, 4, 6, 60, 120) }),
		},
		{
			weight: 10,
			arbitrary: fc.record({ kind: kind('resize'), capacity: fc.integer({ min: 1, max: 5 }) }),
		},
		{ weight: 1, arbitrary: fc.record({ kind: kind('close') }) },
	),
	{ minLength: 1, maxLength: 80, size: 'max' },
)

beforeEach(() => {
	vi.useFakeTimers()
	// So that the times of `adaptive` are what they are where permits come back fast.
	vi.spyOn(Pace.prototype, 'timeFor').mockReturnValue(0)
})

afterEach(() => {
	vi.useRealTimers()
	vi.restoreAllMocks()
})

test('any history, under any rules, agrees with the plain model, and leaves nothing behind', async () => {
	const seen = new Map<string, number>()
	await fc.assert(
		fc.asyncProperty(rules, steps, async (given, history) => {
			const { order, maxQueue, capacity } = given
			const applied = { ...given, lowerShare: given.priority ? given.lowerShare : 0 }
			const limiter = new Limiter({
				capacity,
				order,
				maxQueue,
				maxWait: Number.POSITIVE_INFINITY,
				lowerShare: applied.lowerShare,
				priority: given.priority ? (caller: Caller) => caller.priority : undefined,
				fairBy: given.fair ? (caller: Caller) => caller.flow : undefined,
				weight: (caller: Caller) => caller.weight,
			} as LimiterOptions)
			const model = new Model(applied)
			const stays = new Map<number, Stay>()
			const aborters = new Map<number, AbortController>()
			const admitted: number[] = []
			const rejected = new Map<number, string>()
			let next = 0

			for (const step of history) {
				if (step.kind === 'come') {
					if (step.weight > model.capacity) continue
					const id = next++
					const own = {
						...step,
						priority: given.priority ? step.priority : 0,
						flow: given.fair ? step.flow : '',
					}
					const aborter = new AbortController()
					aborters.set(id, aborter)
					model.come({ ...own, id, since: performance.now() })
					const entered = limiter[enter](own, aborter.signal)
					const admit = (stay: Stay): void => {
						admitted.push(id)
						stays.set(id, stay)
					}
					const reject = (error: { reason: string } | string): void => {
						rejected.set(id, typeof error === 'string' ? error : error.reason)
					}
					settle(entered).then((stay) => admit(stay as Stay), reject)
				} else if (step.kind === 'release') {
					if (model.active.length === 0) continue
					const caller = model.active[step.which % model.active.length] as Caller
					model.release(caller)
					stays.get(caller.id)?.leave('ok')
				} else if (step.kind === 'abort') {
					if (model.queue.length === 0) continue
					const caller = model.queue[step.which % model.queue.length] as Caller
					model.drop(caller, 'aborted')
					aborters.get(caller.id)?.abort('left')
				} else if (step.kind === 'weigh') {
					if (model.active.length === 0) continue
					const caller = model.active[step.which % model.active.length] as Caller
					model.weigh(caller, step.weight)
					stays.get(caller.id)?.weigh?.(step.weight)
				} else if (step.kind === 'resize') {
					model.capacity = step.capacity
					model.admit()
					limiter.resize(step.capacity)
				} else if (step.kind === 'pass') {
					vi.advanceTimersByTime(step.ms)
				} else {
					model.close()
					limiter.close()
				}
				for (let i = 0; i < 8; i++) await null
				// Requests that were admitted in the same step may learn it in another order.
				expect(admitted.splice(0).sort()).toEqual(model.admitted.splice(0).sort())
				expect(rejected).toEqual(model.rejected)
				expect(limiter.active).toBe(model.held)
				expect(limiter.queued).toBe(model.queue.length)
			}
			for (const reason of rejected.values()) seen.set(reason, (seen.get(reason) ?? 0) + 1)

			while (stays.size > 0) {
				for (const [id, stay] of stays) {
					stays.delete(id)
					stay.leave('ok')
				}
				for (let i = 0; i < 8; i++) await null
			}
			expect(limiter.active).toBe(0)
			expect(limiter.queued).toBe(0)
			await limiter.onIdle()
		}),
		{ numRuns: 1_500 },
	)
	// The histories reach what they are to test.
	for (const reason of ['timeout', 'evicted', 'queue-full', 'aborted', 'closed']) {
		expect([reason, (seen.get(reason) ?? 0) > 20]).toEqual([reason, true])
	}
})
