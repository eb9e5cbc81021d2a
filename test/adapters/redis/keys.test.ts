import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { limit } from '../../../adapters/express.js'
import type { redisLimiter } from '../../../adapters/redis/index.js'
import {
	ALWAYS,
	describeRedis,
	endAll,
	later,
	onPool,
	type Pool,
	type Server,
	servers,
	startPool,
	startWorker,
	WHEN_BUSY,
} from '../../support/redis.js'
import { Bench } from '../../support/redis-bench.js'

/* One limit for each key, in the whole fleet. */

vi.spyOn(process, 'emitWarning').mockImplementation(() => {})

/** With a quarter of it Redis can be waited for through the pauses of a busy machine. */
const LEASE = 2_000

/** Tests at a time. */
const AT_ONCE = 4

class KeyBench extends Bench {
	constructor(server: Server) {
		const key = ({ url }: { url: string }) => (url === '/free' ? undefined : url)
		super(server, { lease: LEASE, key })
	}

	/** Some that have joined. */
	readonly joined = async (size: number, options: Parameters<Bench['make']>[0] = {}) => {
		const all = await Promise.all(Array.from({ length: size }, () => this.make(options)))
		const join = (limiter: (typeof all)[0]) =>
			vi.waitFor(() => limiter.run(() => {}, { key: 'warm' }), 10_000)
		await Promise.all(all.map(join))
		return all as [(typeof all)[0], (typeof all)[0]]
	}

	/** What the books have of keys and permits. */
	readonly left = async (): Promise<string[]> => {
		const fields = await this.admin.hkeys(this.key())
		return fields.filter((field) => field.startsWith('=') || field.includes(':'))
	}
}

/** Counts the tasks at work, by key. */
function gauge() {
	const working = new Map<string, number>()
	const seen = { most: 0, together: 0, served: 0 }
	let all = 0
	const work = (limiter: ReturnType<typeof redisLimiter>, key: string, ms: number): Promise<void> =>
		later(
			limiter.run(
				async () => {
					working.set(key, (working.get(key) ?? 0) + 1)
					seen.most = Math.max(seen.most, working.get(key) as number)
					seen.together = Math.max(seen.together, ++all)
					await sleep(ms)
					working.set(key, (working.get(key) as number) - 1)
					all--
					seen.served++
				},
				{ key },
			),
		)
	return { seen, work }
}

describeRedis.each(servers)('%s', { concurrent: true, retry: WHEN_BUSY }, (binary) => {
	let pool: Pool

	beforeAll(async () => {
		pool = await startPool(AT_ONCE, [], binary)
	})
	afterAll(endAll)

	const onBench = (body: (bench: KeyBench) => Promise<void>): Promise<void> =>
		onPool(pool, (server) => new KeyBench(server), body)

	test('each key has its own permits and its own queue, in order', () =>
		onBench(async ({ admin, key, joined, left }) => {
			const fleet = await joined(3)
			const { seen, work } = gauge()
			const all: Promise<void>[] = []
			for (let i = 0; i < 60; i++) {
				for (const key of ['a', 'b', 'c']) all.push(work(fleet[i % 3] as (typeof fleet)[0], key, 5))
			}
			await Promise.all(all)
			expect(seen.most, ALWAYS).toBe(2)
			expect(seen).toEqual({ most: 2, together: 6, served: 180 })
			const [one, other] = fleet as [(typeof fleet)[0], (typeof fleet)[0]]
			const held = [await one.acquire({ key: 'a' }), await one.acquire({ key: 'a' })]
			const tokens: number[] = []
			const waiting: Promise<void>[] = []
			const come = async (place: number): Promise<void> => {
				const permit = await (place % 2 ? one : other).acquire({ key: 'a' })
				tokens[place] = permit.token
				await sleep(5)
				permit.release()
			}
			for (const place of [0, 1, 2, 3]) {
				waiting.push(come(place))
				await vi.waitFor(async () => expect(await admin.zcard(key(':queue'))).toBe(place + 1))
			}
			await other.run(() => {}, { key: 'b', maxWait: 0 })
			for (const permit of held) permit.release()
			await Promise.all(waiting)
			expect(tokens).toEqual([...tokens].sort((x, y) => x - y))
			await vi.waitFor(async () => expect(await left()).toEqual([]), 5_000)
			expect(one.stats()).toMatchObject({ keys: 0, active: 0, queued: 0 })
		}))

	test('hostile keys are but keys: none is another’s, and none leaves its place', () =>
		onBench(async ({ admin, make, joined, left }) => {
			const [limiter] = await joined(1, { capacity: 1 })
			const keys = [
				...[
					'',
					' ',
					'=',
					':',
					'=a',
					'a:b',
					'a:b:1',
					'head',
					'run',
					'gen',
					'*',
					'?',
					'[a-z]',
					'{b}',
					'}',
					'\0',
					'\n',
				],
				...[
					'__proto__',
					'constructor',
					'é',
					'e\u0301',
					'\u{1F600}',
					...['\uD800', '\uD801', '\uDC00', '\uFFFD'],
					'x'.repeat(1_000_000),
					'-1',
					'0',
					'00',
				],
			]
			const permits = await Promise.all(keys.map((key) => limiter.acquire({ key })))
			for (const key of keys) {
				await expect(limiter.acquire({ key, maxWait: 0 })).rejects.toMatchObject({
					reason: 'timeout',
				})
			}
			expect(await admin.keys('*')).toHaveLength(2)
			for (const permit of permits) permit.release()
			await vi.waitFor(async () => expect(await left()).toEqual([]), 5_000)
			await expect(() => limiter.acquire({ key: 3 as never })).rejects.toThrow(
				'key must be a string; got 3',
			)
			await expect(() => limiter.acquire()).rejects.toThrow('key must be a string')
			const plain = await make({ key: undefined as never, name: 'plain' })
			await expect(() => plain.acquire({ key: 'a' })).rejects.toThrow('this one has none')
		}))

	test('in a server: 429 with a queue of its own; undefined is not limited', () =>
		onBench(async ({ joined }) => {
			// Until it is known that nobody was there, nothing is free.
			const [limiter] = await joined(1, { capacity: 1, maxQueue: 0 })
			const go: (() => void)[] = []
			const guard = limit(limiter)
			const web = http.createServer((req, res) =>
				guard(req, res, () => go.push(() => res.end('done'))),
			)
			await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve))
			const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}`
			const rejected = vi.fn()
			limiter.observe({ rejected })
			const served = [
				fetch(`${url}/a`),
				fetch(`${url}/b`),
				fetch(`${url}/free`),
				fetch(`${url}/free`),
			]
			await vi.waitFor(() => expect(go.length).toBe(4), 5_000)
			const full = await fetch(`${url}/a`)
			expect(full.status).toBe(429)
			expect(await full.json()).toMatchObject({ reason: 'queue-full' })
			expect(rejected).toHaveBeenCalledWith(
				expect.objectContaining({ key: '/a', active: 1, queued: 0 }),
			)
			for (const end of go) end()
			await Promise.all(served)
			web.close()
			web.closeAllConnections()
		}))

	test('a process that dies gives back what it held of each key; renewals cost no more with a thousand keys', () =>
		onBench(async ({ server, admin, name, joined, left }) => {
			const [limiter] = await joined(1, { capacity: 1, maxWait: 10_000 })
			const options = { name, capacity: 1, lease: LEASE }
			const worker = await startWorker({
				port: server.port,
				probePort: server.port,
				concurrency: 0,
				keys: 1_000,
				options,
			})
			for (let place = 0; place < 1_000; place++) await worker.take(place)
			await worker.admitted(999)
			await admin.config('RESETSTAT')
			await sleep(LEASE)
			const sent = Number(/cmdstat_evalsha:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1])
			expect(sent).toBeLessThan(12)
			const waiting = Array.from({ length: 1_000 }, (_, i) =>
				later(limiter.run(() => {}, { key: `key ${i}` })),
			)
			await sleep(100)
			await worker.kill()
			const since = performance.now()
			await Promise.all(waiting)
			expect(performance.now() - since).toBeLessThan(3 * LEASE)
			await vi.waitFor(async () => expect(await left()).toEqual([]), 5_000)
		}))

	test.each(['FLUSHALL', 'CLIENT KILL', 'a stall'])('through %s, for each key', (what) =>
		onBench(async ({ server, admin, joined, left }) => {
			const [a, b] = await joined(2, { whenUnavailable: 'reject', maxWait: 15_000 })
			const { seen, work } = gauge()
			const keys = Array.from({ length: 20 }, (_, i) => `key ${i}`)
			const all = keys.flatMap((key) => [work(a, key, LEASE), work(a, key, LEASE)])
			await vi.waitFor(() => expect(seen.together).toBe(40), 3_000)
			if (what === 'FLUSHALL') await admin.flushall()
			else if (what === 'CLIENT KILL')
				await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
			else {
				server.pause()
				setTimeout(() => server.resume(), 700)
			}
			await sleep(what === 'a stall' ? 900 : 0)
			await vi.waitFor(() => b.run(() => {}, { key: 'other' }), 5_000)
			for (const key of keys) all.push(work(b, key, 5), work(a, key, 5))
			await Promise.all(all)
			expect(seen.most, ALWAYS).toBe(2)
			expect(seen.served).toBe(80)
			await vi.waitFor(async () => expect(await left()).toEqual([]), 3_000)
		}),
	)

	test('a limiter of the same name without keys is another limit', () =>
		onBench(async ({ make, joined }) => {
			const [[keyed], plain] = [await joined(1), await make({ key: undefined as never })]
			const held = [1, 2].map(() => keyed.acquire({ key: 'a' }))
			await Promise.all(held)
			const permits = await Promise.all([plain.acquire(), plain.acquire()])
			expect([keyed.stats().fleet.processes, plain.stats().fleet.processes]).toEqual([1, 1])
			for (const permit of [...permits, ...(await Promise.all(held))]) permit.release()
		}))

	test('what a release could not delete is nobody’s permit, and nobody’s place, when its process leaves', () =>
		onBench(async ({ admin, key, joined }) => {
			const [a, b] = await joined(2, { capacity: 1 })
			const processes = async () =>
				(await admin.hkeys(key())).filter((field) => /^p[\w-]{12}$/.test(field))
			const before = await processes()
			const [leaving] = await joined(1, { capacity: 1 })
			const [process] = (await processes()).filter((field) => !before.includes(field))
			await admin.hset(
				key(),
				`${process}:${await admin.hget(key(), process as string)}:released`,
				'0',
			)
			const held = await a.acquire({ key: 'a' })
			const waiting = later(b.acquire({ key: 'a', maxWait: 3 * LEASE }))
			await vi.waitFor(async () => expect(await admin.zcard(key(':queue'))).toBe(1), 5_000)
			leaving.close()
			await leaving.onIdle()
			await vi.waitFor(async () => expect(await processes()).toEqual(before), 5_000)
			// The one that waits is still known to wait.
			await a.resize(2)
			;(await waiting).release()
			held.release()
		}))

	test('Redis away: each process goes on with what it held of a key', () =>
		onBench(async ({ server, joined }) => {
			const [a, b] = await joined(2, { lease: 8_000, redisTimeout: 500 })
			const held = [
				await a.acquire({ key: 'a' }),
				await a.acquire({ key: 'a' }),
				await b.acquire({ key: 'b' }),
			]
			server.pause()
			const [more, none] = [
				later(a.acquire({ key: 'a', maxWait: 5_000 })),
				b.acquire({ key: 'a', maxWait: 5_000 }),
			]
			none.catch(() => {})
			await vi.waitFor(() => expect(a.available || b.available).toBe(false), 4_000)
			held[0]?.release()
			expect((await more).token).toBe(0)
			await expect(none).rejects.toMatchObject({ reason: 'unavailable' })
			server.resume()
			await vi.waitFor(() => expect(a.available && b.available).toBe(true), 3_000)
			await expect(b.acquire({ key: 'a', maxWait: 100 })).rejects.toMatchObject({
				reason: 'timeout',
			})
			;(await more).release()
			held[1]?.release()
			held[2]?.release()
			await b.run(() => {}, { key: 'a', weight: 2 })
		}))

	// For as many as there may be: KEYS=100000 npx vitest run test/adapters/redis/keys.test.ts
	test('many keys: nothing is left of them', { timeout: 120_000 }, () =>
		onBench(async ({ admin, joined, left }) => {
			const keys = Number(process.env.KEYS ?? 5_000)
			const fleet = await joined(4, { lease: 5_000 })
			const memory = async () => Number(/used_memory:(\d+)/.exec(await admin.info('memory'))?.[1])
			const before = await memory()
			let next = 0
			const since = performance.now()
			const workers = fleet.flatMap((limiter) =>
				Array.from({ length: 50 }, async () => {
					while (next < keys) await limiter.run(() => {}, { key: `key ${next++}` })
				}),
			)
			await Promise.all(workers)
			const pace = Math.round(keys / ((performance.now() - since) / 1_000))
			await Promise.all(fleet.map((limiter) => limiter.onIdle()))
			expect(await left()).toEqual([])
			process.stdout.write(
				`      ${keys} keys: ${pace} a second, ${(await memory()) - before} bytes left\n`,
			)
			expect((await memory()) - before).toBeLessThan(2_000_000)
			for (const limiter of fleet)
				expect(limiter.stats()).toMatchObject({ keys: 0, rejected: { unavailable: 0 } })
		}),
	)
})
