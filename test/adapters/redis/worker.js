// One process of a fleet: takes permits, and tells a probe, which is another Redis, of each
// beginning and end of work.
import { setTimeout as sleep } from 'node:timers/promises'
import { redisLimiter } from 'inflight-limit/redis'

const {
	kind,
	port,
	cluster,
	probePort,
	id,
	concurrency,
	hold,
	turns,
	block,
	clock,
	keys,
	options,
} = JSON.parse(/** @type {string} */ (process.argv[2]))
if (clock) {
	const { now } = Date
	Date.now = () => now() + clock
}

/** @type {number[] | undefined} */
const ports = cluster

/**
 * Each process loads one of the two: that takes longer than all else at its start.
 *
 * @type {Record<'redis' | 'ioredis', () => Promise<{ client: any, probe: any }>>}
 */
const connect = {
	async redis() {
		const { createClient, createCluster } = await import('redis')
		const single = (/** @type {number} */ port) =>
			createClient({ socket: { host: '127.0.0.1', port } })
		const client = ports
			? createCluster({ rootNodes: ports.map((each) => ({ url: `redis://127.0.0.1:${each}` })) })
			: single(port)
		client.on('error', () => {})
		const probe = single(probePort)
		probe.on('error', () => {})
		await Promise.all([client.connect(), probe.connect()])
		return { client, probe }
	},
	async ioredis() {
		const { Cluster, Redis } = await import('ioredis')
		const client = ports
			? new Cluster(
					ports.map((each) => ({ host: '127.0.0.1', port: each })),
					{ shardedSubscribers: true },
				)
			: new Redis(port, '127.0.0.1')
		client.on('error', () => {})
		return { client, probe: new Redis(probePort, '127.0.0.1') }
	},
}
const { client, probe } = await connect[/** @type {'redis' | 'ioredis'} */ (kind)]()

/** @param {any} of @param {string} script @param {string[]} keys @param {unknown[]} args */
function run(of, script, keys, ...args) {
	const words = args.map(String)
	return kind === 'redis'
		? of.eval(script, { keys, arguments: words })
		: of.eval(script, keys.length, ...keys, ...words)
}

process.on('warning', () => {})

/** Counts the work of all processes; the highest sum is kept, with the time at which it was. */
const ENTER = `
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
local sum = 0
for _, count in ipairs(redis.call('HVALS', KEYS[1])) do sum = sum + count end
if sum > tonumber(redis.call('GET', KEYS[2]) or 0) then redis.call('SET', KEYS[2], sum) end
if sum > tonumber(ARGV[2]) then redis.call('INCR', KEYS[3]) end
return redis.call('RPUSH', KEYS[4], ARGV[3])
`

/** Not below 0: the test itself says of a process that it stopped that it is not at work. */
const LEAVE = `
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) > 0 then redis.call('HINCRBY', KEYS[1], ARGV[1], -1) end
`

const limiter = redisLimiter({ client, ...options, ...(keys ? { key: () => 'a' } : {}) })

/** @param {number} place */
const keyOf = (place) => (keys ? { key: `key ${place % keys}` } : {})
let running = true
const seen = { done: 0, rejected: 0, lost: 0, workAfterLoss: 0, available: true }
/** @type {number[]} */
const waits = []
/** @type {number[]} */
const turnsWaited = []

/** The last token that Redis has given, as one looks that is asked right behind another command. */
const LAST_TOKEN = `
local _, _, _, token = struct.unpack('dddd', redis.call('HGET', KEYS[1], 'head') or string.rep('\\0', 32))
return token
`

/** @returns {Promise<number>} */
function lastToken() {
	return run(client, LAST_TOKEN, [`inflight:{${encodeURIComponent(options.name)}}`])
}

async function work() {
	while (running) {
		const since = performance.now()
		let permit
		try {
			const admission = limiter.acquire()
			const [admitted, before] = await Promise.all([admission, turns ? lastToken() : 0])
			permit = admitted
			if (turns) turnsWaited.push(permit.token - before)
		} catch {
			seen.rejected++
			await sleep(20)
			continue
		}
		waits.push(performance.now() - since)
		await run(probe, ENTER, ['working', 'most', 'over', 'log'], id, options.capacity, permit.token)
		const until = performance.now() + hold * (0.5 + Math.random())
		let last = performance.now()
		while (performance.now() < until) {
			await sleep(Math.min(10, hold))
			if (permit.signal.aborted) {
				seen.lost++
				break
			}
			// Work after a pause of more than a lease since the last look, without notice of the loss.
			if (performance.now() - last > (options.lease ?? 10_000)) seen.workAfterLoss++
			last = performance.now()
		}
		await run(probe, LEAVE, ['working'], id)
		permit.release()
		seen.done++
	}
}

if (block) {
	// A healthy process whose event loop is busy for long, again and again.
	const blocking = () => {
		const until = performance.now() + block
		while (performance.now() < until);
		setTimeout(blocking, 100)
	}
	setTimeout(blocking, 200)
}

/** By a clock that all processes of a machine share, in ms. */
const now = () => Number(process.hrtime.bigint()) / 1e6

/** @type {Map<number, () => void>} */
const taken = new Map()

/**
 * One permit, by its place in the order of arrival. Is told when Redis knows of it, when it is
 * admitted, and when it is released: after `hold`, or by `give`.
 *
 * @param {number} place
 * @param {number | undefined} hold
 */
async function take(place, hold) {
	const admission = limiter.acquire(keyOf(place))
	const answered = client.ping()
	answered.then(() => process.send?.({ arrived: place }))
	const { token, release } = await admission
	const at = now()
	const give = () => {
		process.send?.({ released: place, token, at, until: now() })
		release()
	}
	process.send?.({ admitted: place, token, at })
	if (hold === undefined) taken.set(place, give)
	else setTimeout(give, hold)
}

// Until it has joined, what it asks of Redis is not asked at once, and may be rejected on a busy
// machine.
if (turns || concurrency === 0) {
	while (!(await limiter.run(() => true, keyOf(0)).catch(() => false))) await sleep(20)
}
const workers = Array.from({ length: concurrency }, work)
process.on('message', async (/** @type {any} */ message) => {
	if ('take' in message) take(message.take, message.hold)
	if ('give' in message) taken.get(message.give)?.()
	if ('figures' in message)
		process.send?.({ figures: { ...seen, stats: limiter.stats(), waits, turns: turnsWaited } })
	if ('stop' in message) {
		running = false
		await Promise.all(workers)
		limiter.close()
		await limiter.onIdle()
		process.send?.({ figures: { ...seen, stats: limiter.stats(), waits, turns: turnsWaited } })
		process.exit()
	}
})
process.on('disconnect', () => process.exit())
process.send?.({ ready: true })
