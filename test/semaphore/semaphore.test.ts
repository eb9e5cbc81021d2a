import { AsyncLocalStorage } from 'node:async_hooks'
import { execFileSync } from 'node:child_process'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { RejectedError } from '../../src/errors.js'
import type { Permit } from '../../src/semaphore/permit.js'
import { Semaphore } from '../../src/semaphore/semaphore.js'

afterEach(() => {
	vi.useRealTimers()
})

/** Lets all that is settled run. */
function settle(): Promise<void> {
	return new Promise((resolve) => setImmediate(resolve))
}

/** Collects what becomes of promises, in the order in which it does. */
function watch(): {
	log: string[]
	add(name: string, promise: Promise<Permit>): Promise<Permit | undefined>
} {
	const log: string[] = []
	return {
		log,
		add(name, promise) {
			return promise.then(
				(permit) => {
					log.push(name)
					return permit
				},
				(error) => {
					log.push(`${name}: ${error instanceof RejectedError ? error.reason : String(error)}`)
					return undefined
				},
			)
		},
	}
}

describe('permits', () => {
	test('there are never more at work than the capacity', async () => {
		const semaphore = new Semaphore(3)
		let active = 0
		let highest = 0
		await Promise.all(
			Array.from({ length: 50 }, () =>
				semaphore.run(async () => {
					highest = Math.max(highest, ++active)
					expect(semaphore.active).toBeLessThanOrEqual(3)
					await settle()
					active--
				}),
			),
		)
		expect(highest).toBe(3)
		expect(semaphore.active).toBe(0)
		expect(semaphore.queued).toBe(0)
	})

	test('a permit counts its release once', async () => {
		const semaphore = new Semaphore(2)
		const first = await semaphore.acquire()
		await semaphore.acquire()
		first.release()
		first.release()
		first[Symbol.dispose]()
		expect(semaphore.active).toBe(1)
		expect(semaphore.available).toBe(1)
	})

	test('a late second release frees nobody else’s permit', async () => {
		const semaphore = new Semaphore(1)
		const first = await semaphore.acquire()
		const second = semaphore.acquire()
		first.release()
		await second
		first.release()
		expect(semaphore.active).toBe(1)
	})

	test('using gives the permit back at the end of its block', async () => {
		const semaphore = new Semaphore(1)
		{
			using permit = await semaphore.acquire()
			expect(permit.waited).toBe(0)
			expect(semaphore.active).toBe(1)
		}
		expect(semaphore.active).toBe(0)
	})

	test('tryAcquire takes a permit, or nothing', () => {
		const semaphore = new Semaphore(1)
		const permit = semaphore.tryAcquire()
		expect(permit?.waited).toBe(0)
		expect(semaphore.tryAcquire()).toBeUndefined()
		permit?.release()
		expect(semaphore.tryAcquire()).toBeDefined()
	})

	test('tryAcquire takes nothing while anyone waits, even with room for it', async () => {
		const semaphore = new Semaphore(3)
		const held = await semaphore.acquire({ weight: 2 })
		const heavy = semaphore.acquire({ weight: 2 })
		expect(semaphore.available).toBe(1)
		expect(semaphore.tryAcquire()).toBeUndefined()
		held.release()
		await heavy
		expect(semaphore.tryAcquire()).toBeDefined()
	})

	test('Infinity bounds nothing and counts all', async () => {
		const semaphore = new Semaphore(Number.POSITIVE_INFINITY)
		const permits = await Promise.all(Array.from({ length: 100 }, () => semaphore.acquire()))
		expect(semaphore.active).toBe(100)
		expect(semaphore.available).toBe(Number.POSITIVE_INFINITY)
		for (const permit of permits) permit.release()
		expect(semaphore.active).toBe(0)
	})
})

describe('order', () => {
	test('first come, first served', async () => {
		const semaphore = new Semaphore(1)
		const { log, add } = watch()
		const first = await semaphore.acquire()
		const waiting = ['a', 'b', 'c'].map((name) => add(name, semaphore.acquire()))
		expect(semaphore.queued).toBe(3)
		first.release()
		for (const promise of waiting) (await promise)?.release()
		expect(log).toEqual(['a', 'b', 'c'])
	})

	test('a permit is handed over: active does not dip, and no newcomer gets in between', async () => {
		const semaphore = new Semaphore(1)
		const first = await semaphore.acquire()
		const { log, add } = watch()
		add('waiter', semaphore.acquire())
		first.release()
		expect(semaphore.active).toBe(1)
		expect(semaphore.queued).toBe(0)
		expect(semaphore.tryAcquire()).toBeUndefined()
		add('newcomer', semaphore.acquire())
		await settle()
		expect(log).toEqual(['waiter'])
	})

	test('a heavy caller at the head waits for its whole weight, and no caller passes it', async () => {
		const semaphore = new Semaphore(3)
		const holders = [
			await semaphore.acquire(),
			await semaphore.acquire(),
			await semaphore.acquire(),
		]
		const { log, add } = watch()
		add('heavy', semaphore.acquire({ weight: 2 }))
		add('light', semaphore.acquire())
		holders[0]?.release()
		await settle()
		expect(log).toEqual([])
		expect(semaphore.available).toBe(1)
		holders[1]?.release()
		await settle()
		expect(log).toEqual(['heavy'])
		holders[2]?.release()
		await settle()
		expect(log).toEqual(['heavy', 'light'])
		expect(semaphore.active).toBe(3)
	})

	test('when the heavy caller at the head gives up, those behind it get the room there is', async () => {
		const semaphore = new Semaphore(2)
		await semaphore.acquire()
		const { log, add } = watch()
		const aborter = new AbortController()
		add('heavy', semaphore.acquire({ weight: 2, signal: aborter.signal }))
		add('light', semaphore.acquire())
		aborter.abort('gave up')
		await settle()
		expect(log).toEqual(['light', 'heavy: gave up'].sort((a, b) => log.indexOf(a) - log.indexOf(b)))
		expect(semaphore.active).toBe(2)
		expect(semaphore.queued).toBe(0)
	})

	test('200,000 waiters that release synchronously drain without growing the stack', async () => {
		const semaphore = new Semaphore(1)
		const first = await semaphore.acquire()
		let done = 0
		const all = Array.from({ length: 200_000 }, () =>
			semaphore.acquire().then((permit) => {
				done++
				permit.release()
			}),
		)
		first.release()
		await Promise.all(all)
		expect(done).toBe(200_000)
		expect(semaphore.active).toBe(0)
	})

	test('a waiter goes on in its own async context, not in that of the one that released', async () => {
		const storage = new AsyncLocalStorage<string>()
		const semaphore = new Semaphore(1)
		const first = await semaphore.acquire()
		const seen: Promise<string | undefined>[] = []
		storage.run('waiter', () => {
			seen.push(semaphore.acquire().then(() => storage.getStore()))
		})
		storage.run('releaser', () => first.release())
		expect(await seen[0]).toBe('waiter')
	})

	test('what a waiter throws does not reach the one that released', async () => {
		const semaphore = new Semaphore(1)
		const first = await semaphore.acquire()
		const failing = semaphore.acquire().then(() => {
			throw new Error('mine')
		})
		expect(() => first.release()).not.toThrow()
		await expect(failing).rejects.toThrow('mine')
	})
})

describe('giving up', () => {
	test('an aborted signal rejects with its reason and takes no permit', async () => {
		const semaphore = new Semaphore(1)
		const reason = new Error('no longer needed')
		await expect(semaphore.acquire({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
		expect(semaphore.active).toBe(0)
	})

	test('a signal that is aborted during the wait rejects with its reason and leaves the queue at once', async () => {
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		const aborter = new AbortController()
		const waiting = semaphore.acquire({ signal: aborter.signal })
		aborter.abort('left')
		expect(semaphore.queued).toBe(0)
		await expect(waiting).rejects.toBe('left')
		held.release()
		expect(semaphore.active).toBe(0)
	})

	test('a signal that is aborted after the permit was given changes nothing', async () => {
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		const aborter = new AbortController()
		const waiting = semaphore.acquire({ signal: aborter.signal })
		held.release()
		aborter.abort()
		const permit = await waiting
		expect(semaphore.active).toBe(1)
		permit.release()
		expect(semaphore.active).toBe(0)
	})

	test('a long-lived signal keeps no listener, and 1,000 waiters on it cause no warning', async () => {
		const warnings: Error[] = []
		const onWarning = (warning: Error): number => warnings.push(warning)
		process.on('warning', onWarning)
		const semaphore = new Semaphore(1)
		const { signal } = new AbortController()
		const added = vi.spyOn(signal, 'addEventListener')
		const removed = vi.spyOn(signal, 'removeEventListener')
		await Promise.all(Array.from({ length: 1000 }, () => semaphore.run(() => settle(), { signal })))
		await settle()
		expect(added).toHaveBeenCalledTimes(1)
		expect(removed).toHaveBeenCalledTimes(1)
		expect(warnings).toEqual([])
		process.off('warning', onWarning)
	})

	test('100,000 waiters can have one signal, and leave by it', async () => {
		const semaphore = new Semaphore(0)
		const aborter = new AbortController()
		let left = 0
		for (let i = 0; i < 100_000; i++) {
			semaphore.acquire({ signal: aborter.signal }).catch(() => left++)
		}
		aborter.abort()
		expect(semaphore.queued).toBe(0)
		await settle()
		expect(left).toBe(100_000)
	})

	test('of the waiters that leave by one signal, none gets the permit of another', async () => {
		const semaphore = new Semaphore(2)
		await semaphore.acquire()
		const aborter = new AbortController()
		const { signal } = aborter
		const { log, add } = watch()
		add('too heavy', semaphore.acquire({ weight: 2, signal }))
		add('light', semaphore.acquire({ signal }))
		add('other', semaphore.acquire())
		aborter.abort('left')
		expect([semaphore.active, semaphore.queued]).toEqual([2, 0])
		await settle()
		expect(log.sort()).toEqual(['light: left', 'other', 'too heavy: left'])
	})

	test('a permit that a listener of the same signal gives back goes to no aborted waiter', async () => {
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		const aborter = new AbortController()
		const { signal } = aborter
		signal.addEventListener('abort', () => held.release())
		const { log, add } = watch()
		add('aborted', semaphore.acquire({ signal }))
		add('other', semaphore.acquire())
		aborter.abort('left')
		await settle()
		expect(log.sort()).toEqual(['aborted: left', 'other'])
		expect([semaphore.active, semaphore.queued]).toEqual([1, 0])
	})

	test('100,000 waiters can leave from the middle in random order', async () => {
		const semaphore = new Semaphore(0)
		const aborters = Array.from({ length: 100_000 }, () => new AbortController())
		let left = 0
		for (const { signal } of aborters) {
			semaphore.acquire({ signal }).catch(() => left++)
		}
		const order = aborters.map((aborter, index) => ({ aborter, at: (index * 7919) % 100_003 }))
		order.sort((a, b) => a.at - b.at)
		for (const { aborter } of order) aborter.abort()
		expect(semaphore.queued).toBe(0)
		await settle()
		expect(left).toBe(100_000)
	})

	test('maxWait of the semaphore rejects with timeout, that of a caller goes before it', async () => {
		vi.useFakeTimers()
		const semaphore = new Semaphore(1, { maxWait: 1000 })
		await semaphore.acquire()
		const { log, add } = watch()
		add('default', semaphore.acquire())
		add('own', semaphore.acquire({ maxWait: 500 }))
		add('endless', semaphore.acquire({ maxWait: Number.POSITIVE_INFINITY }))
		await vi.advanceTimersByTimeAsync(499)
		expect(log).toEqual([])
		await vi.advanceTimersByTimeAsync(1)
		expect(log).toEqual(['own: timeout'])
		await vi.advanceTimersByTimeAsync(500)
		expect(log).toEqual(['own: timeout', 'default: timeout'])
		expect(semaphore.queued).toBe(1)
		expect(vi.getTimerCount()).toBe(0)
	})

	test('a maxWait of 0 never waits', async () => {
		const semaphore = new Semaphore(1, { maxWait: 0 })
		const permit = await semaphore.acquire()
		await expect(semaphore.acquire()).rejects.toMatchObject({ reason: 'timeout' })
		permit.release()
		await semaphore.acquire()
	})

	test('waited is how long the permit was waited for, in ms', async () => {
		vi.useFakeTimers()
		const semaphore = new Semaphore(1, { maxWait: 1000 })
		const first = await semaphore.acquire()
		const waiting = semaphore.acquire()
		vi.advanceTimersByTime(250)
		first.release()
		expect((await waiting).waited).toBe(250)
		expect(vi.getTimerCount()).toBe(0)
	})

	test('a full queue rejects with queue-full, and says so with figures', async () => {
		const semaphore = new Semaphore(1, { maxQueue: 1 })
		await semaphore.acquire()
		semaphore.acquire()
		const error = await semaphore.acquire().catch((error) => error)
		expect(error).toBeInstanceOf(RejectedError)
		expect(error).toMatchObject({
			name: 'RejectedError',
			code: 'ERR_INFLIGHT_REJECTED',
			reason: 'queue-full',
			retryAfter: 1,
			message: 'Rejected (queue-full): try again in 1 s',
			active: 1,
			capacity: 1,
			queued: 1,
		})
		expect(semaphore.queued).toBe(1)
	})

	test('a place in the queue is free again when its waiter has left', async () => {
		const semaphore = new Semaphore(1, { maxQueue: 1 })
		await semaphore.acquire()
		const aborter = new AbortController()
		const first = semaphore.acquire({ signal: aborter.signal })
		aborter.abort('left')
		await expect(first).rejects.toBe('left')
		semaphore.acquire()
		expect(semaphore.queued).toBe(1)
	})

	test.each([
		[
			'with a bound settles, although nothing else keeps the program alive',
			'{ maxWait: 50 }',
			'timeout',
		],
		['without a bound does not keep the program alive', '{}', ''],
	])('a wait %s', (_, options, said) => {
		// A program of its own, on the built package.
		const program = `
			import { Semaphore } from 'inflight-limit'
			const semaphore = new Semaphore(1)
			await semaphore.acquire()
			semaphore.acquire(${options}).catch((error) => console.log(error.reason))`
		const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
			cwd: new URL('..', import.meta.url),
			encoding: 'utf8',
			timeout: 20_000,
		})
		expect(output.trim()).toBe(said)
	})
})

describe('what the user replaced', () => {
	afterEach(() => {
		vi.unstubAllGlobals()
	})

	/** Nothing of a failed wait is left, and the semaphore goes on as if it had never begun. */
	async function expectUnharmed(semaphore: Semaphore, held: Permit): Promise<void> {
		expect([semaphore.active, semaphore.queued]).toEqual([1, 0])
		const next = semaphore.acquire()
		const idle = semaphore.onIdle()
		held.release()
		;(await next).release()
		await idle
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
	}

	test('timers may be numbers', async () => {
		const timers: NodeJS.Timeout[] = []
		const { setTimeout, clearTimeout } = globalThis
		vi.stubGlobal('setTimeout', (...args: Parameters<typeof setTimeout>) =>
			timers.push(setTimeout(...args)),
		)
		vi.stubGlobal('clearTimeout', (timer: number) => clearTimeout(timers[timer - 1]))
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		await expect(semaphore.acquire({ maxWait: 5 })).rejects.toMatchObject({ reason: 'timeout' })
		const waiting = semaphore.acquire({ maxWait: 60_000 })
		held.release()
		await expectUnharmed(semaphore, await waiting)
		expect(timers).toHaveLength(2)
	})

	test.each([
		['setTimeout', new AbortController().signal],
		['addEventListener', undefined],
	])('a wait fails when %s throws, and leaves nothing behind', async (name, signal) => {
		const fail = (): never => {
			throw new Error('mine')
		}
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		const removed = vi.fn()
		const own = { aborted: false, addEventListener: fail, removeEventListener: removed }
		if (name === 'setTimeout') vi.stubGlobal('setTimeout', fail)
		await expect(semaphore.acquire({ maxWait: 100, signal: signal ?? own })).rejects.toThrow('mine')
		vi.unstubAllGlobals()
		await expectUnharmed(semaphore, held)
	})

	test('a setTimeout that calls back at once rejects at once', async () => {
		vi.stubGlobal('setTimeout', (callback: (arg: unknown) => void, _ms: number, arg: unknown) =>
			callback(arg),
		)
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		await expect(semaphore.acquire({ maxWait: 100 })).rejects.toMatchObject({ reason: 'timeout' })
		await expectUnharmed(semaphore, held)
	})

	test('a permit is handed over, although neither clearTimeout nor removeEventListener works', async () => {
		const fail = (): never => {
			throw new Error('mine')
		}
		let due = (): void => {}
		let abort = (): void => {}
		vi.stubGlobal('setTimeout', (callback: (arg: unknown) => void, _ms: number, arg: unknown) => {
			due = () => callback(arg)
			return 1
		})
		vi.stubGlobal('clearTimeout', fail)
		const signal = {
			aborted: false,
			addEventListener(_type: string, listener: { handleEvent(): void }) {
				abort = () => listener.handleEvent()
			},
			removeEventListener: fail,
		}
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		const waiting = semaphore.acquire({ maxWait: 100, signal })
		held.release()
		const permit = await waiting
		// Both come too late.
		due()
		abort()
		await expectUnharmed(semaphore, permit)
		due()
		abort()
		expect([semaphore.active, semaphore.queued]).toEqual([0, 0])
	})
})

describe('run', () => {
	test('gives the result of the task, and the permit back', async () => {
		const semaphore = new Semaphore(1)
		expect(await semaphore.run(() => 'sync')).toBe('sync')
		expect(await semaphore.run(async (permit) => permit.waited)).toBe(0)
		expect(semaphore.active).toBe(0)
	})

	test('gives the permit back when the task throws or rejects, and passes the error on', async () => {
		const semaphore = new Semaphore(1)
		const thrown = semaphore.run(() => {
			throw new Error('thrown')
		})
		await expect(thrown).rejects.toThrow('thrown')
		await expect(semaphore.run(() => Promise.reject(new Error('rejected')))).rejects.toThrow(
			'rejected',
		)
		expect(semaphore.active).toBe(0)
	})

	test('never runs a task whose signal was aborted, before, during or right after its wait', async () => {
		const semaphore = new Semaphore(1)
		const task = vi.fn()
		await expect(semaphore.run(task, { signal: AbortSignal.abort('before') })).rejects.toBe(
			'before',
		)

		const held = await semaphore.acquire()
		const during = new AbortController()
		const first = semaphore.run(task, { signal: during.signal })
		during.abort('during')
		await expect(first).rejects.toBe('during')

		const after = new AbortController()
		const second = semaphore.run(task, { signal: after.signal })
		held.release()
		after.abort('after')
		await expect(second).rejects.toBe('after')

		expect(task).not.toHaveBeenCalled()
		expect(semaphore.active).toBe(0)
	})

	test('rejects what is not a function', async () => {
		const semaphore = new Semaphore(1)
		await expect(semaphore.run('task' as never)).rejects.toThrow(
			'task must be a function; got "task"',
		)
		expect(semaphore.active).toBe(0)
	})
})

describe('resize', () => {
	test('upwards admits waiters at once, in order', async () => {
		const semaphore = new Semaphore(1)
		await semaphore.acquire()
		const { log, add } = watch()
		for (const name of ['a', 'b', 'c']) add(name, semaphore.acquire())
		semaphore.resize(3)
		expect(semaphore.active).toBe(3)
		expect(semaphore.queued).toBe(1)
		await settle()
		expect(log).toEqual(['a', 'b'])
	})

	test('downwards lets holders finish, and nobody in before there is room', async () => {
		const semaphore = new Semaphore(3)
		const holders = [
			await semaphore.acquire(),
			await semaphore.acquire(),
			await semaphore.acquire(),
		]
		semaphore.resize(1)
		expect(semaphore.active).toBe(3)
		expect(semaphore.available).toBe(0)
		const { log, add } = watch()
		add('waiter', semaphore.acquire())
		holders[0]?.release()
		holders[1]?.release()
		await settle()
		expect(log).toEqual([])
		holders[2]?.release()
		await settle()
		expect(log).toEqual(['waiter'])
		expect(semaphore.capacity).toBe(1)
	})

	test('a waiter that it makes too heavy is admitted when nothing else is at work', async () => {
		const semaphore = new Semaphore(3)
		const holders = [await semaphore.acquire(), await semaphore.acquire()]
		const { log, add } = watch()
		const heavy = add('heavy', semaphore.acquire({ weight: 3 }))
		add('light', semaphore.acquire())
		semaphore.resize(2)
		holders[0]?.release()
		await settle()
		expect(log).toEqual([])
		holders[1]?.release()
		await settle()
		expect(log).toEqual(['heavy'])
		expect(semaphore.active).toBe(3)
		expect(semaphore.available).toBe(0)
		;(await heavy)?.release()
		await settle()
		expect(log).toEqual(['heavy', 'light'])
	})

	test('a capacity of 0 lets nobody in until it grows', async () => {
		const semaphore = new Semaphore(0)
		expect(semaphore.tryAcquire()).toBeUndefined()
		const { log, add } = watch()
		add('heavy', semaphore.acquire({ weight: 5 }))
		await settle()
		expect(log).toEqual([])
		semaphore.resize(5)
		await settle()
		expect(log).toEqual(['heavy'])
	})
})

describe('weigh', () => {
	test('upwards takes more at once, beyond the capacity, and others wait longer', async () => {
		const semaphore = new Semaphore(3)
		const permit = await semaphore.acquire()
		const { log, add } = watch()
		permit.weigh(5)
		expect([semaphore.active, semaphore.available]).toEqual([5, 0])
		const other = add('other', semaphore.acquire({ weight: 2 }))
		permit.weigh(2)
		await settle()
		expect(log).toEqual([])
		permit.weigh(1)
		await settle()
		expect(log).toEqual(['other'])
		permit.release()
		expect(semaphore.active).toBe(2)
		;(await other)?.release()
		expect(semaphore.active).toBe(0)
	})

	test('downwards gives the rest back at once, also for one that waited', async () => {
		const semaphore = new Semaphore(3)
		const first = await semaphore.acquire({ weight: 3 })
		const second = semaphore.acquire({ weight: 2 })
		const third = semaphore.acquire({ weight: 2 })
		first.weigh(1)
		const waited = await second
		expect([semaphore.active, semaphore.queued]).toEqual([3, 1])
		waited.weigh(1)
		expect([semaphore.active, semaphore.queued]).toEqual([2, 1])
		first.release()
		;(await third).release()
		waited.release()
		await semaphore.onIdle()
		expect(semaphore.active).toBe(0)
	})

	test('after the release it does nothing', async () => {
		const semaphore = new Semaphore(1)
		const permit = await semaphore.acquire()
		permit.release()
		permit.weigh(2)
		permit.release()
		expect(semaphore.active).toBe(0)
	})

	test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])(
		'%o is an error, and changes nothing',
		async (weight) => {
			const semaphore = new Semaphore(1)
			const permit = await semaphore.acquire()
			expect(() => permit.weigh(weight)).toThrow(`weight must be an integer from 1; got ${weight}`)
			expect(semaphore.active).toBe(1)
		},
	)
})

describe('close and onIdle', () => {
	test('close rejects waiters and newcomers; holders finish', async () => {
		const semaphore = new Semaphore(2)
		const held = await semaphore.acquire()
		const { log, add } = watch()
		// The light one would fit into the room there is, once the heavy one has gone.
		add('heavy', semaphore.acquire({ weight: 2 }))
		add('light', semaphore.acquire())
		semaphore.close()
		add('newcomer', semaphore.acquire())
		expect(semaphore.tryAcquire()).toBeUndefined()
		await settle()
		expect(log.sort()).toEqual(['heavy: closed', 'light: closed', 'newcomer: closed'])
		expect(semaphore.active).toBe(1)
		held.release()
		expect(semaphore.active).toBe(0)
		await expect(semaphore.run(() => 1)).rejects.toMatchObject({ reason: 'closed', retryAfter: 1 })
	})

	test('onIdle resolves at once when nothing is active or queued', async () => {
		await new Semaphore(1).onIdle()
	})

	test('onIdle resolves for all that ask, when the last permit is back, and not before', async () => {
		const semaphore = new Semaphore(1)
		const held = await semaphore.acquire()
		const waiting = semaphore.acquire()
		let idle = 0
		for (let i = 0; i < 3; i++) semaphore.onIdle().then(() => idle++)
		held.release()
		await settle()
		expect(idle).toBe(0)
		;(await waiting).release()
		await settle()
		expect(idle).toBe(3)
	})

	test('onIdle resolves when the last waiter gives up and nothing is held', async () => {
		const semaphore = new Semaphore(0)
		const aborter = new AbortController()
		const waiting = semaphore.acquire({ signal: aborter.signal }).catch(() => 'left')
		const idle = semaphore.onIdle()
		aborter.abort()
		await idle
		expect(await waiting).toBe('left')
	})
})

test('waiters that waited too long while the event loop was busy are not admitted, however many', async () => {
	const semaphore = new Semaphore(1)
	const held = semaphore.tryAcquire()
	const late = Promise.allSettled(
		Array.from({ length: 20_000 }, () => semaphore.acquire({ maxWait: 10 })),
	)
	const patient = semaphore.acquire({ maxWait: 60_000 })
	const end = performance.now() + 30
	while (performance.now() < end);
	held?.release()
	const permit = await patient
	expect(
		new Set((await late).map((each) => each.status === 'rejected' && each.reason.reason)),
	).toEqual(new Set(['timeout']))
	expect([semaphore.active, semaphore.queued]).toEqual([1, 0])
	permit.release()
	await semaphore.onIdle()
})

test('a resize that finds only such as have waited too long leaves the semaphore idle', async () => {
	const semaphore = new Semaphore(0)
	const late = semaphore.acquire({ maxWait: 10 }).catch((error: RejectedError) => error.reason)
	const idle = semaphore.onIdle()
	const end = performance.now() + 30
	while (performance.now() < end);
	semaphore.resize(1)
	expect(await late).toBe('timeout')
	await idle
})

describe('retryAfter', () => {
	test('comes from the pace at which permits came back while there was no room', async () => {
		vi.useFakeTimers()
		const semaphore = new Semaphore(2, { maxQueue: 9 })
		const held = [semaphore.tryAcquire(), semaphore.tryAcquire()]
		const waiting = Array.from({ length: 9 }, () => semaphore.acquire())
		// One permit comes back each second: four of them.
		for (let i = 0; i < 4; i++) {
			await vi.advanceTimersByTimeAsync(1000)
			held.shift()?.release()
			held.push(await waiting.shift())
			waiting.push(semaphore.acquire())
		}
		// Nine wait, and one more at one a second.
		await expect(semaphore.acquire()).rejects.toMatchObject({
			reason: 'queue-full',
			retryAfter: 10,
		})
		// Nothing came back for as long again, and what came before weighs a little less: the pace
		// falls by more than half.
		await vi.advanceTimersByTimeAsync(4000)
		await expect(semaphore.acquire()).rejects.toMatchObject({ retryAfter: 23 })
		await vi.advanceTimersByTimeAsync(3_600_000)
		await expect(semaphore.acquire()).rejects.toMatchObject({ retryAfter: 60 })
	})

	test('time with room to spare says nothing about the pace', async () => {
		vi.useFakeTimers()
		const semaphore = new Semaphore(1, { maxQueue: 0 })
		for (let i = 0; i < 5; i++) {
			const held = semaphore.tryAcquire()
			await expect(semaphore.acquire()).rejects.toMatchObject({ retryAfter: i === 0 ? 1 : 2 })
			vi.advanceTimersByTime(2000)
			held?.release()
			vi.advanceTimersByTime(600_000)
		}
	})
})

test('heavy permits that come back in a busy turn are handed on at once in the next', async () => {
	const heavy = 1e9
	const semaphore = new Semaphore(heavy)
	const work = () => {
		const begun = performance.now()
		while (performance.now() - begun < 11);
	}
	await Promise.all(Array.from({ length: 4 }, () => semaphore.run(work, { weight: heavy })))
	expect(semaphore.active).toBe(0)
})

test('a permit that has become heavy and light again in a busy turn makes room', async () => {
	const semaphore = new Semaphore(1)
	const permit = await semaphore.acquire()
	permit.weigh(1e9)
	const work = (given: { release(): void }) => {
		const begun = performance.now()
		while (performance.now() - begun < 11);
		given.release()
	}
	const waiters = [1, 2, 3].map(() => semaphore.acquire().then(work))
	permit.weigh(1)
	permit.release()
	await Promise.all(waiters)
	expect(semaphore.active).toBe(0)
})

test('weights are bounded, so that their sum stays exact', async () => {
	const semaphore = new Semaphore(Number.POSITIVE_INFINITY)
	const permit = await semaphore.acquire()
	expect(() => permit.weigh(Number.MAX_SAFE_INTEGER)).toThrow(RangeError)
	await expect(semaphore.acquire({ weight: 2 ** 41 })).rejects.toThrow(
		'weight must be at most 2^40, 1099511627776; got 2199023255552',
	)
	permit.weigh(2 ** 40)
	permit.release()
	expect(semaphore.active).toBe(0)
})
