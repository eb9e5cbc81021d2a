// Runs all checks that a change must pass: node scripts/check.js. Its last line says how many
// passed and failed: each test and each step counts. .ci/run passes the number of its own steps,
// which count too.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'

const results = 'coverage/tests.json'
const steps = [
	['build'],
	['types'],
	['lint'],
	['test', '--', '--reporter=default', '--reporter=json', `--outputFile=${results}`],
	['package'],
	['unused'],
	['start'],
]

let passed = Number(process.argv[2] ?? 0)
let failed = 0
rmSync(results, { force: true })
for (const step of steps) {
	console.log(`\n=== npm run ${step.join(' ')}`)
	const { status } = spawnSync('npm', ['run', ...step], { stdio: 'inherit' })
	if (status === 0) passed++
	else failed++
	if (status !== 0) console.log(`FAILED: npm run ${step[0]}`)
}
if (existsSync(results)) {
	const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(results, 'utf8'))
	passed += numPassedTests
	failed += numFailedTests
}
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
