// Writes a folder for each entry of the package, like express/package.json, or removes them again
// (--remove). They are for tools that don't know `exports`: TypeScript with the module resolution
// node10, and Jest 27. They exist while the package is packed.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'

const { exports } = JSON.parse(readFileSync('package.json', 'utf8'))
for (const [entry, conditions] of Object.entries(exports)) {
	const folder = entry.slice(2)
	if (folder === '' || typeof conditions === 'string') continue
	rmSync(folder, { recursive: true, force: true })
	if (process.argv.includes('--remove')) continue
	const main = `.${conditions.require}`
	mkdirSync(folder)
	writeFileSync(
		`${folder}/package.json`,
		`${JSON.stringify({ main, types: main.replace(/\.js$/, '.d.ts') })}\n`,
	)
}
