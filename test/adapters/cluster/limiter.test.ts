import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { clusterLimiter } from '../../../adapters/cluster/index.js'
import { CLUSTER_LIMITER_OPTIONS } from '../../../adapters/cluster/options.js'
import { RejectedError } from '../../../src/errors.js'
import { inspect } from '../../../src/limiter/inspection.js'
import type { Permit } from '../../../src/semaphore/permit.js'
import type { AbortSignalLike } from '../../../src/semaphore/signals.js'
import { newPrimary, quiet, TestWorker } from '../../support/cluster.js'
import { expectAbandonedIsCounted } from '../../support/gate.js'
import { oddSignals } from '../../support/signals.js'

let warned: ReturnType<typeof vi.spyOn>

beforeEach(() => {
	warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
})

afterEach(() => {
	vi.useRealTimers()
	vi.restoreAllMocks()
	vi.unstubAllEnvs()
})

/** Asks for a permit, and notes what becomes of it. */
function ask(
	limiter: {
		acquire: (context?: object, options?: { signal?: AbortSignalLike }) => Promise<Permit>
	},
	context?: object,
	signal?: AbortSignalLike,
): { permit?: Permit; error?: unknown } {
	const seen: { permit?: Permit; error?: unknown } = {}
	limiter.acquire(context, signal && { signal }).then(
		(permit) => {
			seen.permit = permit
		},
		(error) => {
			seen.error = error
		},
	)
	return seen
}

const reasonOf = ({ error }: { error?: unknown }) =>
	error instanceof RejectedError ? error.reason : error === undefined ? 'none' : 'another error'

const codes = () =>
	(warned.mock.calls as unknown[][]).map(([, options]) => (options as { code: string }).code)

describe('one limit for all processes', () => {
	test('admits as many as the capacity, first come, first served, over all of them', async () => {
		const primary = newPrimary()
		const [one, other] = [new TestWorker(primary), new TestWorker(primary)]
		const asked: ReturnType<typeof ask>[] = []
		for (const limiter of [
			one.limiter,
			other.limiter,
			primary,
			one.limiter,
			other.limiter,
			primary,
		]) {
			asked.push(ask(limiter))
			await quiet()
		}
		const admitted = () => asked.map(({ permit }) => permit !== undefined)
		expect(admitted()).toEqual([true, true, false, false, false, false])
		expect([primary.active, primary.queued]).toEqual([2, 4])
		expect([one, other].map(({ limiter }) => [limiter.active, limiter.queued])).toEqual([
			[1, 1],
			[1, 1],
		])
		for (let i = 0; i < 4; i++) {
			asked[i]?.permit?.release()
			await quiet()
			expect(admitted()).toEqual([true, true, ...[2, 3, 4, 5].map((place) => place <= i + 2)])
		}
		for (const { permit } of asked) permit?.release()
		await quiet()
		expect([primary.active, primary.queued, one.limiter.active, other.limiter.active]).toEqual([
			0, 0, 0, 0,
		])
		expect(primary.stats()).toMatchObject({ admitted: 6, completed: 6 })
		expect(one.limiter.stats()).toMatchObject({
			name: 'renders',
			capacity: 2,
			admitted: 2,
			completed: 2,
			keys: 0,
		})
	})

	test('sends what comes up in one turn together, and one message at a time', async () => {
		const worker = new TestWorker(newPrimary({ capacity: 100 }), { capacity: 100 })
		await quiet()
		worker.stop()
		const first = Array.from({ length: 10 }, () => ask(worker.limiter))
		await quiet()
		const second = Array.from({ length: 10 }, () => ask(worker.limiter))
		await quiet()
		expect(worker.sent.map(({ acquire }) => acquire.length)).toEqual([0, 10])
		worker.goOn()
		await quiet()
		expect(worker.sent.map(({ acquire }) => acquire.length)).toEqual([0, 10, 10])
		for (const { permit } of [...first, ...second]) permit?.release()
		await quiet()
		expect(worker.sent.at(-1)).toMatchObject({ turn: 0, acquire: [], leave: { length: 20 } })
	})

	test('a message asks for 1000 at most', async () => {
		const primary = newPrimary({ capacity: 5_000 })
		const worker = new TestWorker(primary, { capacity: 5_000 })
		for (let i = 0; i < 2_500; i++) ask(worker.limiter)
		await quiet()
		await quiet()
		expect(worker.sent.map(({ acquire }) => acquire.length)).toEqual([0, 1000, 1000, 500])
		expect(primary.active).toBe(2_500)
	})

	test('the queue is bounded over all processes, and a rejection says how busy all are', async () => {
		const primary = newPrimary({ maxQueue: 2 })
		const workers = [
			new TestWorker(primary, { maxQueue: 2 }),
			new TestWorker(primary, { maxQueue: 2 }),
		]
		const asked: ReturnType<typeof ask>[] = []
		for (let i = 0; i < 6; i++) {
			asked.push(ask((workers[i % 2] as TestWorker).limiter))
			await quiet()
		}
		expect(asked.map(reasonOf)).toEqual([
			'none',
			'none',
			'none',
			'none',
			'queue-full',
			'queue-full',
		])
		expect(asked[5]?.error).toMatchObject({ active: 2, capacity: 2, queued: 2, retryAfter: 1 })
		expect(workers[1]?.limiter.stats().rejected['queue-full']).toBe(1)
		expect(primary.stats().rejected['queue-full']).toBe(2)
	})

	test('a wait ends after maxWait, by the clock of the primary', async () => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
		const primary = newPrimary({ capacity: 1, maxWait: 300 })
		const worker = new TestWorker(primary, { capacity: 1, maxWait: 300 })
		const held = ask(worker.limiter)
		await quiet()
		const waiting = ask(worker.limiter)
		await quiet()
		await vi.advanceTimersByTimeAsync(299)
		await quiet()
		expect(reasonOf(waiting)).toBe('none')
		await vi.advanceTimersByTimeAsync(1)
		await quiet()
		expect(reasonOf(waiting)).toBe('timeout')
		expect(primary.stats().rejected.timeout).toBe(1)
		held.permit?.release()
		await quiet()
		expect([primary.active, primary.queued]).toEqual([0, 0])
	})

	test('weights count, and one that a resize made too heavy is admitted alone', async () => {
		const primary = newPrimary({ capacity: 4 })
		const options = { capacity: 4, weight: ({ weight }: { weight: number }) => weight }
		const worker = new TestWorker(primary, options)
		const [three, two, four] = [3, 2, 4].map((weight) => ask(worker.limiter, { weight }))
		await quiet()
		expect([worker.limiter.active, primary.active, primary.queued]).toEqual([3, 3, 2])
		await expect(worker.limiter.acquire({ weight: 5 })).rejects.toThrow(
			'at most the capacity, 4; got 5',
		)
		three?.permit?.release()
		await quiet()
		expect(two?.permit).toBeDefined()
		primary.resize(2)
		two?.permit?.release()
		await quiet()
		expect(four?.permit).toBeDefined()
		worker.stop()
		const late = ask(worker.limiter, { weight: 2 })
		await quiet()
		primary.resize(1)
		four?.permit?.release()
		worker.goOn()
		await quiet()
		expect([late.permit !== undefined, worker.limiter.capacity]).toEqual([true, 1])
	})

	test('a capacity that changes anywhere changes everywhere', async () => {
		const primary = newPrimary()
		const [one, other] = [new TestWorker(primary), new TestWorker(primary)]
		const resized = vi.fn()
		other.limiter.observe({ resized })
		const asked = [1, 2, 3, 4].map(() => ask(other.limiter))
		await quiet()
		one.limiter.resize(4)
		await quiet()
		expect([primary, one.limiter, other.limiter].map(({ capacity }) => capacity)).toEqual([4, 4, 4])
		expect(asked.every(({ permit }) => permit !== undefined)).toBe(true)
		expect(resized.mock.calls).toEqual([[{ limiter: 'renders', capacity: 4, key: undefined }]])
		primary.resize(3)
		await quiet()
		expect([one.limiter.capacity, other.limiter.capacity]).toEqual([3, 3])
		for (const limiter of [primary, one.limiter]) {
			expect(() => limiter.resize(0)).toThrow('capacity must be an integer from 1; got 0')
			expect(() => limiter.resize(Number.POSITIVE_INFINITY)).toThrow(RangeError)
		}
	})

	test.each(['none is there', 'it has other news'])(
		'a capacity that a worker sets before the primary answers arrives, as %s',
		async (why) => {
			const primary = newPrimary()
			const worker = new TestWorker(why === 'none is there' ? undefined : primary)
			if (why === 'it has other news') worker.stop()
			worker.limiter.resize(4)
			await quiet()
			worker.limiter.resize(5)
			await quiet()
			worker.primary = primary
			worker.answer(primary.announcement)
			worker.goOn()
			await quiet()
			expect([primary.capacity, worker.limiter.capacity]).toEqual([5, 5])
		},
	)

	test('a weight that changes while at work counts in all processes', async () => {
		const options = { capacity: 4, key: ({ user }: { user: string }) => user }
		const primary = newPrimary(options)
		const worker = new TestWorker(primary, options)
		const ada = { user: 'ada' }
		const held = ask(worker.limiter, ada)
		await quiet()
		held.permit?.weigh(4)
		await quiet()
		const waiting = [ask(primary, ada), ask(worker.limiter, ada)]
		await quiet()
		expect([primary.active, worker.limiter.active, primary.queued]).toEqual([4, 4, 2])
		expect(() => held.permit?.weigh(0)).toThrow(RangeError)
		held.permit?.weigh(7)
		held.permit?.weigh(3)
		await quiet()
		expect([primary.active, worker.limiter.active, primary.queued]).toEqual([4, 3, 1])
		// In one message with the release, which comes last.
		held.permit?.weigh(2)
		held.permit?.release()
		held.permit?.weigh(9)
		await quiet()
		for (const { permit } of waiting) permit?.release()
		await quiet()
		expect([primary.active, worker.limiter.active]).toEqual([0, 0])
		expect([primary.stats().keys, worker.limiter.stats().keys]).toEqual([0, 0])
	})

	test('each key has a limit of its own', async () => {
		const options = { capacity: 1, key: ({ user }: { user?: string }) => user }
		const primary = newPrimary(options)
		const [one, other] = [new TestWorker(primary, options), new TestWorker(primary, options)]
		const long = 'x'.repeat(5_000)
		const seen: unknown[] = []
		one.limiter.observe({
			admitted: ({ key, active, queued }) => seen.push(['admitted', key?.length, active, queued]),
			released: ({ key, active, queued }) => seen.push(['released', key?.length, active, queued]),
		})
		const asked = [one, other, one].map(({ limiter }) => ask(limiter, { user: 'ada' }))
		const others = [one, other].map(({ limiter }) => ask(limiter, { user: long }))
		const exempt = ask(one.limiter, {})
		await quiet()
		expect(asked.map(({ permit }) => permit !== undefined)).toEqual([true, false, false])
		expect(others.map(({ permit }) => permit !== undefined)).toEqual([true, false])
		expect(exempt.permit).toBeDefined()
		expect([primary.stats().keys, one.limiter.stats().keys, one.limiter.active]).toEqual([2, 2, 2])
		expect(
			one.sent.flatMap(({ acquire }) => acquire).every(([, , key]) => (key ?? '').length < 50),
		).toBe(true)
		for (const { permit } of [...asked, ...others]) permit?.release()
		await quiet()
		for (const { permit } of [...asked, ...others]) permit?.release()
		await quiet()
		for (const { permit } of [...asked, ...others]) permit?.release()
		await quiet()
		expect([primary.active, primary.stats().keys, one.limiter.stats().keys]).toEqual([0, 0, 0])
		expect(seen).toContainEqual(['admitted', 3, 1, 1])
		expect(seen).toContainEqual(['released', 5_000, 0, 0])
	})

	test('skip and the other functions are called in the process of the request only', async () => {
		const inPrimary = { skip: vi.fn(() => false), key: vi.fn(() => 'a'), weight: vi.fn(() => 1) }
		const inWorker = { skip: vi.fn(() => false), key: vi.fn(() => 'a'), weight: vi.fn(() => 1) }
		const primary = newPrimary(inPrimary)
		const worker = new TestWorker(primary, inWorker)
		await worker.limiter.run(() => {})
		for (const each of Object.values(inPrimary)) expect(each).not.toHaveBeenCalled()
		for (const each of Object.values(inWorker)) expect(each).toHaveBeenCalledOnce()
		await primary.run(() => {})
		for (const each of Object.values(inPrimary)) expect(each).toHaveBeenCalledOnce()
		inWorker.skip.mockReturnValue(true)
		await worker.limiter.run(() => {})
		expect(worker.limiter.stats().admitted).toBe(1)
	})
})

describe('a request that is over', () => {
	test('leaves the queue at once, and reaches no task', async () => {
		const primary = newPrimary({ capacity: 1 })
		const worker = new TestWorker(primary, { capacity: 1 })
		const held = ask(worker.limiter)
		await quiet()
		const aborter = new AbortController()
		const waiting = ask(worker.limiter, {}, aborter.signal)
		const next = ask(worker.limiter)
		await quiet()
		expect(primary.queued).toBe(2)
		aborter.abort('left')
		await quiet()
		expect([waiting.error, primary.queued, worker.limiter.queued]).toEqual(['left', 1, 1])
		held.permit?.release()
		await quiet()
		expect(next.permit).toBeDefined()
		await expect(worker.limiter.run(() => 'never', {}, { signal: aborter.signal })).rejects.toBe(
			'left',
		)
		expect(worker.limiter.stats().rejected.aborted).toBe(2)
	})

	test('is never asked for if it was over in the same turn', async () => {
		const worker = new TestWorker(newPrimary())
		await quiet()
		const aborter = new AbortController()
		const waiting = ask(worker.limiter, {}, aborter.signal)
		aborter.abort('left')
		await quiet()
		expect([waiting.error, worker.sent.length]).toEqual(['left', 1])
	})

	test('gives back a permit that was on its way', async () => {
		const primary = newPrimary()
		const worker = new TestWorker(primary)
		await quiet()
		const aborter = new AbortController()
		const waiting = ask(worker.limiter, {}, aborter.signal)
		worker.stop()
		await quiet()
		aborter.abort('left')
		await quiet()
		worker.goOn()
		await quiet()
		expect([waiting.error, primary.active, primary.stats().admitted]).toEqual(['left', 0, 1])
	})

	test('and one that arrived before its task could run', async () => {
		const primary = newPrimary()
		const worker = new TestWorker(primary)
		await quiet()
		const aborter = new AbortController()
		const waiting = ask(worker.limiter, {}, aborter.signal)
		worker.limiter.receive({ name: 'renders', turn: 0, capacity: 2, admit: [], reject: [] })
		const { receive } = worker.limiter
		vi.spyOn(worker.limiter, 'receive').mockImplementation((answer) => {
			receive.call(worker.limiter, answer)
			if (answer.admit.length > 0) aborter.abort('left')
		})
		await quiet()
		expect([waiting.error, primary.active, worker.limiter.active]).toEqual(['left', 0, 0])
	})

	test.each(Object.keys(oddSignals))('loses no permit, if its signal %s', async (how) => {
		const primary = newPrimary({ capacity: 1 })
		const worker = new TestWorker(primary, { capacity: 1 })
		for (const { limiter } of [worker, { limiter: primary }]) {
			const held = ask(limiter)
			await quiet()
			const waiting = ask(limiter, {}, oddSignals[how]?.())
			await quiet()
			held.permit?.release()
			await quiet()
			waiting.permit?.release()
			await quiet()
			expect([
				primary.active,
				primary.queued,
				worker.limiter.active,
				worker.limiter.queued,
			]).toEqual([0, 0, 0, 0])
		}
	})

	test('is not asked about', async () => {
		const key = vi.fn(() => 'a')
		const worker = new TestWorker(newPrimary({ key }), { key })
		const aborted = AbortSignal.abort('left')
		await expect(worker.limiter.acquire({}, { signal: aborted })).rejects.toBe('left')
		expect(key).not.toHaveBeenCalled()
		const aborter = new AbortController()
		key.mockImplementation(() => {
			aborter.abort('left')
			return 'a'
		})
		await expect(worker.limiter.acquire({}, { signal: aborter.signal })).rejects.toBe('left')
		await quiet()
		expect(worker.sent.flatMap(({ acquire }) => acquire)).toEqual([])
	})
})

describe('a worker that dies', () => {
	test('gives its permits and its places back at once', async () => {
		const primary = newPrimary()
		const [one, other] = [new TestWorker(primary), new TestWorker(primary)]
		for (let i = 0; i < 4; i++) ask(one.limiter)
		await quiet()
		const waiting = [ask(other.limiter), ask(other.limiter), ask(other.limiter)]
		await quiet()
		expect([primary.active, primary.queued]).toEqual([2, 5])
		one.die()
		await quiet()
		expect(waiting.map(({ permit }) => permit !== undefined)).toEqual([true, true, false])
		expect([primary.active, primary.queued]).toEqual([2, 1])
		one.die()
		expect(primary.active).toBe(2)
	})

	test('keeps the permits of work that goes on after it has disconnected, until it ends', async () => {
		const primary = newPrimary()
		const [one, other] = [new TestWorker(primary), new TestWorker(primary)]
		for (let i = 0; i < 4; i++) ask(one.limiter)
		await quiet()
		const waiting = ask(other.limiter)
		await quiet()
		primary.disconnected(one.answer)
		await quiet()
		expect([waiting.permit, primary.active, primary.queued]).toEqual([undefined, 2, 1])
		one.die()
		await quiet()
		expect([waiting.permit !== undefined, primary.active, primary.queued]).toEqual([true, 1, 0])
	})

	test('loses a permit that was handed over as it died to the next one', async () => {
		const primary = newPrimary({ capacity: 1 })
		const [one, other] = [
			new TestWorker(primary, { capacity: 1 }),
			new TestWorker(primary, { capacity: 1 }),
		]
		const held = ask(primary)
		await quiet()
		ask(one.limiter)
		await quiet()
		const waiting = ask(other.limiter)
		await quiet()
		held.permit?.release()
		one.die()
		await quiet()
		expect([waiting.permit !== undefined, primary.active]).toEqual([true, 1])
	})
})

describe('a primary that does not answer', () => {
	const options = { primaryTimeout: 100, maxWait: 1_000 }

	beforeEach(() => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
	})

	test('rejects what it has not answered, and what comes, until it does', async () => {
		const primary = newPrimary(options)
		const worker = new TestWorker(primary, options)
		const seen: unknown[] = []
		worker.limiter.observe({ availability: ({ available }) => seen.push(available) })
		expect(worker.limiter.available).toBe(false)
		const held = ask(worker.limiter)
		await quiet()
		expect(worker.limiter.available).toBe(true)
		worker.stop()
		const asked = [ask(worker.limiter)]
		await quiet()
		asked.push(ask(worker.limiter))
		await vi.advanceTimersByTimeAsync(99)
		await quiet()
		expect(asked.map(reasonOf)).toEqual(['none', 'none'])
		await vi.advanceTimersByTimeAsync(1)
		await quiet()
		expect(asked.map(reasonOf)).toEqual(['unavailable', 'unavailable'])
		expect(worker.limiter.available).toBe(false)
		asked.push(ask(worker.limiter))
		await Promise.resolve()
		expect(reasonOf(await settled(asked[2]))).toBe('unavailable')
		held.permit?.release()
		worker.goOn()
		await quiet()
		expect([worker.limiter.available, primary.active, primary.queued]).toEqual([true, 0, 0])
		expect(seen).toEqual([false, true])
		expect(codes()).toEqual(['INFLIGHT_PRIMARY_UNAVAILABLE', 'INFLIGHT_PRIMARY_BACK'])
		expect(await worker.limiter.run(() => 'served')).toBe('served')
	})

	test('lets those that it has queued wait, for maxWait and a primaryTimeout at most', async () => {
		const primary = newPrimary({ ...options, capacity: 1 })
		const worker = new TestWorker(primary, { ...options, capacity: 1 })
		ask(worker.limiter)
		const early = ask(worker.limiter)
		await quiet()
		await vi.advanceTimersByTimeAsync(50)
		const later = ask(worker.limiter)
		await quiet()
		worker.stop()
		ask(worker.limiter)
		await quiet()
		await vi.advanceTimersByTimeAsync(1_049)
		await quiet()
		expect([worker.limiter.available, reasonOf(early), reasonOf(later)]).toEqual([
			false,
			'none',
			'none',
		])
		await vi.advanceTimersByTimeAsync(1)
		await quiet()
		expect([reasonOf(early), reasonOf(later)]).toEqual(['timeout', 'none'])
		await vi.advanceTimersByTimeAsync(50)
		await quiet()
		expect(reasonOf(later)).toBe('timeout')
		worker.goOn()
		await quiet()
		expect([primary.active, primary.queued]).toEqual([1, 0])
	})

	test('without a bound on the wait, lets them wait', async () => {
		const endless = { capacity: 1, maxWait: Number.POSITIVE_INFINITY }
		const worker = new TestWorker(newPrimary(endless), endless)
		const [held, waiting] = [ask(worker.limiter), ask(worker.limiter)]
		await quiet()
		expect(vi.getTimerCount()).toBe(0)
		held?.permit?.release()
		await quiet()
		expect(waiting?.permit).toBeDefined()
	})

	test('because none serves the limiter, says so, and serves what comes once one does', async () => {
		const worker = new TestWorker(undefined, options)
		const waiting = ask(worker.limiter)
		await vi.advanceTimersByTimeAsync(100)
		await quiet()
		expect(reasonOf(waiting)).toBe('unavailable')
		expect(warned.mock.calls[0]?.[0]).toMatch(
			/Does the primary call clusterLimiter\(\) with this name, too\?/,
		)
		const primary = newPrimary(options)
		worker.primary = primary
		worker.answer(primary.announcement)
		await quiet()
		expect(worker.limiter.available).toBe(true)
		expect(await worker.limiter.run(() => 'served')).toBe('served')
		await quiet()
		expect(primary.active).toBe(0)
	})

	test('and begins while a message is on its way, is told once', async () => {
		const primary = newPrimary(options)
		const worker = new TestWorker(primary, options)
		await quiet()
		worker.stop()
		const waiting = ask(worker.limiter)
		await quiet()
		worker.answer(primary.announcement)
		worker.goOn()
		await quiet()
		expect([waiting.permit !== undefined, primary.active]).toEqual([true, 1])
		waiting.permit?.release()
		await quiet()
		expect(primary.active).toBe(0)
	})

	test('gets back what it gives to a request that has left before it began', async () => {
		const first = newPrimary(options)
		const worker = new TestWorker(first, options)
		await quiet()
		worker.primary = undefined
		const aborter = new AbortController()
		ask(worker.limiter, {}, aborter.signal)
		await quiet()
		aborter.abort('left')
		await quiet()
		const primary = newPrimary(options)
		worker.primary = primary
		worker.answer(primary.announcement)
		await quiet()
		expect([primary.stats().admitted, primary.active]).toEqual([1, 0])
	})

	test('as it was closed and made anew, is told all again', async () => {
		const first = newPrimary(options)
		const worker = new TestWorker(first, options)
		await worker.limiter.run(() => {})
		await quiet()
		first.close()
		expect(first.over).toBe(true)
		const second = newPrimary(options)
		worker.primary = second
		worker.answer(second.announcement)
		expect(await worker.limiter.run(() => second.active)).toBe(1)
	})

	test('as its channel has closed, rejects all at once', async () => {
		const primary = newPrimary(options)
		const worker = new TestWorker(primary, options)
		const held = [ask(worker.limiter), ask(worker.limiter)]
		const waiting = ask(worker.limiter)
		await quiet()
		worker.limiter.disconnected()
		primary.disconnected(worker.answer)
		await quiet()
		expect(reasonOf(waiting)).toBe('unavailable')
		expect(reasonOf(await settled(ask(worker.limiter)))).toBe('unavailable')
		const messages = worker.sent.length
		for (const { permit } of held) permit?.release()
		await worker.limiter.onIdle()
		await quiet()
		expect([worker.sent.length, worker.limiter.active, vi.getTimerCount()]).toEqual([
			messages,
			0,
			0,
		])
		expect(warned).not.toHaveBeenCalled()
	})
})

/** Waits until something has become of it. */
async function settled<T extends { permit?: Permit; error?: unknown }>(
	asked: T | undefined,
): Promise<T> {
	if (asked === undefined) throw new Error('nothing was asked')
	await vi.waitUntil(() => asked.permit !== undefined || asked.error !== undefined)
	return asked
}

describe('options', () => {
	test.each([
		['capacity', { capacity: 3 }],
		['maxQueue', { maxQueue: Number.POSITIVE_INFINITY }],
		['maxWait', { maxWait: 5 }],
		['key', { key: () => 'a' }],
	])('another %s than that of the primary is a clear error', async (_, differing) => {
		const primary = newPrimary()
		const worker = new TestWorker(undefined, differing)
		const early = ask(worker.limiter, {})
		worker.primary = primary
		worker.limiter.begin()
		await quiet()
		expect(reasonOf(early)).toBe('unavailable')
		const error = await worker.limiter.acquire().catch((reason) => reason)
		expect(error).toMatchObject({ name: 'TypeError', code: 'ERR_INFLIGHT_OPTIONS_DIFFER' })
		expect(error.message).toMatch(
			/^the options of the limiter "renders" must be those that the primary gave, capacity 2, maxQueue 1000, maxWait 10000, no key; got /,
		)
		expect(() => worker.limiter.resize(5)).toThrow(error)
		expect(codes()).toEqual(['INFLIGHT_OPTIONS_DIFFER'])
		expect([worker.limiter.available, primary.capacity, primary.stats().admitted]).toEqual([
			false,
			2,
			0,
		])
	})

	test('that are wrong throw where the limiter is made', () => {
		const make = (options: object) => () =>
			clusterLimiter({ name: 'wrong', capacity: 1, ...options })
		expect(make({ name: undefined })).toThrow(
			'name must be a string of 1 to 64 characters, without control characters',
		)
		expect(make({ capacity: 0 })).toThrow('capacity must be an integer from 1; got 0')
		expect(make({ capacity: Number.POSITIVE_INFINITY })).toThrow(RangeError)
		expect(make({ primaryTimeout: 9 })).toThrow(
			'primaryTimeout must be a number of milliseconds from 10 to 2147483647; got 9',
		)
		expect(make({ primaryTimeout: '9' })).toThrow(TypeError)
		// Configuration in JSON has null where a number is missing.
		for (const name of [
			'maxQueue',
			'maxWait',
			'abandonedTimeout',
			'stallTimeout',
			'statusCode',
			'serverTiming',
			'primaryTimeout',
		]) {
			expect(make({ [name]: null })).toThrow(`${name} must be `)
		}
		expect(make({ maxWeight: 9 })).toThrow(`allowed are ${CLUSTER_LIMITER_OPTIONS.join(', ')}`)
		expect(make({ key: 'user' })).toThrow('key must be a function')
	})

	test('the functions of which return what they must not fail that request only', async () => {
		const options = { key: (context: object) => (context as { key: string }).key }
		const primary = newPrimary(options)
		for (const limiter of [primary, new TestWorker(primary, options).limiter]) {
			await expect(limiter.acquire({ key: Promise.resolve('a') })).rejects.toThrow(
				'what key returns must be a string, a number, a bigint, undefined or null; got a promise',
			)
			expect(await limiter.run(() => 'served', { key: 'a' })).toBe('served')
		}
	})
})

describe('closing', () => {
	test('the live page is told how a worker is set, and when it is closed', async () => {
		const key = (context: object): string => (context as { key: string }).key
		const options = { capacity: 1, key, maxWait: 500 }
		const { limiter } = new TestWorker(newPrimary(options), options)
		const held = ask(limiter, { key: 'ada' })
		await quiet()
		const told = limiter[inspect]()
		expect(told).toMatchObject({ capacity: 'shared', keyed: true, maxWait: 500, closed: false })
		expect([...told.keys()]).toEqual([{ key: 'ada', capacity: 1, active: 1, queued: 0 }])
		held.permit?.release()
		limiter.close()
		expect(limiter[inspect]().closed).toBe(true)
	})

	test('the live page is told what is at work without a client', async () => {
		await expectAbandonedIsCounted(new TestWorker(newPrimary()).limiter)
	})

	test('a worker rejects what waits and what comes there', async () => {
		const primary = newPrimary({ capacity: 1 })
		const [one, other] = [
			new TestWorker(primary, { capacity: 1 }),
			new TestWorker(primary, { capacity: 1 }),
		]
		const held = ask(one.limiter)
		await quiet()
		const [waiting, elsewhere] = [ask(one.limiter), ask(other.limiter)]
		await quiet()
		one.limiter.close()
		expect(one.limiter.over).toBe(false)
		let idle = false
		one.limiter.onIdle().then(() => {
			idle = true
		})
		await quiet()
		expect([reasonOf(waiting), reasonOf(elsewhere), primary.queued, idle]).toEqual([
			'closed',
			'none',
			1,
			false,
		])
		expect(reasonOf(await settled(ask(one.limiter)))).toBe('closed')
		held.permit?.release()
		await quiet()
		expect([elsewhere.permit !== undefined, idle, one.limiter.over]).toEqual([true, true, true])
	})

	test('the primary rejects those of all processes', async () => {
		const primary = newPrimary({ capacity: 1 })
		const worker = new TestWorker(primary, { capacity: 1 })
		const asked = [ask(worker.limiter), ask(worker.limiter)]
		await quiet()
		primary.close()
		asked.push(ask(worker.limiter))
		await quiet()
		expect(asked.map(reasonOf)).toEqual(['none', 'closed', 'closed'])
		expect(primary.over).toBe(false)
		asked[0]?.permit?.release()
		await primary.onIdle()
		expect(primary.over).toBe(true)
	})
})

describe('without workers', () => {
	test('it is the limiter of this process', async () => {
		const limiter = clusterLimiter({
			name: 'alone',
			capacity: 1,
			weight: () => 1,
			skip: () => false,
		})
		expect(limiter.available).toBe(true)
		expect(await limiter.run(({ waited }) => waited)).toBe(0)
		expect(limiter.stats()).toMatchObject({ name: 'alone', capacity: 1, admitted: 1, active: 0 })
		await expect(limiter.run(() => 1, {}, { signal: AbortSignal.abort('left') })).rejects.toBe(
			'left',
		)
	})

	test('one of a name is enough, until it is closed', async () => {
		const make = () => clusterLimiter({ name: 'once', capacity: 1 })
		const first = make()
		expect(make).toThrow(
			'a clusterLimiter named "once" is in this process already: make it once and share it',
		)
		const permit = await first.acquire()
		first.close()
		expect(make).toThrow(expect.objectContaining({ code: 'ERR_INFLIGHT_NAME_TAKEN' }))
		permit.release()
		expect(make()).not.toBe(first)
	})
})
