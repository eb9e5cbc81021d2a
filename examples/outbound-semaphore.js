// Ten requests have to be sent, and the partner allows three connections. Three ways to do it; only
// the last one is right.
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Semaphore } from 'inflight-limit'

const LIMIT = 3
const REQUESTS = 10

// The partner: answers after 50 ms, and counts how many connections it has at once.
let open = 0
let highest = 0
const partner = http.createServer(async (req, res) => {
	highest = Math.max(highest, ++open)
	await sleep(50)
	open--
	res.end(req.url)
})
await new Promise((resolve) => partner.listen(0, '127.0.0.1', () => resolve(undefined)))
const { port } = /** @type {import('node:net').AddressInfo} */ (partner.address())

/** @param {number} i */
async function fetchFromPartner(i) {
	const response = await fetch(`http://127.0.0.1:${port}/${i}`)
	await response.text()
}

/** Something that is awaited before each request: a setting, a DNS answer, a token. */
const prepare = () => sleep(1)

/**
 * 1. A counter, read every few milliseconds.
 *
 * Between reading and counting something is awaited. So all ten read the counter before the first
 * one counts, and all ten are sent. Requests that do wait are served in the order in which their
 * timers fire.
 */
let count = 0
/** @param {number} i */
async function withCounter(i) {
	while (count >= LIMIT) await sleep(5)
	await prepare()
	count++
	await fetchFromPartner(i)
	count--
}

/**
 * 2. The same counter, under a lock: a chain of promises, so that only one request reads and counts
 * at a time.
 *
 * Now there are never more than three. But the holder of the lock polls, all others wait for the
 * lock, and a free connection stays unused until the counter is read again.
 */
let counted = 0
let lock = Promise.resolve()
/** @param {number} i */
async function withLock(i) {
	const mine = lock.then(async () => {
		while (counted >= LIMIT) await sleep(20)
		await prepare()
		counted++
	})
	lock = mine
	await mine
	await fetchFromPartner(i)
	counted--
}

/**
 * 3. A semaphore is a counter with a queue: each finished request passes its permit to the longest
 * waiter.
 */
const connections = new Semaphore(LIMIT)
/** @param {number} i */
async function withSemaphore(i) {
	await connections.run(async () => {
		await prepare()
		await fetchFromPartner(i)
	})
}

for (const [name, request] of /** @type {[string, (i: number) => Promise<void>][]} */ ([
	['counter', withCounter],
	['counter under a lock', withLock],
	['semaphore', withSemaphore],
])) {
	highest = 0
	/** @type {number[]} */
	const order = []
	const start = performance.now()
	await Promise.all(
		Array.from({ length: REQUESTS }, (_, i) => request(i).then(() => order.push(i))),
	)
	const time = Math.round(performance.now() - start)
	console.log(`${name}: highest ${highest} of ${LIMIT}, ${time} ms, order ${order.join(' ')}`)
}

partner.close()
partner.closeAllConnections()
