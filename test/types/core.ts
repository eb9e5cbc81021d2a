// What must compile of the root entry, and what must not, with no framework's types at hand.
import {
	type AcquireOptions,
	type Admission,
	admission,
	type DurationStats,
	type EventLoopStats,
	Limiter,
	type LimiterOptions,
	type LimiterStats,
	type Permit,
	RejectedError,
	type RejectionReason,
	Semaphore,
	type SemaphoreOptions,
} from 'inflight-limit'
import { type Equal, holds } from './equal.js'

export async function semaphore(): Promise<void> {
	const bounds: SemaphoreOptions = { maxQueue: 10, maxWait: undefined }
	const semaphore = new Semaphore(3, bounds)
	const figures: number[] = [
		semaphore.capacity,
		semaphore.active,
		semaphore.queued,
		semaphore.available,
	]
	figures.length = 0

	using permit = await semaphore.acquire({
		weight: 2,
		signal: AbortSignal.timeout(1_000),
		maxWait: 5,
	})
	holds<Equal<typeof permit, Permit>>()
	holds<Equal<Permit['waited'], number>>()
	permit.weigh(3)
	// @ts-expect-error - a weight is a number
	permit.weigh('3')
	permit.release()
	const tried = semaphore.tryAcquire({ weight: 2 })
	holds<Equal<typeof tried, Permit | undefined>>()

	const text = await semaphore.run(async (held) => `${held.waited}`)
	holds<Equal<typeof text, string>>()
	const count = await semaphore.run(() => 1, { signal: new AbortController().signal })
	holds<Equal<typeof count, number>>()
	const options: AcquireOptions = { weight: undefined, signal: undefined, maxWait: undefined }
	await semaphore.acquire(options)

	semaphore.resize(4)
	semaphore.close()
	await semaphore.onIdle()

	// @ts-expect-error - a capacity is a number
	new Semaphore('3')
	// @ts-expect-error - a capacity is required
	new Semaphore()
	// @ts-expect-error - misspelt
	new Semaphore(3, { maxQueu: 1 })
	// @ts-expect-error - not an AbortSignal
	semaphore.acquire({ signal: {} })
	// @ts-expect-error - a call that never waits takes no signal
	semaphore.tryAcquire({ signal: AbortSignal.abort() })
	// @ts-expect-error - a task is a function
	semaphore.run(Promise.resolve())
	// @ts-expect-error - read-only
	semaphore.capacity = 4
	// @ts-expect-error - read-only
	permit.waited = 4
}

export function limiter(): void {
	const options: LimiterOptions = {
		capacity: 3,
		name: 'reports',
		maxQueue: undefined,
		key: () => undefined,
	}
	const limiter = new Limiter(options)
	new Limiter(3)
	new Limiter({ capacity: 3, key: (request: { url?: string }) => request.url })

	const stats = limiter.stats()
	holds<Equal<typeof stats, LimiterStats>>()
	holds<Equal<LimiterStats['capacity'], number | null>>()
	holds<Equal<LimiterStats['rejected'], Record<RejectionReason, number>>>()
	holds<Equal<LimiterStats['waits'], DurationStats>>()
	holds<Equal<LimiterStats['eventLoop'], EventLoopStats | undefined>>()
	holds<Equal<EventLoopStats, { delay: number; utilization: number; overloaded: boolean }>>()
	new Limiter({ capacity: 3, eventLoop: true })
	const ready: boolean = !limiter.overloaded
	limiter.resize(ready ? 3 : 2)
	limiter.resize('ada', 3)
	limiter.resize(7n, 3)
	// @ts-expect-error - a key without a capacity
	limiter.resize('ada')
	// @ts-expect-error - read-only
	limiter.overloaded = false
	// @ts-expect-error - a limiter watches the one loop of its process
	new Limiter({ capacity: 3, eventLoop: 100 })
	holds<Equal<keyof DurationStats, 'count' | 'mean' | 'p50' | 'p90' | 'p99' | 'max'>>()

	// @ts-expect-error - a capacity is required
	new Limiter({ maxQueue: 1 })
	// @ts-expect-error - misspelt
	new Limiter({ capacity: 3, maxWaits: 1 })
	// @ts-expect-error - an answer is the business of a framework's `limit`
	new Limiter({ capacity: 3, onReject: () => undefined })
	new Limiter({ capacity: 3, key: (request: { id?: number | null }) => request.id })
	// @ts-expect-error - a key is not a promise
	new Limiter({ capacity: 3, key: async () => 'a' })
	// @ts-expect-error - not a condition
	new Limiter({ capacity: 3, skip: true })
	// @ts-expect-error - read-only
	limiter.capacity = 4
}

export function rejection(error: RejectedError): void {
	type Reason =
		| 'queue-full'
		| 'timeout'
		| 'evicted'
		| 'closed'
		| 'overloaded'
		| 'aborted'
		| 'unavailable'
	holds<Equal<RejectionReason, Reason>>()
	holds<Equal<typeof error.reason, RejectionReason>>()
	holds<Equal<typeof error.code, 'ERR_INFLIGHT_REJECTED'>>()
	holds<Equal<typeof error.retryAfter, number>>()
	holds<RejectedError extends Error ? true : false>()
	const figures: number[] = [
		error.active,
		error.capacity,
		error.queued,
		error.status,
		error.statusCode,
	]
	figures.length = 0
	holds<Equal<typeof error.headers, Readonly<Record<string, string>>>>()
	const load = { active: 3, capacity: 3, queued: 0 }
	new RejectedError('timeout', 1, load)
	// @ts-expect-error - not a reason
	new RejectedError('bored', 1, load)
}

export async function admitted(request: object): Promise<void> {
	const own = admission(request)
	holds<Equal<typeof own, Admission | undefined>>()
	if (own === undefined) return
	holds<Equal<typeof own.signal, AbortSignal>>()
	await fetch('http://127.0.0.1/', { signal: own.signal })
	const figures: number[] = [own.waited, own.queued]
	figures.length = 0
	own.release()
	// @ts-expect-error - not a request
	admission('request')
	// @ts-expect-error - read-only
	own.waited = 0
}
