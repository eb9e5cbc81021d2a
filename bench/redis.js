// One limit for many processes, beside redis-semaphore: npm run bench:redis (needs redis-server). With the argument
// `bottleneck` beside that too, whose scripts fail on what ioredis 6 answers: it needs ioredis 5.
import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import Bottleneck from 'bottleneck'
import { redisLimiter } from 'inflight-limit/redis'
import { Redis } from 'ioredis'
import { Semaphore } from 'redis-semaphore'

const PORT = 7399
const CAPACITY = 6
const server = spawn('redis-server', ['--port', String(PORT), '--save', '', '--appendonly', 'no'], {
	stdio: 'ignore',
})
process.once('exit', () => server.kill())
await sleep(3_500)
const admin = new Redis(PORT)

/** @typedef {() => Promise<() => unknown>} Acquire */

/** @param {string} name @returns {Promise<Acquire>} */
async function ours(name) {
	const limiter = redisLimiter({ client: new Redis(PORT), name, capacity: CAPACITY, maxQueue: 5_000 })
	return async () => {
		const permit = await limiter.acquire()
		return () => permit.release()
	}
}

/** @param {string} name @returns {Promise<Acquire>} */
async function redisSemaphore(name) {
	const client = new Redis(PORT)
	return async () => {
		const semaphore = new Semaphore(client, name, CAPACITY, { acquireTimeout: 60_000 })
		await semaphore.acquire()
		return () => semaphore.release()
	}
}

/** @param {string} name @returns {Promise<Acquire>} */
async function bottleneck(name) {
	const limiter = new Bottleneck({
		id: name,
		maxConcurrent: CAPACITY,
		datastore: 'ioredis',
		clientOptions: { port: PORT },
		clearDatastore: true,
	})
	await limiter.ready()
	return () =>
		new Promise((resolve, reject) => {
			limiter.schedule(() => new Promise((done) => resolve(() => done(undefined)))).catch(reject)
		})
}

/** What Redis was asked, and how long it took, since the last reset. */
async function spent() {
	const stats = await admin.info('commandstats')
	let calls = 0
	let usec = 0
	for (const [, name, count, time] of stats.matchAll(/cmdstat_([\w|]+):calls=(\d+),usec=(\d+)/g)) {
		if (!/^(evalsha|eval)$/.test(name ?? '')) continue
		calls += Number(count)
		usec += Number(time)
	}
	return { calls, usec }
}

/** @param {number[]} values @param {number} percent */
function percentile(values, percent) {
	return values.toSorted((a, b) => a - b)[Math.floor((values.length * percent) / 100)] ?? Number.NaN
}

const BARE = 'return 1'
await admin.eval(BARE, 0)
const sha = /** @type {string} */ (await admin.script('LOAD', BARE))

/** @type {Record<string, Record<string, number>>} */
const table = {}
for (const [name, make] of Object.entries({
	'inflight-limit': ours,
	'redis-semaphore': redisSemaphore,
	...(process.argv.includes('bottleneck') ? { bottleneck } : {}),
})) {
	const [acquire, other] = [await make(`b ${name}`), await make(`b ${name}`)]
	for (let i = 0; i < 200; i++) await (await acquire())()
	await sleep(100)

	// Room available, one at a time, beside a bare pair of EVALSHA in the same loop.
	/** @type {number[]} */
	const pairs = []
	/** @type {number[]} */
	const bare = []
	await admin.config('RESETSTAT')
	for (let i = 0; i < 1_000; i++) {
		const began = performance.now()
		await (await acquire())()
		pairs.push(performance.now() - began)
	}
	await sleep(100)
	const { calls, usec } = await spent()
	for (let i = 0; i < 1_000; i++) {
		const began = performance.now()
		await admin.evalsha(sha, 0)
		await admin.evalsha(sha, 0)
		bare.push(performance.now() - began)
	}

	// Full, 1,000 waiting in two limiters, nothing released.
	const held = await Promise.all(Array.from({ length: CAPACITY }, acquire))
	/** @type {number[]} */
	const order = []
	/** @type {number[]} */
	const wakes = []
	let released = 0
	const waiting = Array.from({ length: 1_000 }, async (_, i) => {
		const release = await (i % 2 ? acquire : other)()
		wakes.push(performance.now() - released)
		order.push(i)
		setTimeout(() => {
			released = performance.now()
			release()
		}, 2)
	})
	await sleep(1_500)
	await admin.config('RESETSTAT')
	await sleep(3_000)
	const idle = (await spent()).calls / 3
	for (const release of held) {
		released = performance.now()
		release()
	}
	await Promise.race([Promise.all(waiting), sleep(8_000)])
	const inverted = order.filter((place, i) => i > 0 && place < (order[i - 1] ?? 0) - 2 * CAPACITY).length

	table[name] = {
		'commands per pair': calls / 1_000,
		'µs of Redis per pair': usec / 1_000,
		'ms per pair, p50': percentile(pairs, 50),
		'× a bare pair, p50': percentile(pairs, 50) / percentile(bare, 50),
		'commands/s, 1,000 waiting': idle,
		'ms to wake, p50': percentile(wakes, 50),
		'% out of order': (100 * inverted) / order.length,
		'served of 1,000': order.length,
	}
}
console.table(table)
console.log(
	'To reach: 2 commands a pair; at most 2.5 × a bare pair; at most 5 commands/s; wake under 3 ms; 0.2 % out of order.',
)
process.exit()
