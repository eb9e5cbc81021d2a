import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/**
 * Finds a program that some tests need, and that not everybody has. Where it is not installed, what
 * needs it is left out, loudly; but with `CI=true` nothing may be left out.
 */
export function programOrSkip(names: string[], debianPackage: string): string | undefined {
	const folders = (process.env.PATH ?? '').split(delimiter)
	const found = folders
		.flatMap((folder) => names.map((name) => join(folder, name)))
		.find(existsSync)
	if (found !== undefined) return found
	const missing = `LEFT OUT: tests that need ${names.join(' or ')}, which is not installed. On Debian: apt-get install ${debianPackage}`
	if (process.env.CI === 'true') throw new Error(missing)
	process.stderr.write(`\n${'!'.repeat(100)}\n${missing}\n${'!'.repeat(100)}\n\n`)
	return undefined
}
