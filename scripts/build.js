// Two plain `tsc` passes: ES modules to dist/esm, CommonJS to dist/cjs. Each folder says which it is.
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'

rmSync('dist', { recursive: true, force: true })
for (const [folder, project, type] of [
	['dist/esm', 'tsconfig.build.json', 'module'],
	['dist/cjs', 'tsconfig.cjs.json', 'commonjs'],
]) {
	execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', project], { stdio: 'inherit' })
	mkdirSync(folder, { recursive: true })
	writeFileSync(`${folder}/package.json`, `${JSON.stringify({ type })}\n`)
}
