import type { Permit } from '../../src/semaphore/permit.js'
import type { LeaseLostError } from './lease.js'

/** A permit of the fleet. Its weight can't change: Redis has counted it. */
export interface FleetPermit extends Omit<Permit, 'weigh'> {
	/**
	 * Is aborted with a {@link LeaseLostError} when the permit was lost. Each read of `aborted` or
	 * `reason` checks the lease first.
	 */
	readonly signal: AbortSignal
	/**
	 * The fencing token: a safe integer, higher than those of all permits given before. 0 for a
	 * permit that was given while Redis was unavailable.
	 */
	readonly token: number
}
