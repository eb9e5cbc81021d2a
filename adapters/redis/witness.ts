/**
 * The books that a process was in when it left, and what it has learned from messages since then
 * (see "witness" in protocol.ts).
 */
interface Seen {
	readonly generation: string
	readonly secret: string
	closed: boolean
	/** The first generation that was opened after that. */
	opened: string | undefined
	/** The generation that this process has opened. */
	own: string | undefined
}

/** Whether a process has seen that nobody was in the fleet before it opened the books. */
export class Witness {
	#seen: Seen | undefined = undefined

	/** Something may have been missed. */
	forget(): void {
		this.#seen = undefined
	}

	/** This process has left the books. */
	left(generation: string, secret: string): void {
		this.#seen = { generation, secret, closed: false, opened: undefined, own: undefined }
	}

	/** A message says that books were closed. */
	closed(generation: string, secret: string): void {
		const seen = this.#seen
		if (seen?.generation === generation && seen.secret === secret) seen.closed = true
	}

	/**
	 * A message says that books were opened. They miss nothing only if they are the first since the
	 * closing of the books that this process was in.
	 */
	opened(generation: string): void {
		const seen = this.#seen
		if (seen === undefined) return
		if (!seen.closed || seen.opened !== undefined) this.#seen = undefined
		else seen.opened = generation
	}

	openedItself(generation: string): void {
		if (this.#seen !== undefined) this.#seen.own = generation
	}

	/** The generation that misses nothing, as soon as that is known, and only once. */
	testify(): string | undefined {
		const { opened, own } = this.#seen ?? {}
		if (own === undefined || opened === undefined) return undefined
		this.#seen = undefined
		return opened === own ? own : undefined
	}
}
