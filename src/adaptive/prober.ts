import type { Sample } from './controller.js'

/*
 * How it works: what is wanted is the capacity at which most requests are answered in a second. Past a knee more work at
 * once means fewer answers; before it, more. So the prober counts good answers while the limit is full, for a moment
 * with a little more allowed and for a moment with a little less, right after each other, and moves a little towards the
 * better side. With each pair the sides come closer, so that it settles and costs little.
 *
 * Such pairs see a slope, not what lies further away. So from time to time it scouts: half as much again; and at the
 * start, when answers have become fewer, or when most come too late, 0.6 of the limit. Where that pays it goes, and on
 * in that direction.
 *
 * Only neighbours in time are compared and no latency is remembered: there is no baseline that could drift, and none that
 * must be measured at an empty server.
 */

/** Good answers counted at the limit itself, and at each side of a pair; and for how long at least, in ms. */
const ANSWERS = 40
const MOMENT = 25

/** For how long at most nothing is counted after the limit was raised, in ms: until the work has followed it. */
const SETTLING = 500

/** How far the sides of a pair are from the limit, as a part of it: of the first, and of all in the end. */
const WIDEST = 0.3
const NARROWEST = 0.03

/** After so many pairs they are half as far. */
const HALVED = 5

/**
 * How far the limit moves for each unit of log gain, in distances of the pair's sides, in the beginning; never further than
 * one of these. It decreases with them.
 */
const STEP = 4

/**
 * One per cent more at work must bring so many per cent more answers at least; without a knee it brings one. So the limit
 * stays short of the top, where the last ones let in make all slower and bring nothing.
 */
const WORTH = 0.15

/** The same for scouts, who are dearer; and where they look, as a part of the limit. */
const SCOUT_WORTH = 0.3
const UP = 1.5
const DOWN = 0.6

/** Scouts look up when the last look is so many ms and answers ago. */
const SCOUT_TIME = 2_500
const SCOUT_ANSWERS = 200

/**
 * A scout gives up after so many answers at least, when their rate is so many standard deviations worse; it is believed
 * after three times as many, as the next look is held against these.
 */
const FEW = 12
const WORSE = -1.5
const BETTER = 1.8

/**
 * After so many answers, or when its time is over, it decides: it must then be better by one standard deviation; or at all,
 * where lower is right in doubt: when some were late at the limit, or it has paid already to go down.
 */
const MANY = 100

/** For how long it waits for enough answers, in ms: as long as a request takes, but within these. */
const [PATIENCE, LONGEST] = [600, 10_000]

/** How much of what was counted before at the limit still counts at each new count. */
const MEMORY = 0.75

/** The most that `#noise` is taken for. */
const MOST_NOISE = 10

/** That answers have become fewer or more at an unchanged limit: by how much, and beyond how many standard deviations. */
const FELL = 0.6
const ROSE = 1.25
const CHANCE = 3.5

/** A limit that nobody reached for so long, in ms, comes down to what is used (as in RFC 7661 for TCP), and a fifth more. */
const UNUSED = 1_000

/** What was counted at one limit. */
interface Count {
	readonly limit: number
	/** Answers that are right, or wrong by the client's own fault. */
	good: number
	/** Requests done when their clients had left. */
	late: number
	/** In ms. */
	time: number
}

function countAt(limit: number): Count {
	return { limit, good: 0, late: 0, time: 0 }
}

/**
 * By how many standard deviations the rate of `good` in `time` is better than that before: than a rate whose logarithm is
 * `worth` more, to be exact. It is 0 where too few are known.
 */
function evidence(good: number, time: number, goodBefore: number, timeBefore: number, worth: number): number {
	if (good + goodBefore < FEW) return 0
	const ratio = ((good + 0.5) * timeBefore) / ((goodBefore + 0.5) * time)
	return (Math.log(ratio) - worth) / Math.sqrt(1 / (good + 0.5) + 1 / (goodBefore + 0.5))
}

export class Prober {
	readonly #min: number
	readonly #max: number
	readonly #initial: number
	/** Where it believes the best to be; what it allows now is `#count.limit`. */
	#limit: number
	#doing: 'hold' | 'pair' | 'scout' = 'hold'
	#count: Count
	/** What was counted at the limit itself lately. */
	#base = countAt(0)
	/** The first half of a pair. */
	#half: Count | undefined = undefined
	#upFirst = true
	/** Pairs since it began, or moved far; fewer count after a change. */
	#pairs = 0
	/** Where a scout looks. */
	#factor = UP
	/**
	 * Where the next ones are to look, until one finds something. At the start downwards first: far too many at work is
	 * worse than a moment with fewer.
	 */
	#looks = [DOWN, UP]
	/** Whether this scout has found something better already. */
	#moved = false
	/** When the last scout was over, and the good answers since then. */
	#scoutedAt = 0
	#answers = 0
	/** After a change, nothing is counted until the work has followed it, and not before this moment. */
	#settling = true
	#settledAt = 0
	/** Of the sample before: its moment, and whether the limit was full, and has stayed the same since. */
	#now = 0
	#wasFull = false
	/** How long requests take, in ms: lately, on average, and the average of the squares. */
	#held = 0
	#mean = 0
	#square = 0
	#samples = 0
	/** By how much counts at the limit differ from each other, as a multiple of what they would by chance. */
	#noise = 2
	/** A change was noticed, and it is not known yet if there was one. */
	#alarmed = false
	/** The most at work since `#peakSince`, and whether the limit was reached. */
	#peak = 0
	#peakSince = 0
	#reached = false

	constructor(min: number, max: number, initial: number) {
		this.#min = min
		this.#max = max
		this.#initial = initial
		this.#limit = initial
		this.#count = countAt(initial)
	}

	sample({ active, queued, outcome, now, held }: Sample): number {
		const count = this.#count
		const full = queued > 0 || active >= count.limit
		const fullSince = this.#wasFull
		const time = now - this.#now
		this.#wasFull = full
		this.#now = now
		this.#held += (this.#held === 0 ? 1 : 0.05) * (held - this.#held)
		const weight = Math.max(0.005, 1 / ++this.#samples)
		this.#mean += weight * (held - this.#mean)
		this.#square += weight * (held ** 2 - this.#square)
		this.#peak = Math.max(this.#peak, active)
		this.#reached ||= full
		if (now - this.#peakSince > UNUSED) this.#shrinkToUse(now)
		if (full && this.#settling) {
			this.#settling = active > count.limit || now < this.#settledAt
		} else if (full && fullSince) {
			// Only what came while the limit was full the whole time tells of the limit, and not of the traffic.
			count.time += time
			if (outcome === 'ok' || outcome === 'client-error') {
				count.good++
				this.#answers++
			} else if (outcome === 'abandoned') {
				count.late++
			}
			this.#decide()
		}
		return this.#count.limit
	}

	#decide(): void {
		if (this.#doing === 'scout') {
			this.#judgeScout()
			return
		}
		if (this.#noticeChange()) return
		const { good, time } = this.#count
		// What was allowed shows after a request's time only.
		const spread = this.#spread
		const moment = this.#doing === 'pair' ? this.#held * spread : 0
		const enough = good >= ANSWERS * this.#variation && time >= Math.max(MOMENT, moment)
		if (!enough && time < this.#patience) return
		if (this.#doing === 'pair') this.#endHalf()
		else this.#endHold()
	}

	/**
	 * How much more fast and slow requests are mixed than in an exponential distribution, which is 1. When more are let in, the
	 * fast ones among them are done first, so it takes that much longer until the rate is what it will be.
	 */
	get #spread(): number {
		// Where none took a time that can be measured, it is 0 / 0.
		return Math.max(1, this.#square / (2 * this.#mean ** 2) || 1)
	}

	/** How many times as much the answers vary as they would by chance: so much more of them are needed to tell as much. */
	get #variation(): number {
		return Math.max(this.#noise, this.#spread)
	}

	get #patience(): number {
		return Math.max(PATIENCE, Math.min(this.#held, LONGEST))
	}

	#allow(limit: number): void {
		const clipped = Math.min(this.#max, Math.max(this.#min, Math.round(limit)))
		this.#settling = true
		this.#settledAt =
			this.#now + (clipped > this.#count.limit ? Math.min(this.#held * this.#spread ** 2, SETTLING) : 0)
		this.#wasFull = false
		this.#count = countAt(clipped)
	}

	#hold(limit: number): void {
		this.#limit = Math.min(this.#max, Math.max(this.#min, limit))
		this.#half = undefined
		this.#doing = 'hold'
		this.#allow(this.#limit)
	}

	#endHold(): void {
		const { limit, good, late, time } = this.#count
		const base = this.#base
		if (base.good >= FEW) {
			const expected = (time * base.good) / base.time
			const square = (good - expected) ** 2 / (expected * (1 + expected / base.good))
			this.#noise += 0.1 * (Math.min(square, MOST_NOISE) - this.#noise)
		}
		this.#base = {
			limit,
			good: MEMORY * base.good + good,
			late: MEMORY * base.late + late,
			time: MEMORY * base.time + time,
		}
		// When most are late, what is answered tells nothing any more.
		if (late > good) {
			this.#looks = [DOWN]
		}
		const look = this.#looks.shift()
		if (look !== undefined) this.#scout(look)
		else if (this.#now - this.#scoutedAt > SCOUT_TIME && this.#answers > SCOUT_ANSWERS) this.#scout(UP)
		else {
			this.#upFirst = !this.#upFirst
			this.#try(this.#upFirst)
		}
	}

	/** How far the sides of a pair are from the limit now, as a part of it. */
	get #reach(): number {
		return Math.max(NARROWEST, WIDEST / (1 + this.#pairs / HALVED))
	}

	/** Allows one side of a pair: at least one apart from the other, unless `max` is in the way. */
	#try(up: boolean): void {
		this.#doing = 'pair'
		const reach = Math.max(0.5, this.#reach * this.#limit)
		const down = Math.round(this.#limit - reach)
		this.#allow(up ? Math.max(down + 1, Math.round(this.#limit + reach)) : down)
	}

	#endHalf(): void {
		if (this.#half === undefined) {
			this.#half = this.#count
			this.#try(!this.#upFirst)
			return
		}
		const [up, down] = this.#upFirst ? [this.#half, this.#count] : [this.#count, this.#half]
		const answers = up.good + down.good
		if (answers > 0 && up.limit > down.limit) {
			const ratio = ((up.good + 0.5) * down.time) / ((down.good + 0.5) * up.time)
			const gain = Math.log(ratio) - WORTH * Math.log(up.limit / down.limit)
			// Where answers are few, each tells little.
			const weight = Math.min(1, answers / (2 * ANSWERS * this.#variation))
			const reach = this.#reach
			const step = STEP * (reach / WIDEST) * reach * gain * weight
			this.#limit *= Math.exp(Math.max(-reach, Math.min(reach, step)))
			this.#pairs++
		}
		this.#hold(this.#limit)
	}

	/** Whether answers have become fewer or more at much the same limit: then a scout is due. */
	#noticeChange(): boolean {
		const { good, time } = this.#count
		const base = this.#base
		const expected = base.good < FEW ? 0 : (time * base.good) / base.time
		const chance = CHANCE * Math.sqrt(expected * (1 + expected / base.good) * this.#variation)
		const fell = good < Math.min(FELL * expected, expected - chance)
		const rose = good >= 30 && good > Math.max(ROSE * expected, expected + chance)
		if (expected === 0 || !(fell || rose)) return false
		this.#base = countAt(0)
		this.#looks = fell ? [DOWN, UP, DOWN] : [UP]
		this.#alarmed = true
		// Times from before and after would look like a mix.
		this.#mean = this.#held
		this.#square = 2 * this.#held ** 2
		this.#pairs *= 0.3
		this.#hold(this.#limit)
		return true
	}

	#scout(factor: number): void {
		this.#factor = factor
		this.#moved = false
		this.#doing = 'scout'
		this.#lookFurther()
	}

	#lookFurther(): void {
		const { limit } = this.#base
		this.#allow(limit * this.#factor)
		if (this.#count.limit === limit) this.#endScout()
	}

	#judgeScout(): void {
		const here = this.#count
		const { good, late, time, limit } = here
		const variation = this.#variation
		if ((good + late < FEW * variation || time < MOMENT) && time < this.#patience) return
		const enough = good >= MANY * variation || time > this.#patience
		const base = this.#base
		const down = this.#factor === DOWN
		const worth = SCOUT_WORTH * Math.log(limit / base.limit)
		let better = evidence(good, time, base.good, base.time, worth)
		if (down) {
			// Those at work may be late already, so that they get done faster counts too.
			better = Math.max(better, evidence(good + late, time, base.good + base.late, base.time, worth))
		}
		better /= Math.sqrt(variation)
		const sure = better > BETTER && good + late >= 3 * FEW
		const inDoubt = down ? better > (base.late > 0 || this.#moved ? 0 : 1) : better > 1 && good >= 30
		if (sure || (enough && inDoubt)) {
			this.#moved = true
			this.#base = here
			this.#limit = limit
			this.#lookFurther()
		} else if (better < WORSE || enough) {
			this.#endScout()
		}
	}

	#endScout(): void {
		this.#scoutedAt = this.#now
		this.#answers = 0
		// A false alarm tells that such differences are nothing special.
		if (this.#alarmed && !this.#moved) this.#noise = Math.min(1.5 * this.#noise, MOST_NOISE)
		this.#alarmed = false
		if (this.#moved) {
			this.#pairs = 0
			this.#looks = []
		}
		this.#hold(this.#limit)
	}

	/** A limit that is not used says nothing, and would let a burst in that nobody has tried. */
	#shrinkToUse(now: number): void {
		const used = Math.max(this.#initial, 1.2 * this.#peak)
		const { limit } = this.#count
		const unused = !this.#reached && Math.ceil(used) < limit
		this.#peak = 0
		this.#peakSince = now
		this.#reached = false
		// When more was only tried, that nobody came for it is no reason to believe in it.
		if (unused) this.#hold(Math.min(this.#limit, Math.floor(0.7 * limit + 0.3 * used)))
	}
}
