import cluster from 'node:cluster'
import { coded } from '../../src/errors.js'
import type { SharedLimiter } from '../../src/http/setup.js'
import { join, serve, tellPrimary } from './channel.js'
import { type ClusterLimiterOptions, readClusterOptions } from './options.js'
import { PrimaryLimiter } from './primary.js'
import { WorkerLimiter } from './worker.js'

export type { ClusterLimiterOptions } from './options.js'

/**
 * One limit for all processes of a cluster. Made by {@link clusterLimiter}; used like a `Limiter`:
 * `limit(limiter)`.
 *
 * In the primary, its figures and its observers are about all processes; in a worker, about this
 * worker. `resize()` is for all processes. `close()` in the primary is for all, in a worker only
 * for this worker.
 */
export interface ClusterLimiter extends SharedLimiter {
	/** Whether the primary answers. In a worker, `false` until its first answer. */
	readonly available: boolean
}

/**
 * A limiter that all processes of a `node:cluster` share. The primary keeps the permits and the
 * queue, and the workers ask it: so the primary must make the limiter, too, with the same options.
 * Where there is no cluster, it is the limiter of this process.
 *
 * ```ts
 * const renders = clusterLimiter({ name: 'renders', capacity: 10 })
 * if (cluster.isPrimary) for (let i = 0; i < 4; i++) cluster.fork()
 * else createApp(limit(renders)).listen(3000)
 * ```
 *
 * @throws TypeError, RangeError - an option is of the wrong type, out of range, missing, or
 * unknown.
 * @throws Error - this process has a limiter of this name already, or it is a worker of PM2, whose
 * daemon is the primary.
 */
export function clusterLimiter(options: ClusterLimiterOptions<never>): ClusterLimiter {
	const settings = readClusterOptions(options)
	if (cluster.isPrimary) {
		const limiter = new PrimaryLimiter(settings)
		serve(settings.name, limiter, limiter.announcement)
		return limiter
	}
	if (isPm2Worker()) throw underPm2()
	const limiter = new WorkerLimiter(settings, tellPrimary)
	join(settings.name, limiter)
	if (process.connected) limiter.begin()
	else limiter.disconnected()
	return limiter
}

/** Not only by the environment: a cluster of one's own, started by such a worker, inherits that. */
function isPm2Worker(): boolean {
	return process.env.pm_id !== undefined && /\bProcessContainer\.js$/.test(process.argv[1] ?? '')
}

function underPm2(): Error {
	const message =
		"clusterLimiter must not be used in PM2's cluster mode, whose primary is PM2's daemon and runs no code of " +
		"yours: use redisLimiter, or PM2's fork mode with a cluster of your own"
	return coded('ERR_INFLIGHT_NO_PRIMARY', new Error(message))
}
