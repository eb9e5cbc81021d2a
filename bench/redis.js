// One limit for many processes, beside redis-semaphore and bottleneck: npm run bench:redis (needs
// redis-server).
import { fork, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { median, printMachine, printMissed, printRow, printTitle } from './harness.js'
import { peers } from './redis/peers.js'

const PORT = 7399
const CAPACITY = 6
const PROCESSES = 8
const WAITING = 1_000
/** In which the crashed are to be noticed, in ms. */
const LEASE = 5_000
/** Permits that are held for a short time, in ms. */
const SHORT = { capacity: 10, hold: 5 }
/** After which a permit is taken to come never, in ms. */
const PATIENCE = 4 * LEASE

/**
 * @typedef {import('./redis/peers.js').Fleet} Fleet
 * @typedef {import('node:child_process').ChildProcess} ChildProcess
 */

const server = spawn('redis-server', ['--port', String(PORT), '--save', '', '--appendonly', 'no'], {
	stdio: 'ignore',
})
/** @type {Set<ChildProcess>} */
const children = new Set([server])
process.once('exit', () => {
	for (const child of children) child.kill('SIGKILL')
})
// An empty Redis that has been up for less counts as one that lost its memory.
await sleep(3_500)
const admin = new Redis(PORT)

/**
 * Counts all commands that Redis gets.
 *
 * @returns {Promise<() => { sent: number, inScripts: number, names: Set<string> }>}
 */
async function listen() {
	const found = { sent: 0, inScripts: 0, names: new Set() }
	const socket = net.connect(PORT)
	let rest = ''
	socket.setEncoding('latin1').on('data', (data) => {
		const lines = (rest + data).split('\r\n')
		rest = /** @type {string} */ (lines.pop())
		for (const line of lines) {
			const [, source, name] = /^\+[\d.]+ \[\d+ (\S+)\] "(\w+)"/.exec(line) ?? []
			if (name === undefined) continue
			if (source === 'lua') {
				found.inScripts++
			} else {
				found.sent++
				found.names.add(name.toLowerCase())
			}
		}
	})
	socket.write('MONITOR\r\n')
	await once(socket, 'data')
	return () => {
		socket.destroy()
		return found
	}
}

/**
 * The µs that Redis has spent on commands since the last reset, with what is done in scripts.
 * @param {Set<string>} names
 */
async function spent(names) {
	let usec = 0
	for (const [, name, time] of (await admin.info('commandstats')).matchAll(
		/cmdstat_(\w+)[\w|]*:calls=\d+,usec=(\d+)/g,
	)) {
		if (names.has(/** @type {string} */ (name))) usec += Number(time)
	}
	return usec
}

/** @template T @param {Promise<T>} promise @param {number} ms @returns {Promise<T | undefined>} */
async function within(promise, ms) {
	const controller = new AbortController()
	const late = sleep(ms, undefined, { signal: controller.signal }).catch(() => undefined)
	const first = await Promise.race([promise, late])
	controller.abort()
	return first
}

const SCRIPT = 'return 1'
const SHA = createHash('sha1').update(SCRIPT).digest('hex')

/** Room available, one at a time. @param {Fleet} fleet */
async function pairs(fleet) {
	const acquireAndRelease = async () => {
		const release = await fleet.acquire()
		await release()
		await fleet.settled()
	}
	// As many keys, and as much to send, as ours.
	const keys = ['inflight:{a name}', 'inflight:{a name}:queue', 'inflight:{a name}:leases']
	const args = ['acquire', 'abcdefghijkl', '1', 'abcdefghijkl:1:abc', '1', '1000', '20000', '0']
	await admin.eval(SCRIPT, 0)
	const bare = () => fleet.evalsha(SHA, keys, args)
	for (let i = 0; i < 500; i++) {
		await acquireAndRelease()
		await bare()
	}

	const stop = await listen()
	for (let i = 0; i < 500; i++) await acquireAndRelease()
	await sleep(50)
	const { sent, inScripts, names } = stop()
	let [usec, bareUsec] = [0, 0]
	for (let round = 0; round < 20; round++) {
		await admin.config('RESETSTAT')
		for (let i = 0; i < 100; i++) await acquireAndRelease()
		usec += (await spent(names)) / 2_000
		await admin.config('RESETSTAT')
		for (let i = 0; i < 200; i++) await bare()
		bareUsec += (await spent(new Set(['evalsha']))) / 2_000
	}

	/** @type {number[]} */
	const admits = []
	/** @type {number[]} */
	const both = []
	/** @type {number[]} */
	const bares = []
	const timedPair = async () => {
		const began = performance.now()
		const release = await fleet.acquire()
		admits.push(performance.now() - began)
		await release()
		await fleet.settled()
		both.push(performance.now() - began)
	}
	const timedBare = async () => {
		const began = performance.now()
		await bare()
		await bare()
		bares.push(performance.now() - began)
	}
	for (let i = 0; i < 3_000; i++) {
		for (const run of i % 2 ? [timedPair, timedBare] : [timedBare, timedPair]) await run()
	}
	await fleet.close()
	return {
		'round trips per pair': sent / 500,
		'commands in their scripts': inScripts / 500,
		'µs of Redis per pair': usec,
		'  × that of a bare pair of EVALSHA': usec / bareUsec,
		'ms to admit, p50': median(admits),
		'ms per pair, p50': median(both),
		'  × a bare pair of EVALSHA, p50': median(both) / median(bares),
	}
}

/** @param {object} options @returns {Promise<ChildProcess>} */
async function start(options) {
	const child = fork(new URL('./redis/process.js', import.meta.url), [
		JSON.stringify({ port: PORT, capacity: CAPACITY, ...options }),
	])
	children.add(child)
	await once(child, 'message')
	return child
}

/** @param {ChildProcess} child */
async function kill(child) {
	children.delete(child)
	child.kill('SIGKILL')
	await once(child, 'exit')
}

/**
 * Waits for a message with `word`.
 *
 * @param {ChildProcess} child
 * @param {string} word
 * @returns {Promise<any>}
 */
function told(child, word) {
	return new Promise((resolve) => {
		/** @param {any} message */
		const listener = (message) => {
			if (!(word in message)) return
			child.off('message', listener)
			resolve(message)
		}
		child.on('message', listener)
	})
}

/**
 * Has a process take a place, and waits until Redis knows of it.
 *
 * @param {ChildProcess} child
 * @param {number} place
 */
function arrive(child, place) {
	const arrived = told(child, 'arrived')
	child.send({ acquire: place })
	return arrived
}

/** Has a process take a permit that is free. @param {ChildProcess} child @param {number} place */
async function take(child, place) {
	const admitted = told(child, 'admitted')
	await arrive(child, place)
	await admitted
}

/**
 * A process's first admission takes longer, as it joins the fleet: that is no part of what is
 * measured.
 *
 * @param {ChildProcess[]} fleet
 */
async function join(fleet) {
	for (const child of fleet) {
		await take(child, -1)
		child.send({ release: -1 })
		await told(child, 'released')
	}
}

/**
 * All permits held, 1,000 waiting in eight processes. They arrive one after the other: each only
 * when Redis knows of the one before. Then one permit goes from hand to hand: it is released only
 * when its holder has confirmed it. So an admission is out of order if a caller that arrived before
 * is admitted after it: no messages can have crossed, so no exception is allowed.
 *
 * @param {string} peer
 */
async function queue(peer) {
	const options = { peer, name: `queue ${peer}` }
	const fleet = await Promise.all(Array.from({ length: PROCESSES }, () => start(options)))
	/** @type {(admission: { admitted: number, at: number }) => void} */
	let onAdmission = () => {}
	for (const child of fleet) {
		child.setMaxListeners(0)
		child.on('message', (/** @type {any} */ message) => {
			if ('admitted' in message) onAdmission(message)
		})
	}
	const of = (/** @type {number} */ place) => /** @type {ChildProcess} */ (fleet[place % PROCESSES])
	await join(fleet)
	await sleep(500)
	for (let place = 0; place < CAPACITY; place++) await take(of(place), place)
	for (let place = CAPACITY; place < CAPACITY + WAITING; place++) await arrive(of(place), place)

	await sleep(500)
	const stop = await listen()
	await sleep(5_000)
	const { sent } = stop()

	/** @type {number[]} */
	const order = []
	/** @type {number[]} */
	const wakes = []
	const until = performance.now() + 60_000
	for (let place = 0; order.length < WAITING && performance.now() < until; ) {
		/** @type {Promise<{ admitted: number, at: number }>} */
		const admission = new Promise((resolve) => {
			onAdmission = resolve
		})
		const released = told(of(place), 'released')
		of(place).send({ release: place })
		const { at } = await released
		const next = await within(admission, PATIENCE)
		if (next === undefined) break
		order.push(next.admitted)
		wakes.push(next.at - at)
		place = next.admitted
	}
	await Promise.all(fleet.map(kill))

	let outOfOrder = 0
	let first = Number.POSITIVE_INFINITY
	for (const place of order.toReversed()) {
		if (place > first) outOfOrder++
		first = Math.min(first, place)
	}
	return {
		'commands/s, 1,000 waiting': sent / 5,
		'served of 1,000 in 60 s': order.length,
		'ms to wake, p50': median(wakes),
		'ms to wake, p99':
			wakes.toSorted((a, b) => a - b)[Math.floor(wakes.length * 0.99)] ?? Number.NaN,
		'% out of order': (100 * outOfOrder) / order.length,
	}
}

/**
 * Eight processes, four callers in each that take a permit again and again.
 *
 * @param {string} peer
 */
async function fairness(peer) {
	const options = { peer, name: `fairness ${peer}` }
	const fleet = await Promise.all(Array.from({ length: PROCESSES }, () => start(options)))
	await join(fleet)
	const all = fleet.map((child) => told(child, 'waits'))
	for (const child of fleet) child.send({ loop: { workers: 4, hold: 50, ms: 8_000 } })
	const found = await Promise.all(all)
	const waits = found.flatMap(({ waits }) => waits)
	await Promise.all(fleet.map(kill))
	return {
		'admissions/s, held for 50 ms each': found.reduce((sum, { admitted }) => sum + admitted, 0) / 8,
		'ms of wait, median': median(waits),
		'longest wait / median': Math.max(...waits) / median(waits),
	}
}

/**
 * Permits that are held for less time than it takes to hand one on: the pace is that of the hand-over.
 *
 * @param {string} peer
 */
async function shortHolds(peer) {
	const options = { peer, name: `short holds ${peer}`, capacity: SHORT.capacity }
	const fleet = await Promise.all(Array.from({ length: PROCESSES }, () => start(options)))
	await join(fleet)
	const all = fleet.map((child) => told(child, 'waits'))
	for (const child of fleet) child.send({ loop: { workers: 20, hold: SHORT.hold, ms: 5_000 } })
	const admitted = (await Promise.all(all)).reduce((sum, found) => sum + found.admitted, 0) / 5
	await Promise.all(fleet.map(kill))
	return {
		'admissions/s': admitted,
		'  % of what the permits allow': (admitted / ((1000 / SHORT.hold) * SHORT.capacity)) * 100,
	}
}

/** The time of a processor that Redis has used so far, in µs. */
async function used() {
	let seconds = 0
	for (const [, time] of (await admin.info('cpu')).matchAll(/used_cpu_(?:user|sys):([\d.]+)/g)) {
		seconds += Number(time)
	}
	return seconds * 1e6
}

/**
 * Permits that are given back at once, with room for all and with hardly any: as fast as Redis, or
 * the processes, can.
 *
 * @param {string} peer
 */
async function atOnce(peer) {
	/** @type {Record<string, number>} */
	const figures = {}
	for (const [kind, capacity] of /** @type {const} */ ([
		['room for all', PROCESSES * 4],
		['contended', CAPACITY],
	])) {
		const options = { peer, name: `at once ${kind} ${peer}`, capacity }
		const fleet = await Promise.all(Array.from({ length: PROCESSES }, () => start(options)))
		await join(fleet)
		const before = await used()
		const all = fleet.map((child) => told(child, 'waits'))
		for (const child of fleet) child.send({ loop: { workers: 4, hold: 0, ms: 5_000 } })
		const pairs = (await Promise.all(all)).reduce((sum, { admitted }) => sum + admitted, 0)
		figures[`${kind}: pairs/s`] = pairs / 5
		figures[`  ${kind}: µs of Redis’s processor per pair`] = ((await used()) - before) / pairs
		await Promise.all(fleet.map(kill))
	}
	return figures
}

/** @param {string} peer */
async function crash(peer) {
	const options = { peer, name: `crash ${peer}`, lease: LEASE }
	const [holder, waiter] = await Promise.all([start(options), start(options)])
	for (let place = 0; place < CAPACITY; place++) await take(holder, place)
	const admitted = told(waiter, 'admitted')
	await arrive(waiter, CAPACITY)
	await sleep(LEASE / 2)
	await kill(holder)
	const since = performance.now()
	const back = (await within(admitted, PATIENCE)) && performance.now() - since
	await kill(waiter)

	const others = { ...options, name: `crash of a waiter ${peer}` }
	const [patient, dead, next] = await Promise.all([start(others), start(others), start(others)])
	for (let place = 0; place < CAPACITY; place++) await take(patient, place)
	await arrive(dead, CAPACITY)
	const passed = told(next, 'admitted')
	await arrive(next, CAPACITY + 1)
	await kill(dead)
	const released = told(patient, 'released')
	patient.send({ release: 0 })
	const { at } = await released
	const past = await within(passed, PATIENCE)
	await Promise.all([patient, next].map(kill))
	return {
		'ms until a dead one’s permit is back': back ?? 'never',
		'  in leases': back === undefined ? 'never' : back / LEASE,
		'ms to wake past a dead waiter': past === undefined ? 'never' : past.at - at,
	}
}

/** @type {Record<string, number>} */
const AIMS = {
	'round trips per pair': 2,
	'  × a bare pair of EVALSHA, p50': 2.5,
	'commands/s, 1,000 waiting': 5,
	'ms to wake, p50': 3,
	'% out of order': 0.2,
	'longest wait / median': 2,
	'  in leases': 1,
	'ms to wake past a dead waiter': 50,
}

printMachine()
for (const [title, measure] of /** @type {const} */ ([
	[
		'room available, one at a time, each in turn with a bare pair by the same client',
		async (/** @type {string} */ peer) =>
			pairs(
				await /** @type {any} */ (peers)[peer]({
					port: PORT,
					name: `pairs ${peer}`,
					capacity: CAPACITY,
				}),
			),
	],
	[`${PROCESSES} processes, 1,000 waiting, one permit from hand to hand`, queue],
	[`${PROCESSES} processes, four callers in each, ${CAPACITY} permits`, fairness],
	[
		`${PROCESSES} processes, twenty callers in each, ${SHORT.capacity} permits, held for ${SHORT.hold} ms`,
		shortHolds,
	],
	[`${PROCESSES} processes, four callers in each, given back at once`, atOnce],
	[`killed with all ${CAPACITY} permits, after a lease of ${LEASE} ms`, crash],
])) {
	const names = Object.keys(peers)
	/** @type {Record<string, number | string>[]} */
	const found = []
	for (const peer of names) {
		const figures = /** @type {Promise<Record<string, number | string>>} */ (measure(peer))
		found.push((await within(figures, 150_000)) ?? {})
		// What has not come to an end by now never will.
		for (const child of children) if (child !== server) await kill(child)
	}
	printTitle(
		title,
		names.map((name) => name.padStart(17)),
	)
	for (const row of Object.keys(Object.assign({}, ...found))) {
		const cells = found.map((figures) => {
			const figure = figures[row] ?? '-'
			return (typeof figure === 'number' ? figure.toFixed(2) : figure).padStart(17)
		})
		printRow(row, cells, AIMS[row])
	}
}
console.log(
	'\nOut of order: a caller that arrived before was admitted after it; each arrives only when Redis knows of the one before.',
)
console.log(
	'A dead one’s permit: bottleneck has no lease; its jobs were given an expiration of as long.',
)
printMissed()
process.exit()
