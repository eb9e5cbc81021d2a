// Builds the package: ES modules in dist/esm, CommonJS in dist/cjs. Each folder says which it is.
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
	// In two passes, as comments belong into the declarations, where editors look for them, and not into the code.
	compile('-p', project, '--removeComments', '--declaration', 'false', '--isolatedDeclarations', 'false')
	compile('-p', project, '--emitDeclarationOnly')
	// It is what bundlers ask about the modules in its folder, not that of the package.
	writeFileSync(`${folder}/package.json`, `${JSON.stringify({ type, sideEffects: false })}\n`)
}

rmSync('dist', { recursive: true, force: true })
embedPage()
embedLua()
build('dist/esm', 'tsconfig.build.json', 'module')
build('dist/cjs', 'tsconfig.cjs.json', 'commonjs')
// The page of the dashboard and the script of Redis are a seventh of the package: once is enough. An ES module can
// import from CommonJS everywhere.
for (const [file, name] of [
	['adapters/dashboard/assets.js', 'assets'],
	['adapters/redis/script.js', 'SCRIPT'],
]) {
	writeFileSync(`dist/esm/${file}`, `export { ${name} } from '../../../cjs/${file}'\n`)
}
// The compiler indents by four spaces, which are a tenth of the package. No string in the sources has several lines.
for (const file of readdirSync('dist', { recursive: true, encoding: 'utf8' })) {
	if (!/\.[jt]s$/.test(file)) continue
	const code = readFileSync(`dist/${file}`, 'utf8')
	writeFileSync(
		`dist/${file}`,
		code.replaceAll(/^(?: {4})+/gm, (spaces) => '\t'.repeat(spaces.length / 4)),
	)
}
