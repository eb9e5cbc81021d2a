/** The longest time that a client is told to wait before it comes back, in ms. */
const LATEST = 60_000

/**
 * Once the whole minute is promised, its second half is promised again, from this time on, in ms.
 */
const AGAIN = 30_000

/** The least part of the pace that is promised, however many newcomers come. */
const LEAST = 0.1

/**
 * A period without rejections shows how many newcomers come, if it lasts at least TELLING ms, and
 * at least MANY permits could come back in it. Shorter periods are gaps within a burst.
 */
const TELLING = 1_000
const MANY = 10

/** A measurement of this age, in ms, counts half. */
const HALF_LIFE = 15_000

/**
 * The number of parts of a second, each with a schedule of its own. Clients are told whole seconds,
 * so they come back in the same part of a second in which they came.
 */
const PARTS = 16

/** At least this many clients may come back at once. */
const FEW = 4

/**
 * The times at which rejected clients are expected back. Each is told a time, and takes its share
 * of the pace at that time: so the next one is told a later time. Only the time until which the
 * pace is promised is kept.
 */
export class Returns {
	/** The time until which the pace is promised, in ms, for each part of a second. */
	readonly #until = new Float64Array(PARTS)
	/** Permits per ms that were promised last. */
	#rate = 0
	/** Permits per ms that newcomers take, measured while no request was rejected. */
	#newcomers: number | undefined
	/** The time of the last promise, in ms, and the permits that had been taken then. */
	#at: number
	#takenThen = 0

	/** @param since - the time at which the first permits were taken, in ms. */
	constructor(since: number) {
		this.#at = since
	}

	/**
	 * Promises room to a client that is rejected now.
	 *
	 * @param weight - the permits that it wants.
	 * @param wanted - the permits that the waiters want.
	 * @param taken - the permits that were ever taken.
	 * @param each - the time in which one permit comes back, in ms.
	 * @param now - in ms.
	 * @returns in how many seconds to come back: an integer from 1 to 60.
	 */
	promise(weight: number, wanted: number, taken: number, each: number, now: number): number {
		this.#note(taken, each, now)
		const until = this.#until
		const rate = Math.max(LEAST / each, 1 / each - (this.#newcomers ?? 0))
		this.#rate = rate
		// Up to half of the queue may come back at once. So as many parts of a second share one
		// schedule as take that many clients.
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

	/** Permits that were taken since the last promise, but not promised, were taken by newcomers. */
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
