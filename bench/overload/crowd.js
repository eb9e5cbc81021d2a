import { Limiter } from 'inflight-limit'
import { Clock } from './clock.js'
import { Downstream } from './downstream.js'
import { randomFrom } from './random.js'
import { Signal } from './simulation.js'

/**
 * A crowd that comes at once, and comes back when it is told to: what does `Retry-After` spare it?
 *
 * @typedef {object} Crowd
 * @property {number} base the load before and after, as a multiple of what can be done
 * @property {number} burst the load of the crowd, as a multiple of what can be done
 * @property {number} seconds for which the crowd comes
 * @property {number} [ignoring] the part of the clients that come back after 100 ms, whatever they are told
 * @property {number} [seed]
 * @property {(told: number) => number} [told] what clients are told instead, in s
 */

/** What works on the requests: 20 at once, 100 ms each, so at most 200 a second. */
const DOWNSTREAM = {
	name: 'crowd',
	service: 100,
	knee: 20,
	slowdown: (/** @type {number} */ ratio) => Math.max(1, ratio),
}
const RATE = 0.2

/** When the crowd comes, and when it is looked back, in ms. */
const [BEGIN, END] = [20_000, 200_000]

/** @param {Crowd} crowd */
export async function meet({
	base,
	burst,
	seconds,
	ignoring = 0,
	seed = 1,
	told = (after) => after,
}) {
	const clock = new Clock()
	const random = randomFrom(seed)
	const downstream = new Downstream(clock, DOWNSTREAM)
	const limiter = new Limiter({ capacity: 20, maxQueue: 20, maxWait: Number.POSITIVE_INFINITY })
	const door = /** @type {any} */ (limiter)[Symbol.for('inflight-limit.enter')].bind(limiter)
	let pending = 0
	/**
	 * What became of those that were rejected at first: how often they were, and when they came first
	 * and got in.
	 */
	/** @type {{ obeys: boolean, rejected: number, took: number }[]} */
	const clients = []
	let [returns, gotIn] = [0, 0]
	/** Answers of each second since the beginning. @type {number[]} */
	const answered = new Array(END / 1000).fill(0)

	/** @param {{ obeys: boolean, rejected: number, took: number }} client @param {number} since */
	const attempt = (client, since) => {
		const settle = (/** @type {any} */ entrance) => {
			if (client.rejected === 1 && client.obeys) {
				returns++
				if (entrance.tag === 'admitted') gotIn++
			}
			if (entrance.tag !== 'admitted') {
				if (client.rejected === 0) clients.push(client)
				client.rejected++
				// What the network adds.
				const pause = client.obeys
					? 1000 * told(entrance.error.retryAfter) + 50 * random.next()
					: 100
				clock.at(clock.now + pause, () => attempt(client, since))
				return
			}
			client.took = clock.now - since
			downstream.start(random.exponential(1), () => {
				entrance.leave('ok')
				const second = Math.floor(clock.now / 1000)
				answered[second] = (answered[second] ?? 0) + 1
			})
		}
		const entrance = door({}, new Signal())
		if (entrance.tag !== 'waiting') return settle(entrance)
		pending++
		entrance.settled.then((/** @type {any} */ settled) => {
			pending--
			settle(settled)
		})
	}
	const arrive = () => {
		const crowded = clock.now >= BEGIN && clock.now < BEGIN + 1000 * seconds
		const rate = RATE * (crowded ? burst : base)
		attempt(
			{ obeys: random.next() >= ignoring, rejected: 0, took: Number.POSITIVE_INFINITY },
			clock.now,
		)
		clock.at(
			Math.min(clock.now + random.exponential(1 / rate), clock.now < BEGIN ? BEGIN : END),
			arrive,
		)
	}
	clock.at(0, arrive)
	await clock.run(END - 1, () => pending > 0 || limiter.queued > 0)

	const obedient = clients.filter(({ obeys }) => obeys)
	const mean = (/** @type {number[]} */ values) =>
		values.reduce((sum, each) => sum + each, 0) / Math.max(1, values.length)
	const took = (/** @type {typeof clients} */ of) =>
		mean(of.map((client) => Math.min(client.took, END)))
	// What there is to do until the crowd has been served, if none of it is lost.
	const work = (burst - base) * seconds
	const drained = Math.ceil(
		BEGIN / 1000 + seconds + Math.min(60, (work - seconds * (1 - base)) / (1 - base)),
	)
	return {
		rejections: mean(obedient.map(({ rejected }) => rejected)),
		firstReturn: gotIn / returns,
		busy: mean(answered.slice(BEGIN / 1000, drained)) / (1000 * RATE),
		obedientTook: took(obedient) / 1000,
		ignoringTook: took(clients.filter(({ obeys }) => !obeys)) / 1000,
	}
}

/** The load before and after, and for how many seconds six times the load comes. */
const CROWDS = /** @type {const} */ ([
	[0.01, 1],
	[0.01, 5],
	[0.5, 1],
	[0.5, 5],
	[0.8, 1],
	[0.8, 2],
])

export async function reportCrowd() {
	console.log(
		'\nA crowd of six times the load, before 20 permits of 100 ms each, with 20 that may wait.',
	)
	console.log('Of those that were rejected and come back when they are told:')
	const titles = [
		'rejections each',
		'first returns that get in',
		'how busy it is',
		'until they are in',
	]
	console.log(`\n${' '.repeat(46)}${titles.map((title) => title.padStart(27)).join('')}`)
	const show = (
		/** @type {string} */ what,
		/** @type {Awaited<ReturnType<typeof meet>>} */ figures,
	) => {
		const { rejections, firstReturn, busy, obedientTook } = figures
		const cells = [rejections, firstReturn, busy].map((figure) => figure.toFixed(2))
		const row = [...cells, `${obedientTook.toFixed(1)} s`]
		console.log(`${what.padEnd(46)}${row.map((cell) => cell.padStart(27)).join('')}`)
	}
	for (const [base, seconds] of CROWDS) {
		const crowd = { base, burst: 6, seconds }
		show(`for ${seconds} s, load ${base} before and after`, await meet(crowd))
		show('  if each were told 1 s', await meet({ ...crowd, told: () => 1 }))
	}
	for (const ignoring of [0, 0.1, 0.2]) {
		const figures = await meet({ base: 0.5, burst: 6, seconds: 3, ignoring })
		show(`for 3 s, load 0.5; ${100 * ignoring} % come back after 100 ms`, figures)
		if (ignoring > 0) console.log(`  those are in after ${figures.ignoringTook.toFixed(1)} s`)
	}
}
