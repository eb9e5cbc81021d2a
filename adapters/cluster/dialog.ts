import { createHash } from 'node:crypto'
import { onNextTurn } from '../../src/semaphore/clock.js'
import type { Outcome } from '../../src/stats/observer.js'
import type { Settings } from './options.js'
import { type Acquire, type Answer, type Ask, AT_ONCE, type Leave, type Weigh } from './protocol.js'

/**
 * The longest key that is sent as it is, in characters. Of longer ones, the primary gets a hash.
 */
const LONGEST_KEY = 256

/** A request that wants permits of the primary. */
export interface Asked {
	readonly id: number
	readonly weight: number
	readonly key: string | undefined
}

/**
 * Whether the primary answers.
 *
 *     joining ── the first answer ──► in ◄── an answer, or none in time ──► out
 *     any ── the channel has closed ──► gone
 */
export type State = 'joining' | 'in' | 'out' | 'gone'

/** The limiter that has a dialog with the primary. */
export interface DialogOwner<A extends Asked> {
	/** The state has changed. */
	changed(before: State): void
	/** The primary did not answer in time about these requests. */
	unanswered(requests: A[]): void
}

/**
 * What a worker says to the primary about one limiter, and whether the primary answers. All that
 * comes up in one turn of the event loop travels together.
 */
export class Dialog<A extends Asked> {
	state: State = 'joining'
	readonly #owner: DialogOwner<A>
	readonly #settings: Settings
	readonly #post: (ask: Ask) => void
	/** Those that the primary was not asked for yet, in order of arrival. */
	readonly #unasked = new Set<A>()
	/** Those in the message that is on its way. */
	readonly #asked = new Set<A>()
	#leaving: Leave[] = []
	#weighing: Weigh[] = []
	/** A capacity that the primary was not told yet. */
	#resize: number | undefined = undefined
	/** The message that is not acknowledged yet. */
	#onItsWay: Ask | undefined = undefined
	#timer: NodeJS.Timeout | undefined = undefined
	#flushing = false
	#turn = 0

	/** @param post - sends a message to the primary. */
	constructor(owner: DialogOwner<A>, settings: Settings, post: (ask: Ask) => void) {
		this.#owner = owner
		this.#settings = settings
		this.#post = post
	}

	/** Asks the primary whether it serves this limiter, and repeats what it may have missed. */
	begin(): void {
		const { terms } = this.#settings
		if (this.#onItsWay === undefined) this.#flush(terms)
		else this.#post({ ...this.#onItsWay, terms })
	}

	ask(request: A): void {
		this.#unasked.add(request)
		this.#flushSoon()
	}

	/** The request waits no longer. @returns whether the primary may have been asked for it. */
	forget(request: A): boolean {
		this.#asked.delete(request)
		return !this.#unasked.delete(request)
	}

	leave(id: number, outcome: Outcome): void {
		this.#leaving.push([id, outcome])
		this.#flushSoon()
	}

	weigh(id: number, weight: number): void {
		this.#weighing.push([id, weight])
		this.#flushSoon()
	}

	resize(capacity: number): void {
		this.#resize = capacity
		this.#flushSoon()
	}

	/** An answer has come, and what it says was done. */
	answered({ turn, begun }: Answer): void {
		if (begun) this.begin()
		if (turn !== this.#onItsWay?.turn) return
		clearTimeout(this.#timer)
		this.#onItsWay = undefined
		this.#asked.clear()
		this.#become('in')
		if (this.#unasked.size > 0 || this.#resize !== undefined) this.#flushSoon()
	}

	/** The channel has closed. */
	end(): void {
		clearTimeout(this.#timer)
		this.#become('gone')
	}

	#flushSoon(): void {
		if (this.#flushing) return
		this.#flushing = true
		onNextTurn(() => {
			this.#flushing = false
			this.#flush()
		})
	}

	#flush(terms?: string): void {
		if (this.state === 'gone') return
		const free = this.#onItsWay === undefined
		const acquire = free ? this.#next() : []
		const resize = free ? this.#resize : undefined
		if (free) this.#resize = undefined
		const [leave, weigh] = [this.#leaving, this.#weighing]
		this.#leaving = []
		this.#weighing = []
		const needsAnswer = acquire.length > 0 || terms !== undefined || resize !== undefined
		if (!needsAnswer && leave.length === 0 && weigh.length === 0) return
		const { name, primaryTimeout } = this.#settings
		const turn = needsAnswer ? ++this.#turn : 0
		const ask = { name, turn, acquire, leave, weigh, terms, resize }
		if (needsAnswer) {
			this.#onItsWay = ask
			this.#timer = setTimeout(() => this.#lookForAnswer(), primaryTimeout).unref()
		}
		this.#post(ask)
	}

	#next(): Acquire[] {
		const next: Acquire[] = []
		for (const request of this.#unasked) {
			if (next.length === AT_ONCE) break
			this.#unasked.delete(request)
			this.#asked.add(request)
			const { id, weight, key } = request
			next.push([id, weight, key === undefined ? null : wireKey(key)])
		}
		return next
	}

	/** The time of an answer is up. */
	#lookForAnswer(): void {
		const late = this.#onItsWay
		// If this process was busy itself, the answer is there, and is read before the next turn.
		onNextTurn(() => {
			if (this.#onItsWay !== late || this.state === 'gone') return
			this.#become('out')
			this.#owner.unanswered([...this.#asked, ...this.#unasked])
		})
	}

	#become(state: State): void {
		const before = this.state
		if (before === state || before === 'gone') return
		this.state = state
		this.#owner.changed(before)
	}
}

function wireKey(key: string): string {
	return key.length <= LONGEST_KEY
		? key
		: `#${createHash('sha256').update(key).digest('base64url')}`
}
