// `npm run bench:semaphore`: the semaphore against the packages one would use instead.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Semaphore } from 'inflight-limit'
import { compare, median, printMachine, printMissed, printRow, printTitle } from './harness.js'
import { OURS, packages } from './semaphores.js'

/** @param {number} capacity @param {(work: () => unknown) => Promise<unknown>} caller */
async function verify(capacity, caller) {
	let atWork = 0
	let highest = 0
	/** @type {number[]} */
	const order = []
	const work = (/** @type {number} */ i) => async () => {
		highest = Math.max(highest, ++atWork)
		order.push(i)
		await new Promise(setImmediate)
		atWork--
	}
	await Promise.all(Array.from({ length: 20 }, (_, i) => caller(work(i))))
	assert.equal(highest, capacity)
	assert.deepEqual(
		order,
		order.toSorted((a, b) => a - b),
	)
}

const PAIRS = 100_000

async function uncontended() {
	const made = packages.map(({ name, make }) => ({ name, ...make(3) }))
	const check = (/** @type {typeof made[0]} */ each) => () => verify(3, each.caller)
	await compare(
		'acquire and release, with room',
		made.flatMap((each) => {
			const { name, pairs } = each
			return pairs === undefined ? [] : [{ name, verify: check(each), run: () => pairs(PAIRS) }]
		}),
		{ rounds: 31, operations: PAIRS, targets: { [OURS]: 1.7 } },
	)
	await compare(
		'tryAcquire and release, with room',
		made.flatMap((each) => {
			const { name, attempts } = each
			return attempts === undefined
				? []
				: [{ name, verify: check(each), run: () => attempts(PAIRS * 10) }]
		}),
		{ rounds: 31, operations: PAIRS * 10, targets: { [OURS]: 1.5 } },
	)
	let ran = 0
	const task = () => {
		ran++
	}
	await compare(
		'run(task), with room',
		made.flatMap((each) => {
			const { name, run } = each
			if (run === undefined) return []
			return [
				{
					name,
					verify: check(each),
					async run() {
						ran = 0
						for (let i = 0; i < PAIRS; i++) await run(task)
						assert.equal(ran, PAIRS)
					},
				},
			]
		}),
		{ rounds: 15, operations: PAIRS, targets: { [OURS]: 1.3 } },
	)
}

/** @param {number} waiters @param {number} rounds @param {number} repeat @param {number} target */
async function contended(waiters, rounds, repeat, target) {
	const work = () => undefined
	const able = packages.filter(({ slow }) => !slow || waiters <= 1_000)
	if (able.length < packages.length) {
		const slow = packages.filter((each) => each.slow).map(({ name }) => name)
		console.log(
			`\nLeft out, as their queues are not O(1), and this would take minutes: ${slow.join(', ')}.`,
		)
	}
	await compare(
		`${waiters} callers at once for 3 permits`,
		able.map(({ name, make }) => ({
			name,
			verify: () => verify(3, make(3).caller),
			async run() {
				for (let i = 0; i < repeat; i++) {
					const { caller } = make(3)
					await Promise.all(Array.from({ length: waiters }, () => caller(work)))
				}
			},
		})),
		{ rounds, operations: waiters * repeat, targets: { [OURS]: target }, collect: repeat === 1 },
	)
}

/**
 * Cancelling from the middle, in random order, as a ratio to what the platform needs to abort as
 * many signals.
 */
async function cancellation() {
	printTitle('waiters that leave from the middle, in random order', ['ratio', 'ns each'])
	/** @type {number[]} */
	const each = []
	for (const waiters of [10_000, 100_000]) {
		const order = Array.from({ length: waiters }, (_, i) => i)
		for (let i = waiters - 1; i > 0; i--) {
			const j = Math.floor(Math.random() * (i + 1))
			;[order[i], order[j]] = [/** @type {number} */ (order[j]), /** @type {number} */ (order[i])]
		}
		/** @param {(signal: AbortSignal) => void} listen */
		const abortAll = async (listen) => {
			const aborters = Array.from({ length: waiters }, () => new AbortController())
			for (const { signal } of aborters) listen(signal)
			globalThis.gc?.()
			const start = process.hrtime.bigint()
			for (const i of order) aborters[i]?.abort()
			await null
			return Number(process.hrtime.bigint() - start) / waiters
		}
		/** @type {number[]} */
		const ratios = []
		/** @type {number[]} */
		const own = []
		for (let round = 0; round < (waiters > 10_000 ? 9 : 41); round++) {
			let heard = 0
			const platform = await abortAll((signal) => {
				signal.addEventListener('abort', () => heard++, { once: true })
			})
			assert.equal(heard, waiters)
			let rejected = 0
			const semaphore = new Semaphore(0)
			const ours = await abortAll((signal) => {
				semaphore.acquire({ signal }).catch(() => rejected++)
			})
			assert.equal(semaphore.queued, 0)
			await new Promise(setImmediate)
			assert.equal(rejected, waiters)
			ratios.push(ours / platform)
			own.push(ours)
		}
		each.push(median(own))
		printRow(`${OURS}, ${waiters} waiters`, [median(ratios), median(own).toFixed(0)], 1.4)
	}
	const [few, many] = /** @type {[number, number]} */ (each)
	printRow('100,000 to 10,000, cost per cancel', [many / few, ''])
}

/** Each measured in a process of its own, so that none finds the heap as another left it. */
function memory() {
	printTitle('memory of a waiter', ['bytes'])
	const script = fileURLToPath(new URL('memory.js', import.meta.url))
	const bytes = (/** @type {string[]} */ ...args) =>
		Number(execFileSync(process.execPath, ['--expose-gc', script, ...args], { encoding: 'utf8' }))
	for (const { name, make } of packages) {
		if (make(1).wait === undefined) continue
		printRow(name, [bytes(name).toFixed(0)], name === OURS ? 245 : undefined)
	}
	printRow(`${OURS}, beyond its own signal`, [bytes(OURS, 'signal').toFixed(0)], 500)
}

printMachine()
await uncontended()
await contended(1_000, 31, 20, 1.6)
await contended(100_000, 9, 1, 2.2)
await contended(1_000_000, 3, 1, 1.5)
await cancellation()
memory()
printMissed()
