import type { Entrance, Stay } from '../../src/limiter/gate.js'

/**
 * Waits for what becomes of a request: its stay, `undefined` if it is not limited; or throws why it
 * is rejected.
 */
export async function settle(entrance: Entrance): Promise<Stay | undefined> {
	const settled = entrance.tag === 'waiting' ? await entrance.settled : entrance
	if (settled.tag === 'rejected') throw settled.error
	return settled.tag === 'admitted' ? settled : undefined
}
