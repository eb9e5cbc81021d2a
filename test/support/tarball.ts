import type { TestProject } from 'vitest/node'
import { pack, scratch } from './packed.js'

declare module 'vitest' {
	interface ProvidedContext {
		/** The path of the packed package. */
		tarball: string
	}
}

/** Packs the package once, for all tests that use it as its users do. */
export default async function setup(project: TestProject): Promise<() => void> {
	const { folder, remove } = scratch()
	project.provide('tarball', await pack(folder))
	return remove
}
