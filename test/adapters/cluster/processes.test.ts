import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import {
	type ClusterLimiter,
	type ClusterLimiterOptions,
	clusterLimiter,
} from '../../../adapters/cluster/index.js'
import { until } from '../../support/clients.js'
import { scratch } from '../../support/packed.js'

/*
 * Real processes. This one is the primary; the workers are test/adapters/cluster/worker.js, with
 * the package as it was built.
 */

/** So that a failure can be repeated. */
const SEED = Number(process.env.CLUSTER_SEED ?? Math.floor(Math.random() * 2 ** 32))
/** Rounds of kills. */
const KILLS = Number(process.env.CLUSTER_KILLS ?? 8)

/** The workers and limiters of this test. */
let workers: Member[] = []
let limiters: ClusterLimiter[] = []
let names = 0

/** A worker, and what the test tells it. */
class Member {
	readonly worker: Worker
	/** What it sent that nobody asked for. */
	readonly unasked: unknown[] = []
	readonly ready: Promise<unknown>
	readonly #calls = new Map<number, (result: unknown) => void>()

	constructor(env: NodeJS.ProcessEnv = {}) {
		this.worker = cluster.fork(env)
		this.ready = new Promise((resolve) => {
			this.worker.on(
				'message',
				(message: { ready?: boolean; number?: number; result?: unknown }) => {
					if (message.ready) resolve(undefined)
					else if (message.number === undefined) this.unasked.push(message)
					else this.#calls.get(message.number)?.(message.result)
				},
			)
		})
		workers.push(this)
	}

	/** @returns what it answers. */
	call(call: string, given?: unknown): Promise<unknown> {
		const number = this.#calls.size
		const result = new Promise<unknown>((resolve) => this.#calls.set(number, resolve))
		this.worker.send({ call, given, number }, () => {})
		return result
	}

	async end(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
		const { worker } = this
		if (worker.isDead()) return
		const exit = once(worker, 'exit')
		worker.process.kill(signal)
		await exit
	}
}

async function start(options?: object, env?: NodeJS.ProcessEnv): Promise<Member> {
	const member = new Member(env)
	await member.ready
	if (options !== undefined) expect(await member.call('make', options)).toBe('made')
	return member
}

function serve(options: Partial<ClusterLimiterOptions<never>>): {
	limiter: ClusterLimiter
	options: ClusterLimiterOptions
} {
	const given = { name: `limiter ${++names}`, capacity: 2, ...options }
	const limiter = clusterLimiter(given)
	limiters.push(limiter)
	return { limiter, options: given }
}

interface Figures {
	available: boolean
	warnings: string[]
}

const WITHIN = { timeout: 10_000 }

/** Counts the work that goes on in all processes, which is a request to it. */
class Witness {
	atWork = 0
	most = 0
	done = 0
	readonly #server = http.createServer((_, res) => {
		this.most = Math.max(this.most, ++this.atWork)
		const timer = setTimeout(
			() => {
				this.done++
				over()
				res.end()
			},
			1 + Math.random() * 20,
		)
		let open = true
		const over = () => {
			if (open) this.atWork--
			open = false
			clearTimeout(timer)
		}
		// Its process has died.
		res.on('close', over)
	})

	async listen(): Promise<number> {
		this.#server.listen(0, '127.0.0.1')
		await once(this.#server, 'listening')
		return (this.#server.address() as AddressInfo).port
	}

	close(): void {
		this.#server.closeAllConnections()
		this.#server.close()
	}
}

/** mulberry32: the same numbers for the same seed. */
function generator(seed: number): () => number {
	let state = seed
	return () => {
		state = (state + 0x6d2b79f5) | 0
		let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
	}
}

beforeAll(() => {
	vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
	cluster.setupPrimary({ exec: join(import.meta.dirname, 'worker.js'), execArgv: [] })
})

afterEach(async () => {
	await Promise.all(workers.map((member) => member.end()))
	for (const limiter of limiters) {
		expect([limiter.active, limiter.queued]).toEqual([0, 0])
		limiter.close()
	}
	workers = []
	limiters = []
})

afterAll(() => {
	vi.restoreAllMocks()
})

test(`never one over, and no permit lost, through kill -9 in random order (CLUSTER_SEED=${SEED})`, async () => {
	const random = generator(SEED)
	const witness = new Witness()
	const port = await witness.listen()
	const capacity = 5
	const { limiter, options } = serve({ capacity, maxWait: 30_000, primaryTimeout: 30_000 })
	const startWorking = async () => {
		const member = await start(options)
		await member.call('loop', { port, concurrency: 6 })
		return member
	}
	let alive = await Promise.all([1, 2, 3, 4].map(startWorking))
	for (let i = 0; i < KILLS; i++) {
		await sleep(random() * 60)
		const victims = alive.filter(() => random() < 0.4)
		alive = alive.filter((member) => !victims.includes(member))
		const born = victims.map(startWorking)
		await Promise.all(victims.map((member) => member.end()))
		alive.push(...(await Promise.all(born)))
		expect(witness.most).toBeLessThanOrEqual(capacity)
	}
	const before = witness.done
	await until(() => witness.done > before + 20)
	const seen = (await Promise.all(alive.map((member) => member.call('stop')))) as {
		done: number
		rejected: number
	}[]
	for (const { done, rejected } of seen) expect([done > 0, rejected]).toEqual([true, 0])
	await limiter.onIdle()
	expect(witness.most).toBe(capacity)
	expect(witness.atWork).toBe(0)
	witness.close()
})

test('a permit and a place of a worker that dies go to others at once, those of one that stands still do not', async () => {
	const { limiter, options } = serve({ capacity: 1 })
	const [one, other, third] = (await Promise.all([1, 2, 3].map(() => start(options)))) as [
		Member,
		Member,
		Member,
	]
	expect(await one.call('acquire')).toBe('admitted')
	const queued = other.call('acquire')
	await until(() => limiter.queued === 1)
	const last = third.call('acquire')
	await until(() => limiter.queued === 2)
	other.worker.process.kill('SIGSTOP')
	one.worker.process.kill('SIGSTOP')
	await sleep(100)
	expect([limiter.active, limiter.queued]).toEqual([1, 2])
	await one.end()
	// The permit went to the one that stands still, whose turn it was.
	await until(() => limiter.queued === 1)
	expect(limiter.active).toBe(1)
	await other.end()
	expect(await last).toBe('admitted')
	expect(await Promise.race([queued, 'never'])).toBe('never')
})

test('order is kept over processes', async () => {
	const { limiter, options } = serve({ capacity: 1 })
	const members = await Promise.all([1, 2, 3].map(() => start(options)))
	const first = await limiter.acquire()
	const admitted: number[] = []
	for (let place = 0; place < 9; place++) {
		const member = members[place % 3] as Member
		member.call('acquire').then(() => {
			admitted.push(place)
			member.call('release')
		})
		await until(() => limiter.queued === place + 1)
	}
	first.release()
	await limiter.onIdle()
	await until(() => admitted.length === 9)
	expect(admitted).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
})

test('a primary that is busy is unavailable within primaryTimeout, and comes back', async () => {
	const { limiter, options } = serve({ capacity: 1, primaryTimeout: 200 })
	const member = await start(options)
	expect(await member.call('acquire')).toBe('admitted')
	const late = member.call('acquire')
	await until(() => limiter.queued === 1)
	const results = [member.call('acquire'), member.call('acquire')]
	// The messages to the worker are on their way; what it says then is not heard.
	const end = performance.now() + 2_000
	while (performance.now() < end);
	for (const result of await Promise.all(results)) {
		expect(result).toEqual({ reason: 'unavailable', after: expect.any(Number) })
		expect((result as { after: number }).after).toBeLessThan(1_900)
	}
	await member.call('release')
	// It was queued before, and has kept its place.
	expect(await late).toBe('admitted')
	await member.call('release')
	await limiter.onIdle()
	expect(await member.call('figures')).toMatchObject({
		available: true,
		warnings: ['INFLIGHT_PRIMARY_UNAVAILABLE', 'INFLIGHT_PRIMARY_BACK'],
		rejected: { unavailable: 2 },
	})
})

test('a worker that is busy itself does not take the primary for unavailable', async () => {
	const { options } = serve({ primaryTimeout: 500 })
	const member = await start(options)
	expect(await member.call('acquireBusy', 1_500)).toBe('admitted')
	expect(await member.call('figures')).toMatchObject({ available: true, warnings: [] })
})

test('without a limiter in the primary, requests are rejected within primaryTimeout, until there is one', async () => {
	const options = { name: 'unserved', capacity: 1, primaryTimeout: 300 }
	const member = await start(options)
	expect(await member.call('acquire')).toEqual({ reason: 'unavailable', after: expect.any(Number) })
	expect(await member.call('figures')).toMatchObject({
		available: false,
		warnings: ['INFLIGHT_PRIMARY_UNAVAILABLE'],
	})
	const { limiter } = serve(options)
	await vi.waitUntil(async () => ((await member.call('figures')) as Figures).available, WITHIN)
	expect(await member.call('acquire')).toBe('admitted')
	expect(limiter.active).toBe(1)
})

test('a worker with other options than the primary gets an error that says so', async () => {
	const { options } = serve({})
	const member = await start({ ...options, capacity: 3 })
	const warned = async () => ((await member.call('figures')) as Figures).warnings[0]
	await vi.waitUntil(async () => (await warned()) === 'INFLIGHT_OPTIONS_DIFFER', WITHIN)
	expect(await member.call('acquire')).toMatchObject({
		reason: expect.stringMatching(
			/^the options of the limiter .* capacity 2, .*; got capacity 3, /,
		),
	})
})

test('a worker that disconnects gives its places up, its permits only when it ends, and ends', async () => {
	const { limiter, options } = serve({ capacity: 1 })
	const member = await start(options)
	expect(await member.call('acquire')).toBe('admitted')
	member.call('acquire')
	await until(() => limiter.queued === 1)
	const { worker } = member
	const [exit, disconnect] = [once(worker, 'exit'), once(worker, 'disconnect')]
	worker.process.kill('SIGSTOP')
	worker.disconnect()
	worker.process.disconnect()
	await disconnect
	await until(() => limiter.queued === 0)
	expect(limiter.active).toBe(1)
	worker.process.kill('SIGCONT')
	await exit
	expect(limiter.active).toBe(0)
})

test('messages of others pass, both ways', async () => {
	const { options } = serve({})
	const member = await start(options)
	const heard: unknown[] = []
	const listen = (_: Worker, message: object) => {
		if (!('inflight-limit.ask' in message)) heard.push(message)
	}
	cluster.on('message', listen)
	expect(await member.call('acquire')).toBe('admitted')
	cluster.off('message', listen)
	expect(heard).toEqual([{ number: 1, result: 'admitted' }])
	member.worker.send({ 'inflight-limit.answer': { name: options.name, turn: 'wrong' } })
	expect(await member.call('acquire')).toBe('admitted')
})

test('both builds of the package have one limiter of a name in a process', async () => {
	const { options } = serve({})
	const member = await start(options)
	expect(await member.call('both', options)).toBe('ERR_INFLIGHT_NAME_TAKEN')
})

describe('with advanced serialization', () => {
	beforeAll(() => {
		cluster.setupPrimary({ serialization: 'advanced' })
	})
	afterAll(() => {
		cluster.setupPrimary({ serialization: 'json' })
	})

	test('it works as well', async () => {
		const { limiter, options } = serve({ capacity: 1, maxWait: Number.POSITIVE_INFINITY })
		const member = await start(options)
		expect(await member.call('acquire')).toBe('admitted')
		const waiting = member.call('acquire')
		await until(() => limiter.queued === 1)
		await member.call('release')
		expect(await waiting).toBe('admitted')
	})
})

describe('under PM2', () => {
	const { folder, remove } = scratch()
	const worker = join(import.meta.dirname, 'worker.js')
	afterAll(() => {
		remove()
		cluster.setupPrimary({ exec: worker })
	})

	test.each([
		['its cluster mode, it throws', 'ProcessContainer.js', 'ERR_INFLIGHT_NO_PRIMARY'],
		['its fork mode, with a cluster of its own, it does not', 'ProcessContainerFork.js', 'made'],
	])('in %s', async (_, name, result) => {
		const { options } = serve({})
		// The file that PM2 starts, which then loads the program.
		writeFileSync(join(folder, name), `import(${JSON.stringify(worker)})`)
		cluster.setupPrimary({ exec: join(folder, name) })
		const member = await start(undefined, { pm_id: '0' })
		expect(await member.call('make', options)).toBe(result)
	})
})
