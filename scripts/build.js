// Builds the package: ES modules in dist/esm, CommonJS in dist/cjs. A package.json in each folder
// says which.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { embedLua } from './embed-lua.js'
import { embedPage } from './embed-page.js'

/** @param {string[]} options */
function compile(...options) {
	execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', ...options], { stdio: 'inherit' })
}

/** @param {string} folder @param {string} project @param {string} type */
function build(folder, project, type) {
	// In two passes: the declarations keep the comments, as editors show them; the code does not.
	compile('-p', project, '--removeComments', '--declaration', 'false', '--isolatedDeclarations', 'false')
	compile('-p', project, '--emitDeclarationOnly')
	// Bundlers look for `sideEffects` in the nearest package.json, which is this one.
	writeFileSync(`${folder}/package.json`, `${JSON.stringify({ type, sideEffects: false })}\n`)
}

rmSync('dist', { recursive: true, force: true })
embedPage()
embedLua()
build('dist/esm', 'tsconfig.build.json', 'module')
build('dist/cjs', 'tsconfig.cjs.json', 'commonjs')
// The page of the dashboard and the script of Redis are a seventh of the package, so they are
// packed once. An ES module can import from CommonJS everywhere.
for (const [file, name] of [
	['adapters/dashboard/assets.js', 'assets'],
	['adapters/redis/script.js', 'SCRIPT'],
]) {
	writeFileSync(`dist/esm/${file}`, `export { ${name} } from '../../../cjs/${file}'\n`)
}
// The compiler indents by four spaces, which are a tenth of the package. They can be replaced, as
// no string in the sources has several lines.
for (const file of readdirSync('dist', { recursive: true, encoding: 'utf8' })) {
	if (!/\.[jt]s$/.test(file)) continue
	const code = readFileSync(`dist/${file}`, 'utf8')
	writeFileSync(
		`dist/${file}`,
		code.replaceAll(/^(?: {4})+/gm, (spaces) => '\t'.repeat(spaces.length / 4)),
	)
}
