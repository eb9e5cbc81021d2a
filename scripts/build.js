// Builds the package: ES modules in dist/esm, CommonJS in dist/cjs. A package.json in each folder
// says which.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { embedLua } from './embed-lua.js'
import { embedPage } from './embed-page.js'

const { exports } = JSON.parse(readFileSync('package.json', 'utf8'))

/** @param {string[]} options */
function compile(...options) {
	execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', ...options], {
		stdio: 'inherit',
	})
}

/** @param {string} folder @param {string} project @param {string} type */
function build(folder, project, type) {
	// The code is without comments: the declarations have them, as editors show them.
	compile(
		'-p',
		project,
		'--removeComments',
		'--declaration',
		'false',
		'--isolatedDeclarations',
		'false',
	)
	// Bundlers look for `sideEffects` in the nearest package.json, which is this one.
	writeFileSync(`${folder}/package.json`, `${JSON.stringify({ type, sideEffects: false })}\n`)
}

rmSync('dist', { recursive: true, force: true })
embedPage()
embedLua()
build('dist/esm', 'tsconfig.build.json', 'module')
build('dist/cjs', 'tsconfig.cjs.json', 'commonjs')
compile('-p', 'tsconfig.cjs.json', '--emitDeclarationOnly')
// Both builds have the same declarations, which are a fifth of the package. So the entries of the
// one export those of the other.
for (const entry of Object.values(exports)) {
	if (typeof entry === 'string') continue
	const declarations = entry.import.replace(/\.js$/, '.d.ts')
	const path = relative(dirname(entry.import), entry.require)
	writeFileSync(declarations, `export * from '${path}'\n`)
}
// No entry's types lead to the other declarations, which are a third of them.
const reached = new Set()
/** @param {string} file */
function reach(file) {
	if (reached.has(file)) return
	reached.add(file)
	for (const [, path = ''] of readFileSync(file, 'utf8').matchAll(/['"](\.[^'"]*)\.js['"]/g)) {
		reach(join(dirname(file), `${path}.d.ts`))
	}
}
for (const entry of Object.values(exports)) {
	if (typeof entry !== 'string') reach(join(entry.require.replace(/\.js$/, '.d.ts')))
}
for (const file of readdirSync('dist/cjs', { recursive: true, encoding: 'utf8' })) {
	const path = join('dist/cjs', file)
	if (path.endsWith('.d.ts') && !reached.has(path)) rmSync(path)
}
// The page of the dashboard and the script of Redis are a seventh of the package, so they are
// packed once. An ES module can import from CommonJS everywhere.
for (const [file, name] of [
	['adapters/dashboard/assets.js', 'assets, version'],
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
