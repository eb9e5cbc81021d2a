/** A promise, and what resolves it: what `Promise.withResolvers` makes, which Node 20 does not have. */
export interface Deferred {
	readonly promise: Promise<void>
	resolve(): void
}

export function deferred(): Deferred {
	let resolve!: () => void
	const promise = new Promise<void>((done) => {
		resolve = done
	})
	return { promise, resolve }
}
