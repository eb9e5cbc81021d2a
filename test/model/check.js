// Checks the protocol of adapters/redis by its model: node test/model/check.js (needs spin and
// gcc). With more sessions or waits for each process, it takes longer: node test/model/check.js 2 2
// (a minute).
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const MODEL = join(import.meta.dirname, 'fleet.pml')
const [sessions = '2', waits = '1'] = process.argv.slice(2)

const folder = mkdtempSync(join(tmpdir(), 'inflight-limit-model-'))
try {
	const run = (/** @type {string} */ command, /** @type {string[]} */ ...args) =>
		execFileSync(command, args, {
			cwd: folder,
			encoding: 'utf8',
			stdio: ['ignore', 'pipe', 'ignore'],
		})
	/**
	 * @param {string} what
	 * @param {string[]} model
	 * @param {string[]} compiler
	 * @param {string[]} search
	 */
	const check = (what, model, compiler, search) => {
		run('spin', ...model, '-a', MODEL)
		run('gcc', '-O2', '-w', '-DCOLLAPSE', ...compiler, '-o', 'pan', 'pan.c')
		// What has no session left stands still: that is no fault.
		const found = run('./pan', '-E', '-m3000000', ...search)
		const [, errors] = /errors: (\d+)/.exec(found) ?? []
		const [, states] = /(\S+) states, stored/.exec(found) ?? []
		const whole = !/max search depth too small|out of memory|not completed/.test(found)
		console.log(`${what}: ${states} states, ${errors} errors${whole ? '' : ', not all seen'}`)
		if (errors !== '0' || !whole) process.exitCode = 1
	}
	const sizes = [`-DSESSIONS=${sessions}`, `-DWAITS=${waits}`]
	check('never more than the capacity, no free permit beside a waiter', sizes, ['-DSAFETY'], [])
	const few = ['-DLIVE', '-DSESSIONS=1', '-DWAITS=1']
	check(
		'a process that is given a permit learns of it',
		few,
		['-DNFAIR=3'],
		['-a', '-f', '-N', 'learns'],
	)
} finally {
	rmSync(folder, { recursive: true })
}
