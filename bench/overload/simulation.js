import { Clock } from './clock.js'
import { Downstream, peakOf } from './downstream.js'
import { randomFrom } from './random.js'

/**
 * What decides which requests are served: our limiter, or a model of another package.
 *
 * @typedef {object} Policy
 * @property {(request: Request, signal: Signal) => Entrance | Promise<Entrance> | Waiting} enter what becomes of a request: only its tag `admitted` has a stay
 * @property {() => boolean} waiting whether a request waits in it
 * @property {() => number} [capacity]
 *
 * @typedef {{ tag: string, abandon?: () => void, leave: (outcome: 'ok' | 'client-error' | 'server-error' | 'abandoned') => void }} Stay
 * @typedef {Stay | { tag: string }} Entrance
 * @typedef {{ whenSettled(settle: (entrance: Entrance) => void, fail: () => void): unknown }} Waiting instead of a promise, which takes a turn of the event loop
 *
 * @typedef {object} Request
 * @property {number} work 1 for the average
 * @property {number} deadline of its client, in ms since the epoch of the simulation
 * @property {boolean} important
 * @property {string} flow
 *
 * @typedef {object} Scenario
 * @property {import('./downstream.js').Knee} downstream
 * @property {number} load as a multiple of what the downstream can do at most
 * @property {number} seconds measured
 * @property {number} [warmup] seconds before that. Default: 5
 * @property {number} [deadline] after which a client gives up, in ms. Default: ten times the service time, at least 500
 * @property {number} [retries] how often a client tries again. Default: 1
 * @property {number} [seed]
 * @property {number} [important] share of important requests, from 0 to 1
 * @property {{ name: string, weight: number }[]} [flows]
 * @property {(random: import('./random.js').Random, now: number) => number} [work] Default: exponentially distributed
 * @property {(now: number, random: import('./random.js').Random) => 'ok' | 'client-error' | 'server-error'} [outcome]
 * @property {{ at: number, become: import('./downstream.js').Knee }[]} [moves] of the knee, at so many seconds
 */

/** What the limiter needs of an AbortSignal; a real one costs more than the request. */
export class Signal {
	aborted = false
	reason = LEFT
	/** @type {{ handleEvent(): void } | undefined} */
	#listener = undefined

	/** @param {'abort'} _type @param {{ handleEvent(): void }} listener */
	addEventListener(_type, listener) {
		this.#listener = listener
	}

	removeEventListener() {
		this.#listener = undefined
	}

	abort() {
		this.aborted = true
		this.#listener?.handleEvent()
	}
}

const LEFT = new Error('the client left')

/**
 * A client that is rejected, or that gave up, waits this long before it tries again, twice as long
 * the next time.
 */
const BACKOFF = 100

/**
 * Runs an open-loop load against a policy in front of a downstream, in virtual time.
 *
 * @param {(clock: Clock) => Policy} makePolicy
 * @param {Scenario} scenario
 */
export async function simulate(makePolicy, scenario) {
	const {
		downstream: knee,
		load,
		seconds,
		warmup = 5,
		retries = 1,
		seed = 1,
		important = 0,
	} = scenario
	const {
		deadline = Math.max(500, 10 * knee.service),
		flows = [{ name: '', weight: 1 }],
		moves = [],
	} = scenario
	const { work = (random) => random.exponential(1), outcome = () => 'ok' } = scenario
	const random = randomFrom(seed)
	const clock = new Clock()
	const downstream = new Downstream(clock, knee)
	const policy = makePolicy(clock)
	const begin = warmup * 1000
	const end = begin + seconds * 1000
	const weights = flows.reduce((sum, { weight }) => sum + weight, 0)

	/** Good answers in each second since the beginning. @type {number[]} */
	const goodEach = new Array(Math.ceil(end / 1000)).fill(0)
	/** @type {number[]} */
	const capacityEach = []
	/** @type {number[]} */
	const latencies = []
	/** @type {Map<string, number>} */
	const goodOf = new Map(flows.map(({ name }) => [name, 0]))
	/** Good answers in the time that is measured, whenever their clients came first. */
	let good = 0
	const counts = { clients: 0, importantClients: 0, importantGood: 0, attempts: 0 }
	let pending = 0

	/**
	 * @param {Omit<Request, 'deadline'> & { counted: boolean }} wanted @param {number} left @param
	 * {number} backoff
	 */
	const attempt = (wanted, left, backoff) => {
		const since = clock.now
		const signal = new Signal()
		let over = false
		/** @type {ReturnType<Clock['at']> | undefined} */
		let timer
		counts.attempts++
		const fail = () => {
			if (over) return
			over = true
			clock.cancel(timer)
			if (left > 0) {
				const pause = backoff * (0.5 + random.next())
				clock.at(clock.now + pause, () => attempt(wanted, left - 1, 2 * backoff))
			}
		}
		/** @type {Stay | undefined} */
		let held
		const giveUp = () => {
			signal.abort()
			held?.abandon?.()
			fail()
		}
		const serve = (/** @type {Stay} */ stay) => {
			held = stay
			downstream.start(wanted.work, () => {
				const ended = signal.aborted ? 'abandoned' : outcome(clock.now, random)
				stay.leave(ended)
				if (ended === 'server-error') return fail()
				if (over) return
				over = true
				clock.cancel(timer)
				const second = Math.floor(clock.now / 1000)
				goodEach[second] = (goodEach[second] ?? 0) + 1
				if (clock.now >= begin) good++
				if (!wanted.counted) return
				if (wanted.important) counts.importantGood++
				goodOf.set(wanted.flow, (goodOf.get(wanted.flow) ?? 0) + 1)
				latencies.push(clock.now - since)
			})
		}
		try {
			const { work: size, important: urgent, flow } = wanted
			const entered = policy.enter(
				{ work: size, important: urgent, flow, deadline: since + deadline },
				signal,
			)
			const settle = (/** @type {Entrance} */ entrance) =>
				entrance.tag === 'admitted' ? serve(/** @type {Stay} */ (entrance)) : fail()
			// Most attempts of an overload are rejected, and need no timer.
			if (!('tag' in entered) || entered.tag === 'admitted')
				timer = clock.at(since + deadline, giveUp)
			if ('tag' in entered) return settle(entered)
			if ('whenSettled' in entered) return void entered.whenSettled(settle, fail)
			pending++
			const settled = () => pending--
			entered.then(settle, fail)
			entered.then(settled, settled)
		} catch {
			fail()
		}
	}

	const rate = (load * peakOf(knee)) / 1000
	const arrive = () => {
		let at = random.next() * weights
		const flow = flows.find(({ weight }) => {
			at -= weight
			return at < 0
		})
		const counted = clock.now >= begin
		const wanted = {
			work: work(random, clock.now),
			important: important > 0 && random.next() < important,
			flow: flow?.name ?? '',
			counted,
		}
		if (counted) counts.clients++
		if (counted && wanted.important) counts.importantClients++
		attempt(wanted, retries, BACKOFF)
		clock.at(clock.now + random.exponential(1 / rate), arrive)
	}
	clock.at(0, arrive)
	for (const { at, become } of moves) clock.at(at * 1000, () => downstream.become(become))
	const look = () => {
		capacityEach.push(policy.capacity?.() ?? 0)
		clock.at(clock.now + 1000, look)
	}
	clock.at(500, look)
	await clock.run(end, () => pending > 0 || policy.waiting())

	latencies.sort((a, b) => a - b)
	return {
		...counts,
		goodput: good / seconds,
		p99: latencies[Math.floor(0.99 * latencies.length)] ?? 0,
		goodEach,
		goodOf,
		capacityEach,
	}
}

/** @typedef {Awaited<ReturnType<typeof simulate>>} Result */
