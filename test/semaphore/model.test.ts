import fc from 'fast-check'
import { expect, test } from 'vitest'
import { RejectedError } from '../../src/errors.js'
import type { Permit } from '../../src/semaphore/permit.js'
import { Semaphore } from '../../src/semaphore/semaphore.js'

/** What can happen, with numbers that choose among the callers there are. */
type Step =
	| { kind: 'acquire'; weight: number }
	| { kind: 'tryAcquire'; weight: number }
	| { kind: 'release' | 'abort'; which: number }
	| { kind: 'weigh'; which: number; weight: number }
	| { kind: 'resize'; capacity: number }
	| { kind: 'close' }

interface Caller {
	id: number
	weight: number
}

/** The same rules, as plainly as they can be said: two arrays, and a loop over the head. */
class Model {
	active: Caller[] = []
	queue: Caller[] = []
	closed = false
	capacity: number
	readonly maxQueue: number

	constructor(capacity: number, maxQueue: number) {
		this.capacity = capacity
		this.maxQueue = maxQueue
	}

	get held(): number {
		return this.active.reduce((sum, { weight }) => sum + weight, 0)
	}

	tooHeavy(weight: number): boolean {
		return this.capacity > 0 && weight > this.capacity
	}

	/** @returns what becomes of the caller at once. */
	come(caller: Caller, mayWait: boolean): 'admitted' | 'waits' | 'rejected' {
		if (this.closed) return 'rejected'
		if (this.queue.length === 0 && this.held + caller.weight <= this.capacity) {
			this.active.push(caller)
			return 'admitted'
		}
		if (!mayWait || this.queue.length >= this.maxQueue) return 'rejected'
		this.queue.push(caller)
		return 'waits'
	}

	admit(): void {
		for (let head = this.queue[0]; head !== undefined; head = this.queue[0]) {
			const alone = this.held === 0 && this.capacity > 0
			if (this.held + head.weight > this.capacity && !alone) return
			this.active.push(head)
			this.queue.shift()
		}
	}
}

const steps = fc.array(
	fc.oneof(
		{
			weight: 16,
			arbitrary: fc.record({
				kind: fc.constant('acquire' as const),
				weight: fc.integer({ min: 1, max: 4 }),
			}),
		},
		{
			weight: 2,
			arbitrary: fc.record({
				kind: fc.constant('tryAcquire' as const),
				weight: fc.integer({ min: 1, max: 4 }),
			}),
		},
		{
			weight: 12,
			arbitrary: fc.record({ kind: fc.constant('release' as const), which: fc.nat() }),
		},
		{ weight: 3, arbitrary: fc.record({ kind: fc.constant('abort' as const), which: fc.nat() }) },
		{
			weight: 4,
			arbitrary: fc.record({
				kind: fc.constant('weigh' as const),
				which: fc.nat(),
				weight: fc.integer({ min: 1, max: 6 }),
			}),
		},
		{
			weight: 1,
			arbitrary: fc.record({
				kind: fc.constant('resize' as const),
				capacity: fc.integer({ min: 0, max: 5 }),
			}),
		},
		{ weight: 1, arbitrary: fc.constant({ kind: 'close' as const }) },
	),
	{ minLength: 1, maxLength: 60 },
)

test('any history agrees with the plain model, and leaves nothing behind', async () => {
	await fc.assert(
		fc.asyncProperty(
			fc.integer({ min: 0, max: 4 }),
			fc.constantFrom(0, 1, 3, Number.POSITIVE_INFINITY),
			steps,
			async (capacity, maxQueue, history) => {
				const semaphore = new Semaphore(capacity, { maxQueue })
				const model = new Model(capacity, maxQueue)
				const permits = new Map<number, Permit>()
				const aborters = new Map<number, AbortController>()
				const admitted: number[] = []
				const rejected = new Map<number, unknown>()
				const expectedOrder: number[] = []
				let next = 0

				for (const step of history as Step[]) {
					const before = new Set(model.active)
					if (step.kind === 'acquire') {
						const id = next++
						const aborter = new AbortController()
						aborters.set(id, aborter)
						const tooHeavy = model.tooHeavy(step.weight)
						const outcome = tooHeavy ? 'rejected' : model.come({ id, weight: step.weight }, true)
						semaphore.acquire({ weight: step.weight, signal: aborter.signal }).then(
							(permit) => {
								permits.set(id, permit)
								admitted.push(id)
							},
							(error) => rejected.set(id, error),
						)
						await new Promise(setImmediate)
						if (tooHeavy) expect(rejected.get(id)).toBeInstanceOf(RangeError)
						else if (outcome === 'rejected') expect(rejected.get(id)).toBeInstanceOf(RejectedError)
						else expect(rejected.has(id)).toBe(false)
					} else if (step.kind === 'tryAcquire') {
						const id = next++
						if (model.tooHeavy(step.weight)) {
							expect(() => semaphore.tryAcquire({ weight: step.weight })).toThrow(RangeError)
							continue
						}
						const outcome = model.come({ id, weight: step.weight }, false)
						const permit = semaphore.tryAcquire({ weight: step.weight })
						expect(permit !== undefined).toBe(outcome === 'admitted')
						if (permit !== undefined) {
							permits.set(id, permit)
							admitted.push(id)
						}
					} else if (step.kind === 'release') {
						if (model.active.length === 0) continue
						const [caller] = model.active.splice(step.which % model.active.length, 1) as [Caller]
						before.delete(caller)
						permits.get(caller.id)?.release()
						model.admit()
					} else if (step.kind === 'abort') {
						if (model.queue.length === 0) continue
						const [caller] = model.queue.splice(step.which % model.queue.length, 1) as [Caller]
						aborters.get(caller.id)?.abort(`left ${caller.id}`)
						model.admit()
						await new Promise(setImmediate)
						expect(rejected.get(caller.id)).toBe(`left ${caller.id}`)
					} else if (step.kind === 'weigh') {
						if (model.active.length === 0) continue
						const caller = model.active[step.which % model.active.length] as Caller
						const less = step.weight < caller.weight
						caller.weight = step.weight
						permits.get(caller.id)?.weigh(step.weight)
						if (less) model.admit()
					} else if (step.kind === 'resize') {
						semaphore.resize(step.capacity)
						model.capacity = step.capacity
						model.admit()
					} else {
						semaphore.close()
						const waiting = model.queue.splice(0)
						model.closed = true
						await new Promise(setImmediate)
						for (const { id } of waiting)
							expect(rejected.get(id)).toMatchObject({ reason: 'closed' })
					}
					for (const caller of model.active) if (!before.has(caller)) expectedOrder.push(caller.id)
					expect(semaphore.active).toBe(model.held)
					expect(semaphore.queued).toBe(model.queue.length)
					expect(semaphore.available).toBe(Math.max(0, model.capacity - model.held))
					await new Promise(setImmediate)
					expect(admitted).toEqual(expectedOrder)
				}

				// The end: all that is held comes back, and all that waits gets in, or leaves.
				if (!model.closed) semaphore.resize(5)
				await new Promise(setImmediate)
				while (semaphore.active > 0) {
					for (const permit of permits.values()) permit.release()
					await new Promise(setImmediate)
				}
				expect(semaphore.active).toBe(0)
				expect(semaphore.queued).toBe(0)
				await semaphore.onIdle()
			},
		),
		{ numRuns: 400 },
	)
})
