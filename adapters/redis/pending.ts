/** The commands under way, and how long they may take. */
export class Pending {
	readonly #timeout: number
	readonly #late: () => void
	/** Oldest first, with the time at which each was sent. */
	readonly #places = new Map<object, number>()
	#patience: NodeJS.Timeout | undefined = undefined
	#onQuiet: (() => void)[] = []

	/** @param late - is called when a command has got no answer for `timeout` ms. */
	constructor(timeout: number, late: () => void) {
		this.#timeout = timeout
		this.#late = late
	}

	/** Notes a command. It is only bounded in time after {@link watch}. */
	add(): object {
		const place = {}
		this.#places.set(place, performance.now())
		return place
	}

	watch(): void {
		this.#patience ??= setTimeout(losePatience, this.#timeout, this).unref()
	}

	delete(place: object): void {
		this.#places.delete(place)
		if (this.#places.size === 0) this.clear()
	}

	clear(): void {
		this.#places.clear()
		clearTimeout(this.#patience)
		this.#patience = undefined
		for (const resolve of this.#onQuiet.splice(0)) resolve()
	}

	/** Resolves when no command is under way. */
	quiet(): Promise<void> {
		if (this.#places.size === 0) return Promise.resolve()
		return new Promise((resolve) => {
			this.#onQuiet.push(resolve)
		})
	}

	/**
	 * Called when the oldest command has been under way for `timeout` ms. It counts only if this
	 * process was not blocked itself.
	 */
	losePatience(): void {
		this.#patience = undefined
		const oldest = this.#oldest() as number
		const due = oldest + this.#timeout
		const now = performance.now()
		if (now < due) {
			this.#patience = setTimeout(losePatience, due - now, this).unref()
		} else if (now - due > this.#timeout / 4) {
			// The process was blocked: answers may be unread, or commands not even sent. The time begins
			// again.
			for (const place of this.#places.keys()) this.#places.set(place, now)
			this.#patience = setTimeout(losePatience, this.#timeout, this).unref()
		} else {
			// Node reads sockets between timers and immediates: answers that have arrived count.
			setImmediate(() => {
				const left = this.#oldest()
				if (left === oldest) this.#late()
				else if (left !== undefined) this.#patience ??= setTimeout(losePatience, 1, this).unref()
			})
		}
	}

	/** When the oldest command under way was sent; `undefined`: there is none. */
	#oldest(): number | undefined {
		return this.#places.values().next().value
	}
}

function losePatience(pending: Pending): void {
	pending.losePatience()
}
