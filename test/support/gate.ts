import { expect } from 'vitest'
import { type Entrance, enter, type Gate, type Stay } from '../../src/limiter/gate.js'
import { type Inspection, inspect } from '../../src/limiter/inspection.js'

/**
 * Waits for what becomes of a request: its stay, `undefined` if it is not limited; or throws why it
 * is rejected.
 */
export async function settle(entrance: Entrance): Promise<Stay | undefined> {
	const settled = entrance.tag === 'waiting' ? await entrance.settled : entrance
	if (settled.tag === 'rejected') throw settled.error
	return settled.tag === 'admitted' ? settled : undefined
}

/** Lets a client leave while its handler is at work, and expects that the gate counts it once. */
export async function expectAbandonedIsCounted(
	gate: Gate & { [inspect](): Inspection },
): Promise<void> {
	const stay = await settle(gate[enter]({}, new AbortController().signal))
	const counted = (): number => gate[inspect]().abandoned
	expect(counted()).toBe(0)
	stay?.abandon?.()
	stay?.abandon?.()
	expect(counted()).toBe(1)
	stay?.leave('abandoned')
	stay?.abandon?.()
	expect(counted()).toBe(0)
}
