// Two plain `tsc` passes: ES modules to dist/esm, CommonJS to dist/cjs. Each folder says which it is.
import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { embedLua } from './embed-lua.js'
import { embedPage } from './embed-page.js'

/** @param {string} folder @param {string} project @param {string} type */
function build(folder, project, type) {
	execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', project], { stdio: 'inherit' })
	writeFileSync(`${folder}/package.json`, `${JSON.stringify({ type })}\n`)
}

rmSync('dist', { recursive: true, force: true })
embedPage()
embedLua()
build('dist/esm', 'tsconfig.build.json', 'module')
build('dist/cjs', 'tsconfig.cjs.json', 'commonjs')
