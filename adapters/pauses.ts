import { LONGEST_TIMER } from '../src/checks.js'
import { now } from '../src/semaphore/clock.js'

/** Origins that are remembered at most. */
const MOST = 1_000

/** The origins that have told when to come back: they are not asked before. */
export class Pauses {
	readonly #longest: number
	/** The time until which an origin is not asked, in ms. */
	readonly #until = new Map<string, number>()

	/** @param longest - the longest pause, in ms, whatever an origin says. */
	constructor(longest: number) {
		this.#longest = longest
	}

	/** Notes the `Retry-After` of a 429 or 503 (RFC 9110, section 10.2.3). */
	note(origin: string, { status, headers }: Pick<Response, 'status' | 'headers'>): void {
		if (status !== 429 && status !== 503) return
		const pause = Math.min(millisecondsOf(headers.get('retry-after') ?? ''), this.#longest)
		if (!(pause > 0)) return
		const until = Math.max(this.#until.get(origin) ?? 0, now() + pause)
		// A map keeps the order in which its keys came: the first is the oldest.
		this.#until.delete(origin)
		this.#until.set(origin, until)
		const [oldest] = this.#until.keys()
		if (this.#until.size > MOST) this.#until.delete(oldest as string)
	}

	/** Resolves when the origin may be asked. Rejects with the reason of the signal. */
	async over(origin: string, signal: AbortSignal | undefined): Promise<void> {
		for (;;) {
			const left = (this.#until.get(origin) ?? 0) - now()
			if (left <= 0) break
			await new Promise<void>((resolve) => {
				const wake = (): void => {
					clearTimeout(timer)
					signal?.removeEventListener('abort', wake)
					resolve()
				}
				const timer = setTimeout(wake, Math.min(left, LONGEST_TIMER))
				signal?.addEventListener('abort', wake)
			})
			signal?.throwIfAborted()
		}
		this.#until.delete(origin)
	}
}

/** A number of seconds, or a date; `NaN` for what is neither. */
function millisecondsOf(retryAfter: string): number {
	return /^\d+$/.test(retryAfter) ? Number(retryAfter) * 1_000 : Date.parse(retryAfter) - Date.now()
}
