// Checks the protocol of adapters/redis by its model: npm run model (needs spin and gcc). Then
// checks the check: with any one of some faults in the model, it must find an error. With more
// sessions or waits for each process, it takes longer: npm run model 2 2 (a minute).
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const MODEL = join(import.meta.dirname, 'fleet.pml')
const [sessions = '2', waits = '1'] = process.argv.slice(2)

/**
 * Faults: what it means, a text of the model, and what takes its place.
 *
 * @type {[what: string, text: string, fault: string][]}
 */
const FAULTS = [
	['no grace after a loss', 'generation++; grace = true', 'generation++'],
	[
		'a newcomer is admitted while holders may be missing',
		'taken < CAPACITY && !grace',
		'taken < CAPACITY',
	],
	['a process joins without what it holds', 'working[p], seen[p])', 'false, seen[p])'],
	['a lease ends in Redis before it ends in its process', 'lapsed[p] && known[p]', 'known[p]'],
	['a grant of an older session counts', 'its == session[p] && waiting[p] &&', 'waiting[p] &&'],
	['a grant for another waiter counts', 'waiting[p] && its_id == id[p]', 'waiting[p]'],
	['a command of an older session counts', 'books && known[p] == its', 'books && known[p] != 0'],
	[
		'the permit of a dead process goes to nobody',
		'drop(p);\n\t\tlimit = LIMIT(freed); grant(limit);',
		'drop(p);',
	],
	['a cancel leaves a waiter behind', ':: else -> outOfQueue(p)\n\t\t\tfi', ':: else\n\t\t\tfi'],
]

const folder = mkdtempSync(join(tmpdir(), 'inflight-limit-model-'))
try {
	const run = (/** @type {string} */ command, /** @type {string[]} */ ...args) =>
		execFileSync(command, args, {
			cwd: folder,
			encoding: 'utf8',
			stdio: ['ignore', 'pipe', 'ignore'],
		})
	/**
	 * @param {string} file
	 * @param {string[]} model
	 * @param {string[]} compiler
	 * @param {string[]} search
	 */
	const look = (file, model, compiler, search) => {
		run('spin', ...model, '-a', file)
		run('gcc', '-O2', '-w', '-DCOLLAPSE', ...compiler, '-o', 'pan', 'pan.c')
		// What has no session left stands still: that is no fault.
		const found = run('./pan', '-E', '-m3000000', ...search)
		const [, errors] = /errors: (\d+)/.exec(found) ?? []
		const [, states] = /(\S+) states, stored/.exec(found) ?? []
		const whole = !/max search depth too small|out of memory|not completed/.test(found)
		return { errors, states, whole }
	}
	/**
	 * @param {string} what
	 * @param {ReturnType<typeof look>} found
	 */
	const report = (what, { errors, states, whole }) => {
		console.log(`${what}: ${states} states, ${errors} errors${whole ? '' : ', not all seen'}`)
		if (errors !== '0' || !whole) process.exitCode = 1
	}
	const sizes = [`-DSESSIONS=${sessions}`, `-DWAITS=${waits}`]
	report(
		'never more than the capacity, no free permit beside a waiter',
		look(MODEL, sizes, ['-DSAFETY'], []),
	)
	const few = ['-DLIVE', '-DSESSIONS=1', '-DWAITS=1']
	report(
		'a process that is given a permit learns of it',
		look(MODEL, few, ['-DNFAIR=3'], ['-a', '-f', '-N', 'learns']),
	)
	const model = readFileSync(MODEL, 'utf8')
	for (const [what, text, fault] of FAULTS) {
		if (!model.includes(text)) throw new Error(`the model has no ${JSON.stringify(text)}`)
		const file = join(folder, 'fault.pml')
		writeFileSync(file, model.replace(text, fault))
		const { errors } = look(file, ['-DSESSIONS=2', '-DWAITS=2'], ['-DSAFETY'], [])
		console.log(`${what}: ${errors === '0' ? 'not found' : 'found'}`)
		if (errors === '0') process.exitCode = 1
	}
} finally {
	rmSync(folder, { recursive: true })
}
