/** Nobody is told to come back later than this, in ms. */
const LATEST = 60_000

/** Once the minute is given out, its second half is given out again, from here, in ms. */
const AGAIN = 30_000

/** The least part of the pace that is given out, however many newcomers come. */
const LEAST = 0.1

/**
 * A time without rejections tells how many newcomers come if it was at least this long, in ms, and so many permits could
 * come back in it. Shorter ones are gaps in a crowd.
 */
const TELLING = 1_000
const MANY = 10

/** What was seen this long ago, in ms, counts half. */
const HALF_LIFE = 15_000

/**
 * Those that are told whole seconds come back at the part of a second at which they came. So each part of a second, one of
 * so many, has a schedule of its own.
 */
const PARTS = 16

/** So many can come at once at least. */
const FEW = 4

/**
 * When those are expected back that were rejected. Each is told a time, and takes its share of the pace then; so the next
 * one is told a later time. What is kept is only until when the pace is given out.
 */
export class Returns {
	/** Until when the pace is given out, in ms: for each part of a second. */
	readonly #until = new Float64Array(PARTS)
	/** Permits a ms that were given out last. */
	#rate = 0
	/** Permits that newcomers take in a ms, as it was while none was rejected. */
	#newcomers: number | undefined
	/** The time of the last promise, in ms, and the permits that had been taken then. */
	#at: number
	#takenThen = 0

	/** @param since - when permits were taken first, in ms. */
	constructor(since: number) {
		this.#at = since
	}

	/**
	 * Promises room to one that is rejected now.
	 *
	 * @param weight - the permits that it wants.
	 * @param wanted - the permits that those want that wait.
	 * @param taken - the permits that were ever taken.
	 * @param each - in which one permit comes back, in ms.
	 * @param now - in ms.
	 * @returns in how many seconds to come back: an integer from 1 to 60.
	 */
	promise(weight: number, wanted: number, taken: number, each: number, now: number): number {
		this.#note(taken, each, now)
		const until = this.#until
		const rate = Math.max(LEAST / each, 1 / each - (this.#newcomers ?? 0))
		this.#rate = rate
		// As many as half of the queue takes may come at once: there is room for them in so many parts of a second.
		const bunch = Math.max(FEW, wanted / 2)
		let parts = 1
		while (parts < PARTS && (2000 * rate * parts) / PARTS <= bunch) parts *= 2
		const first = Math.floor(((now % 1000) / 1000) * (PARTS / parts)) * parts
		const earliest = now + Math.min(LATEST, (wanted + weight) * each)
		const takes = Math.min(LATEST, (weight * PARTS) / (parts * rate))
		let sum = 0
		for (let i = first; i < first + parts; i++) {
			let at = Math.max(until[i] as number, earliest)
			sum += at
			at += takes
			until[i] = at > now + LATEST ? now + AGAIN + ((at - now - AGAIN) % (LATEST - AGAIN)) : at
		}
		return Math.min(LATEST / 1000, Math.max(1, Math.ceil(Math.round(sum / parts - now) / 1000)))
	}

	/** What was taken since the last promise, and was not promised, newcomers took. */
	#note(taken: number, each: number, now: number): void {
		const from = this.#at
		const time = now - from
		if (time >= Math.max(TELLING, MANY * each)) {
			let promised = 0
			for (const until of this.#until) promised += Math.max(0, Math.min(until, now) - from)
			promised *= this.#rate / PARTS
			const newcomers = Math.max(0, taken - this.#takenThen - promised) / time
			const before = this.#newcomers ?? newcomers
			this.#newcomers = newcomers + 0.5 ** (time / HALF_LIFE) * (before - newcomers)
		}
		this.#at = now
		this.#takenThen = taken
	}
}
