import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { type Program, print, programs } from '../support/exchange-model.js'
import { openBench } from '../support/exchange-run.js'

/*
 * A run can be repeated, and be longer: EXCHANGES_SEED=… EXCHANGES_RUNS=100000 npx vitest run
 * test/http/exchange-model.test.ts
 */
const SEED = Number(process.env.EXCHANGES_SEED ?? 9)
const RUNS = Number(process.env.EXCHANGES_RUNS ?? 2000)
/** One program alone: the JSON that a failure prints. */
const ONLY = process.env.EXCHANGES_ONLY

test(`whatever happens to exchanges, the laws hold: ${RUNS} programs (EXCHANGES_SEED=${SEED})`, {
	timeout: 120_000 + RUNS * 100,
}, async () => {
	vi.spyOn(console, 'error').mockImplementation(() => {})
	const bench = await openBench()
	if (ONLY !== undefined) {
		const revived = (_name: string, value: unknown): unknown =>
			value === 'Infinity' ? Number.POSITIVE_INFINITY : value
		return bench.run(JSON.parse(ONLY, revived) as Program)
	}
	const result = await fc.check(fc.asyncProperty(programs, bench.run), {
		seed: SEED,
		numRuns: RUNS,
	})
	const [program] = result.counterexample ?? []
	if (program !== undefined) {
		const { message } = result.errorInstance as Error
		expect.unreachable(
			`${message}\n${print(program)}\n  EXCHANGES_SEED=${SEED}, ${result.numRuns} programs, ${result.numShrinks} shrinks`,
		)
	}
	expect(result.failed).toBe(false)
	await bench.close()
	vi.restoreAllMocks()
})
