import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { decode, encode, join, keysOf } from '../../../adapters/redis/protocol.js'
import { SCRIPT } from '../../../adapters/redis/script.js'
import {
	ALWAYS,
	describeRedis,
	endAll,
	type Figures,
	type Pool,
	type Relay,
	type Server,
	startPool,
	startRelay,
	startServer,
	startWorker,
	WHEN_BUSY,
	type Worker,
	type WorkerOptions,
} from '../../support/redis.js'

/*
 * Some processes and one limit, with all that can go wrong. A probe counts the work
 * in another Redis, which knows nothing of the limiter.
 */

const LEASE = 2_000

/** Fleets at a time: more would make the machine busy, and then their leases end. */
const AT_ONCE = 3

let names = 0

/** Some processes, with a Redis of their own and a probe. */
class Fleet {
	readonly name = `fleet ${++names}`
	readonly server: Server
	workers: Worker[] = []
	readonly probe: Redis
	readonly #probePort: number
	readonly #relays: Relay[] = []

	constructor(server: Server, probeServer: Server) {
		this.server = server
		this.#probePort = probeServer.port
		this.probe = new Redis(probeServer.port, '127.0.0.1')
	}

	async start(
		size: number,
		given: Partial<Omit<WorkerOptions, 'options'>> & { options?: object } = {},
	): Promise<Worker[]> {
		const { port } = this.server
		const options = {
			name: this.name,
			capacity: 6,
			lease: LEASE,
			redisTimeout: LEASE / 4,
			...given.options,
		}
		const each = { port, probePort: this.#probePort, ...given, options }
		const all = await Promise.allSettled(Array.from({ length: size }, () => startWorker(each)))
		const started = all.flatMap((one) => (one.status === 'fulfilled' ? one.value : []))
		// Those that did start are ended with the test.
		this.workers.push(...started)
		for (const one of all) if (one.status === 'rejected') throw one.reason
		return started
	}

	async relay(): Promise<Relay> {
		const relay = await startRelay(this.server.port)
		this.#relays.push(relay)
		return relay
	}

	async kill(worker: Worker): Promise<void> {
		this.workers = this.workers.filter((other) => other !== worker)
		await worker.kill()
		// What it had sent to the probe is read first.
		await sleep(50)
		await this.probe.hdel('working', worker.id)
	}

	/** What the probe has seen. */
	async seen(): Promise<{ most: number; over: number; count: number }> {
		const { probe } = this
		const [most, over, count] = await Promise.all([
			probe.get('most'),
			probe.get('over'),
			probe.llen('log'),
		])
		return { most: Number(most), over: Number(over), count }
	}

	/** Until the probe has seen so many admissions more than now, or so many in all. */
	async admissions(more: number, before?: number, within = 20_000): Promise<void> {
		const until = (before ?? (await this.seen()).count) + more
		const patience = performance.now() + within
		while ((await this.seen()).count < until) {
			if (performance.now() > patience) throw new Error(`not ${more} admissions in ${within} ms`)
			await sleep(5)
		}
	}

	/** Checks that work goes on: 30 admissions within a lease. Returns how many that is a second. */
	async pace(): Promise<number> {
		const since = performance.now()
		await this.admissions(30, undefined, LEASE)
		return Math.round(30_000 / (performance.now() - since))
	}

	/** Until Redis has answered each: one that it never did may take one permit all the same. */
	async known(): Promise<void> {
		const until = performance.now() + 20_000
		for (const worker of this.workers) {
			while ((await worker.figures()).stats.fleet.processes < 2) {
				if (performance.now() > until) throw new Error(`Redis has not answered ${worker.id}`)
				await sleep(20)
			}
		}
	}

	async stop(): Promise<Figures[]> {
		const all = await Promise.all(this.workers.map((worker) => worker.stop()))
		this.workers = []
		return all
	}

	async end(): Promise<void> {
		await Promise.all(this.workers.map((worker) => worker.kill()))
		for (const relay of this.#relays) relay.close()
		await this.probe.flushall()
		this.probe.disconnect()
		this.server.resume()
		const admin = new Redis(this.server.port, '127.0.0.1')
		await admin.flushall()
		admin.disconnect()
	}
}

function print(what: string, figures: object): void {
	process.stdout.write(`      ${what}: ${JSON.stringify(figures)}\n`)
}

let pool: Pool
let probes: Server[]

beforeAll(async () => {
	const started = [
		startPool(AT_ONCE),
		Promise.all(Array.from({ length: AT_ONCE }, () => startServer())),
	]
	;[pool, probes] = (await Promise.all(started)) as [Pool, Server[]]
})
afterAll(endAll)

async function withFleet(body: (fleet: Fleet) => Promise<void>): Promise<void> {
	const server = await pool.take()
	const probe = probes.pop() as Server
	const fleet = new Fleet(server, probe)
	try {
		await body(fleet)
	} finally {
		await fleet.end()
		pool.give(server)
		probes.push(probe)
	}
}

// Some wait until others have given their servers back.
describeRedis(
	'a fleet of processes',
	{ concurrent: true, retry: WHEN_BUSY, timeout: 400_000 },
	() => {
		// For longer, and with other seeds: TORTURE=60000 SEEDS=1,2,3,4 npx vitest run
		// test/adapters/redis/fleet.test.ts -t torture
		const seeds = (process.env.SEEDS ?? '1').split(',').map(Number)
		const tortures = seeds.flatMap((seed) => [['reject', seed] as const, ['local', seed] as const])
		test.each(tortures)(
			'torture, with %j and the seed %i: all that can happen, at random; then the whole capacity is back',
			(whenUnavailable, seed) =>
				withFleet(async (fleet) => {
					const { server, probe } = fleet
					const options = { whenUnavailable }
					await fleet.start(6, { options })
					await fleet.known()
					await probe.del('most', 'over')
					const key = `inflight:{${encodeURIComponent(fleet.name)}}`
					const random = seeded(seed)
					/** By a connection that lives no longer. */
					const call = async (...command: [string, ...string[]]): Promise<void> => {
						const client = new Redis(server.port, { retryStrategy: null, lazyConnect: true })
						client.on('error', () => {})
						try {
							await client.connect()
							await client.call(...command)
						} catch {
							// It was killed itself, or Redis is away.
						}
						client.disconnect()
					}
					const oneOf = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T
					const keys = ['', ':queue', ':leases'].map((suffix) => key + suffix)
					const commands = [
						'evalsha',
						'eval',
						'publish',
						'hset',
						'hdel',
						'zadd',
						'zrem',
						'info',
						'subscribe',
					]
					const actions: Record<string, () => Promise<unknown>> = {
						connections: () => call('CLIENT', 'KILL', 'TYPE', 'normal'),
						subscriptions: () => call('CLIENT', 'KILL', 'TYPE', 'pubsub'),
						process: async () => {
							await fleet.kill(oneOf(fleet.workers))
							await fleet.start(1, { options })
						},
						restart: async () => {
							await server.kill()
							await sleep(random() * 500)
							await server.start()
						},
						FLUSHALL: () => call('FLUSHALL'),
						eviction: () => call('DEL', oneOf(keys)),
						junk: () => call('SET', oneOf(keys), 'junk'),
						scripts: () => call('SCRIPT', 'FLUSH'),
						stall: async () => {
							server.pause()
							await sleep(random() * 1.5 * LEASE)
							server.resume()
						},
						memory: async () => {
							await call('CONFIG', 'SET', 'maxmemory', '1')
							await sleep(random() * 500)
							await call('CONFIG', 'SET', 'maxmemory', '0')
						},
						replica: async () => {
							await call('REPLICAOF', '127.0.0.1', '1')
							await sleep(random() * 500)
							await call('REPLICAOF', 'NO', 'ONE')
						},
						rename: async () => {
							const key = oneOf(keys)
							await call('RENAME', key, 'elsewhere')
							await sleep(random() * 500)
							await call('RENAME', 'elsewhere', key)
						},
						rights: async () => {
							await call('ACL', 'SETUSER', 'default', `-${oneOf(commands)}`)
							await sleep(random() * 500)
							await call('ACL', 'SETUSER', 'default', '+@all')
						},
					}
					const done: Record<string, number> = {}
					const until = performance.now() + Number(process.env.TORTURE ?? 8_000)
					while (performance.now() < until) {
						await sleep(random() * 800)
						const what = oneOf(Object.keys(actions))
						done[what] = (done[what] ?? 0) + 1
						await actions[what]?.()
					}
					const since = performance.now()
					await call('ACL', 'SETUSER', 'default', '+@all')
					// All of the capacity at work again: after the longest pause between two attempts to join,
					// and a lease.
					const working = async () => {
						const counts = await probe.hvals('working')
						return counts.reduce((sum, count) => sum + Number(count), 0)
					}
					await vi.waitFor(async () => expect(await working()).toBeGreaterThanOrEqual(6), {
						timeout: 1_000 + 3 * LEASE,
						interval: 5,
					})
					const back = performance.now() - since
					await fleet.pace()
					print('torture', { whenUnavailable, seed, ...done, ...(await fleet.seen()), back })
					// What docs/redis.md says of 'local': at most twice the capacity.
					expect((await fleet.seen()).most, ALWAYS).toBeLessThanOrEqual(
						whenUnavailable === 'reject' ? 6 : 12,
					)
				}),
		)

		test('never more than the capacity at work, and no wait is long; then nothing is left in Redis', () =>
			withFleet(async (fleet) => {
				await fleet.start(8, { turns: true })
				await fleet.known()
				await fleet.admissions(300)
				const figures = await fleet.stop()
				const found = await fleet.seen()
				const [turns, waits] = [
					figures.flatMap(({ turns }) => turns),
					figures.flatMap(({ waits }) => waits),
				]
				const [median, longest] = [medianOf(turns), Math.max(...turns)]
				const ms = { median: medianOf(waits), longest: Math.max(...waits) }
				print('cap', { ...found, turns: { median, longest }, ms })
				expect(found.most, ALWAYS).toBe(6)
				// By how many others Redis let in meanwhile: that does not depend on a busy machine.
				expect(longest / median, ALWAYS).toBeLessThanOrEqual(2)
				const client = new Redis(fleet.server.port)
				expect(await client.keys('*')).toEqual([])
				client.disconnect()
			}))

		test('1,000 waiting: next to no commands, woken by a message, in the order of their arrival at Redis', () =>
			withFleet(async (fleet) => {
				const processes = 8
				const workers = await fleet.start(processes, {
					concurrency: 0,
					// All arrive before the first is admitted: on a busy machine that takes long.
					options: { lease: 10_000, redisTimeout: 2_000, maxWait: 120_000 },
				})
				const of = (place: number): Worker => workers[place % processes] as Worker
				// One after the other: each only when Redis knows of the one before.
				for (let place = 0; place < 6; place++) {
					await of(place).take(place)
					await of(place).admitted(place)
				}
				for (let place = 6; place < 1_006; place++) await of(place).take(place, 2)

				const client = new Redis(fleet.server.port)
				const sent = async (): Promise<number> => {
					const stats = await client.info('commandstats')
					const calls = stats.matchAll(
						/cmdstat_(?:eval|evalsha|ping|subscribe|script\|\w+):calls=(\d+)/g,
					)
					return [...calls].reduce((sum, [, count]) => sum + Number(count), 0)
				}
				const before = await sent()
				// A little longer than the time between two renewals.
				await sleep(2_600)
				const commands = (await sent()) - before
				client.disconnect()

				for (let place = 0; place < 6; place++) of(place).give(place)
				const all = []
				for (let place = 0; place < 1_006; place++)
					all.push({ place, ...(await of(place).released(place)) })
				// Tokens rise with each admission: they show the order in which Redis admitted, and not that
				// in which processes learned it.
				const admissions = all.sort((a, b) => a.token - b.token)
				let [outOfOrder, first] = [0, Number.POSITIVE_INFINITY]
				for (const { place } of admissions.toReversed()) {
					if (place > first) outOfOrder++
					first = Math.min(first, place)
				}
				// Each release wakes one, in their order.
				const releases = all.map(({ until }) => until).sort((a, b) => a - b)
				const wake = medianOf(admissions.slice(6).map(({ at }, i) => at - (releases[i] as number)))
				print('1,000 waiting', {
					commandsIn2600Ms: commands,
					wakeMedian: wake,
					outOfOrder: outOfOrder / 1_006,
				})
				expect(commands).toBeLessThanOrEqual(2 * processes)
				expect(wake).toBeLessThan(50)
				// One whose renewal is answered before its message is read has a later token.
				expect(outOfOrder / 1_006).toBeLessThanOrEqual(0.01)
			}))

		test('after a loss of memory, a process that is back learns that others may be missing', () =>
			withFleet(async ({ server }) => {
				const client = new Redis(server.port)
				const keys = keysOf('told', false)
				const request = join({
					lease: 2_000,
					ttl: 1_800,
					absence: 1_500,
					youth: 3_000,
					generation: '1',
					configured: 6,
					resizing: undefined,
					token: 0,
					capacity: 6,
					secret: 'secret',
					policy: false,
					held: [{ id: 'a', weight: 1, account: '', ticket: 0 }],
				})
				const args = encode(request, { process: 'p', session: 1 })
				const answer = decode(request, await client.eval(SCRIPT, 3, ...keys, ...args))
				expect(answer).toMatchObject({
					is: 'joined',
					fleet: { capacity: 6, active: 1, grace: true },
				})
				client.disconnect()
			}))

		/** One process that is at work on all permits, for longer than the test. */
		async function holder(fleet: Fleet): Promise<Worker> {
			const [one] = await fleet.start(1, { hold: 60_000, concurrency: 6 })
			await fleet.admissions(6, 0)
			return one as Worker
		}

		test('what a killed process held, and its places in the queue, come back within the lease', () =>
			withFleet(async (fleet) => {
				const dead = await holder(fleet)
				await fleet.start(4)
				await fleet.known()
				const since = performance.now()
				await fleet.kill(dead)
				await fleet.admissions(1)
				const took = performance.now() - since
				print('SIGKILL of the holder of all, back after ms', {
					took,
					lease: LEASE,
					...(await fleet.seen()),
				})
				expect(took).toBeLessThanOrEqual(LEASE + 100)
				expect((await fleet.seen()).over, ALWAYS).toBe(0)
			}))

		test('a killed waiter delays nobody', () =>
			withFleet(async (fleet) => {
				await fleet.start(3, { concurrency: 0 })
				const [holder, dead, next] = fleet.workers as [Worker, Worker, Worker]
				for (let place = 0; place < 6; place++) {
					await holder.take(place)
					await holder.admitted(place)
				}
				const client = new Redis(fleet.server.port)
				const queued = (count: number) =>
					vi.waitFor(
						async () =>
							expect(await client.zcard(keysOf(fleet.name, false)[1] as string)).toBe(count),
						10_000,
					)
				await dead.take(6)
				await queued(1)
				await next.take(7)
				await queued(2)
				client.disconnect()
				await fleet.kill(dead)
				holder.give(0)
				const [{ until }, { at }] = await Promise.all([holder.released(0), next.admitted(7)])
				print('SIGKILL of the first waiter, ms until the next is in', {
					took: at - until,
					lease: LEASE,
				})
				expect(at - until).toBeLessThan(LEASE / 8)
			}))

		test('two of six killed at their work', () =>
			withFleet(async (fleet) => {
				await fleet.start(6)
				await fleet.admissions(50)
				await fleet.kill(fleet.workers[0] as Worker)
				await fleet.kill(fleet.workers[0] as Worker)
				await sleep(LEASE)
				await fleet.pace()
				const found = await fleet.seen()
				print('SIGKILL of two of six', found)
				expect(found.over, ALWAYS).toBe(0)
			}))

		test('a process that was stopped for longer than the lease learns it before it does any work', () =>
			withFleet(async (fleet) => {
				const stopped = await holder(fleet)
				await fleet.start(3)
				stopped.child.kill('SIGSTOP')
				// It is not at work while it is stopped; the probe would count it.
				await fleet.probe.hdel('working', stopped.id)
				await sleep(LEASE * 1.2)
				const pace = await fleet.pace()
				stopped.child.kill('SIGCONT')
				await sleep(500)
				const { lost, workAfterLoss } = await stopped.figures()
				const { over } = await fleet.seen()
				print('SIGSTOP of the holder of all', { pace, lost, workAfterLoss, over })
				expect(lost).toBe(6)
				expect(workAfterLoss).toBe(0)
				expect(over, ALWAYS).toBe(0)
			}))

		test('Redis killed, and back with nothing in it', () =>
			withFleet(async (fleet) => {
				await fleet.start(4)
				await fleet.admissions(20)
				for (let i = 0; i < 3; i++) {
					await fleet.server.kill()
					await sleep(i * 300)
					await fleet.server.start()
					await sleep(800)
				}
				await sleep(LEASE)
				const pace = await fleet.pace()
				const found = await fleet.seen()
				print('killed three times, back empty', { ...found, pace })
				expect(found.over, ALWAYS).toBe(0)
			}))

		test.each(['stalled', 'away'])('Redis %s for 3 s', (how) =>
			withFleet(async (fleet) => {
				await fleet.start(4)
				await fleet.known()
				await fleet.admissions(20)
				if (how === 'stalled') fleet.server.pause()
				else await fleet.server.kill()
				await sleep(3_000)
				if (how === 'stalled') fleet.server.resume()
				else await fleet.server.start()
				await sleep(LEASE + 500)
				const pace = await fleet.pace()
				const found = await fleet.seen()
				print(how, { ...found, pace })
				expect(found.over, ALWAYS).toBe(0)
			}),
		)

		test('a network that is cut for one process, with whenUnavailable: reject', () =>
			withFleet(async (fleet) => {
				const options = { whenUnavailable: 'reject' }
				const relay = await fleet.relay()
				await Promise.all([
					fleet.start(3, { options }),
					fleet.start(1, { port: relay.port, options }),
				])
				await fleet.known()
				relay.stall()
				await sleep(3_000)
				relay.flow()
				await sleep(LEASE)
				const found = await fleet.seen()
				const rejected = (await Promise.all(fleet.workers.map((worker) => worker.figures()))).map(
					(f) => f.rejected,
				)
				print('network cut for one of four', { ...found, rejected })
				expect(found.over, ALWAYS).toBe(0)
			}))

		test.each(['killed', 'asked to step down'])(
			'a replica that takes over from a master that was %s',
			(how) =>
				withFleet(async (fleet) => {
					const { server } = fleet
					const master = new Redis(server.port)
					master.on('error', () => {})
					await master.config('SET', 'repl-diskless-sync-delay', '0')
					const replica = await startServer(['--replicaof', '127.0.0.1', String(server.port)])
					const other = new Redis(replica.port)
					other.on('error', () => {})
					while (!(await other.info('replication')).includes('master_link_status:up'))
						await sleep(20)
					const relay = await fleet.relay()
					await fleet.start(4, { port: relay.port })
					await fleet.known()
					await fleet.admissions(20)
					if (how === 'killed') {
						await server.kill()
						await other.replicaof('NO', 'ONE')
					} else {
						await master.call('FAILOVER')
						while (!(await other.info('replication')).includes('role:master')) await sleep(5)
					}
					relay.leadTo(replica.port)
					relay.cut()
					await sleep(LEASE + 500)
					const pace = await fleet.pace()
					const found = await fleet.seen()
					const answered = await Promise.all(fleet.workers.map((worker) => worker.figures()))
					// For the next test.
					if (how === 'killed') await server.start()
					else await master.replicaof('NO', 'ONE')
					await replica.kill()
					master.disconnect()
					other.disconnect()
					print(`replica, of a master that was ${how}`, { ...found, pace })
					expect(found.over, ALWAYS).toBe(0)
					for (const { stats } of answered)
						expect([stats.available, stats.fleet.processes]).toEqual([true, 4])
				}),
		)
	},
)

describeRedis('a fleet of processes, alone', { retry: WHEN_BUSY }, () => {
	test('clocks that are 5 s off, and event loops that are blocked for half a lease again and again', () =>
		withFleet(async (fleet) => {
			const options = { whenUnavailable: 'reject' }
			await Promise.all([
				fleet.start(2, { options }),
				fleet.start(1, { options, clock: 5_000 }),
				fleet.start(1, { options, clock: -5_000 }),
				fleet.start(1, { options, block: LEASE / 2 }),
			])
			await fleet.known()
			const worked = async () =>
				Math.min(...(await Promise.all(fleet.workers.map((w) => w.figures()))).map((f) => f.done))
			await vi.waitFor(async () => expect(await worked()).toBeGreaterThan(5), {
				timeout: 20_000,
				interval: 100,
			})
			const found = await fleet.seen()
			const figures = await Promise.all(fleet.workers.map((worker) => worker.figures()))
			const [done, lost] = [figures.map(({ done }) => done), figures.map(({ lost }) => lost)]
			print('clocks and blocked loops', { ...found, done, lost })
			expect(found.over, ALWAYS).toBe(0)
			expect(Math.max(...lost)).toBe(0)
		}))
})

function medianOf(numbers: number[]): number {
	return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] as number
}

/** Numbers from 0 to 1, the same with each seed (mulberry32). */
function seeded(seed: number): () => number {
	let state = seed
	return () => {
		state = (state + 0x6d2b79f5) | 0
		let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
	}
}
