// Runs the tests on each supported Node, whose binaries the npm package `node` carries: node
// scripts/matrix.js [version…]
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const versions = process.argv.length > 2 ? process.argv.slice(2) : ['20', '22', '24', '26']
const failed = []

for (const version of versions) {
	const folder = join(root, '.matrix', version)
	mkdirSync(folder, { recursive: true })
	writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
	execFileSync(
		'npm',
		['install', '--no-audit', '--no-fund', '--loglevel=error', `node@${version}`],
		{
			cwd: folder,
			stdio: 'inherit',
		},
	)
	const node = join(folder, 'node_modules/node/bin/node')
	const actual = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()
	console.log(`\n=== Node ${actual}, with Express 5 and 4, Koa 3 and 2`)
	console.log(
		'(test/types.test.ts is left out: it runs a compiler, whose answer does not depend on Node)',
	)
	const { status } = spawnSync(
		node,
		['node_modules/vitest/vitest.mjs', 'run', '--exclude', 'test/types.test.ts', '--reporter=dot'],
		{ cwd: root, stdio: 'inherit' },
	)
	if (status !== 0) failed.push(actual)
}

console.log(failed.length === 0 ? '\nAll pass.' : `\nFailed on Node ${failed.join(', ')}`)
process.exitCode = failed.length === 0 ? 0 : 1
