/** The right to be at work. Give it back with `release()`, or by `using`. */
export interface Permit {
	/** How long its holder waited for it, in ms; 0 when there was room. */
	readonly waited: number
	/**
	 * Changes how many permits its holder has: for a task whose weight is only known later. More are
	 * taken at once, even beyond the capacity: others then wait longer. What is too many is given
	 * back at once. After the release, it does nothing.
	 *
	 * @throws TypeError, RangeError - `weight` is not an integer from 1 to 2^40.
	 * @throws Error - its limiter shares the limit through Redis, and can't change a weight.
	 */
	weigh(weight: number): void
	/** Gives the permit back. Only the first call counts. */
	release(): void
	[Symbol.dispose](): void
}
