import fc from 'fast-check'
import { afterEach, expect, test, vi } from 'vitest'
import type { Permit } from '../../../src/semaphore/permit.js'
import { newPrimary, quiet, TestWorker } from '../../support/cluster.js'

/*
 * Random histories of three processes and their primary, in one process: whatever is asked for,
 * given back and aborted, on its way or arrived, and whoever dies, no permit is too many, and none
 * is lost.
 */

const WORKERS = 3

type Step = readonly [kind: (typeof KINDS)[number], worker: number, pick: number]

const KINDS = [
	'ask',
	'ask',
	'ask',
	'release',
	'release',
	'abort',
	'stop',
	'goOn',
	'goOn',
	'turn',
	'die',
] as const

const steps = fc.array(
	fc.tuple(fc.constantFrom(...KINDS), fc.nat(WORKERS - 1), fc.nat(50)) as fc.Arbitrary<Step>,
	{ minLength: 20, maxLength: 120 },
)

/** What one worker has asked for. */
class Process {
	readonly worker: TestWorker
	readonly held: { permit: Permit; weight: number }[] = []
	readonly waiting = new Set<AbortController>()

	constructor(worker: TestWorker) {
		this.worker = worker
	}

	async ask(weight: number, key: string): Promise<void> {
		const aborter = new AbortController()
		this.waiting.add(aborter)
		try {
			const permit = await this.worker.limiter.acquire({ weight, key }, { signal: aborter.signal })
			this.held.push({ permit, weight })
		} catch {
			// Rejected, or aborted.
		}
		this.waiting.delete(aborter)
	}

	get atWork(): number {
		return this.held.reduce((sum, { weight }) => sum + weight, 0)
	}
}

afterEach(() => {
	vi.restoreAllMocks()
})

test.each([
	['without keys', false],
	['with keys', true],
])('no permit is too many, and none is lost, %s', async (_, keyed) => {
	vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
	await fc.assert(
		fc.asyncProperty(
			fc.integer({ min: 2, max: 4 }),
			fc.nat(6),
			steps,
			async (capacity, maxQueue, history) => {
				const options = {
					capacity,
					maxQueue,
					weight: ({ weight }: { weight: number }) => weight,
					...(keyed && { key: ({ key }: { key: string }) => key }),
				}
				const primary = newPrimary(options)
				const start = () => new Process(new TestWorker(primary, options))
				const processes = Array.from({ length: WORKERS }, start)
				for (const [kind, place, pick] of history) {
					const process = processes[place] as Process
					const { worker, held, waiting } = process
					if (kind === 'ask') process.ask(1 + (pick % 2), `key ${pick % 2}`)
					if (kind === 'release')
						held.splice(pick % Math.max(1, held.length), 1)[0]?.permit.release()
					if (kind === 'abort') [...waiting][pick % Math.max(1, waiting.size)]?.abort()
					if (kind === 'stop') worker.stop()
					if (kind === 'goOn') worker.goOn()
					if (kind === 'turn') await quiet()
					if (kind === 'die') {
						worker.die()
						processes[place] = start()
					}
					const atWork = processes.reduce((sum, each) => sum + each.atWork, 0)
					expect(atWork).toBeLessThanOrEqual(keyed ? 2 * capacity : capacity)
					expect(primary.active).toBeLessThanOrEqual(keyed ? 2 * capacity : capacity)
					expect(primary.queued).toBeLessThanOrEqual(keyed ? 2 * maxQueue : maxQueue)
				}
				for (const { worker } of processes) worker.goOn()
				await quiet()
				while (processes.some(({ held }) => held.length > 0)) {
					for (const { held } of processes)
						for (const { permit } of held.splice(0)) permit.release()
					await quiet()
				}
				expect([primary.active, primary.queued, primary.stats().keys]).toEqual([0, 0, 0])
				for (const { worker, waiting } of processes) {
					const { active, queued, available } = worker.limiter
					expect([active, queued, waiting.size, available]).toEqual([0, 0, 0, true])
					expect(worker.limiter.stats().keys).toBe(0)
				}
			},
		),
		{ numRuns: 60 },
	)
})
