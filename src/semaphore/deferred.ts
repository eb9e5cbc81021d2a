/** A promise, and the function that resolves it. Node 20 has no `Promise.withResolvers`. */
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
