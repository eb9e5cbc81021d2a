// One process of a fleet: takes permits, and tells a probe, which is another Redis, of each beginning and end of work.
import { setTimeout as sleep } from 'node:timers/promises'
import { redisLimiter } from 'inflight-limit/redis'
import { Redis } from 'ioredis'
import { createClient } from 'redis'

const { kind, port, probePort, id, concurrency, hold, block, clock, options } = JSON.parse(
	/** @type {string} */ (process.argv[2]),
)
if (clock) {
	const { now } = Date
	Date.now = () => now() + clock
}

const connect = {
	redis: async () => {
		const client = createClient({ socket: { host: '127.0.0.1', port } })
		client.on('error', () => {})
		await client.connect()
		return client
	},
	ioredis: async () => {
		const client = new Redis(port, '127.0.0.1')
		client.on('error', () => {})
		return client
	},
}
const client = await connect[/** @type {'redis' | 'ioredis'} */ (kind)]()
const probe = new Redis(probePort, '127.0.0.1')
process.on('warning', () => {})

/** Counts who is at work, in all processes; the highest sum is kept, with the time at which it was. */
const ENTER = `
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
local sum = 0
for _, count in ipairs(redis.call('HVALS', KEYS[1])) do sum = sum + count end
if sum > tonumber(redis.call('GET', KEYS[2]) or 0) then redis.call('SET', KEYS[2], sum) end
if sum > tonumber(ARGV[2]) then redis.call('INCR', KEYS[3]) end
return redis.call('RPUSH', KEYS[4], ARGV[3])
`

const limiter = redisLimiter({ client, ...options })
let running = true
const seen = { done: 0, rejected: 0, lost: 0, workAfterLoss: 0, available: true }
/** @type {number[]} */
const waits = []

async function work() {
	while (running) {
		const since = performance.now()
		let permit
		try {
			permit = await limiter.acquire()
		} catch {
			seen.rejected++
			await sleep(20)
			continue
		}
		waits.push(performance.now() - since)
		await probe.eval(
			ENTER,
			4,
			'working',
			'most',
			'over',
			'log',
			id,
			String(options.capacity),
			String(permit.token),
		)
		const until = performance.now() + hold * (0.5 + Math.random())
		let last = performance.now()
		while (performance.now() < until) {
			await sleep(Math.min(10, hold))
			if (permit.signal.aborted) {
				seen.lost++
				break
			}
			// Work, by someone who was away for longer than a lease since he last looked, and was not told.
			if (performance.now() - last > (options.lease ?? 10_000)) seen.workAfterLoss++
			last = performance.now()
		}
		await probe.hincrby('working', id, -1)
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

const workers = Array.from({ length: concurrency }, work)
process.on('message', async (message) => {
	if (message === 'figures') process.send?.({ ...seen, stats: limiter.stats(), waits })
	if (message === 'stop') {
		running = false
		await Promise.all(workers)
		limiter.close()
		await limiter.onIdle()
		process.send?.({ ...seen, stats: limiter.stats(), waits })
		process.exit()
	}
})
process.on('disconnect', () => process.exit())
process.send?.('ready')
