// A worker of a cluster: makes a limiter, and does with it what the test says in messages.
import http from 'node:http'
import { clusterLimiter } from 'inflight-limit/cluster'

/** @type {import('inflight-limit/cluster').ClusterLimiter} */
let limiter
/** @type {import('inflight-limit').Permit[]} */
const held = []
/** @type {string[]} */
const warnings = []
let running = true
/** @type {Promise<void>[]} */
let loops = []
const seen = { done: 0, rejected: 0 }

process.on('warning', (warning) =>
	warnings.push(/** @type {{ code?: string }} */ (warning).code ?? ''),
)

/**
 * Work that the test sees: a request that is open for as long as it goes on. @param {number} port
 */
function work(port) {
	return new Promise((resolve, reject) => {
		const request = http.get({ port, host: '127.0.0.1', agent: false }, (response) => {
			response.resume()
			response.on('end', resolve)
			response.on('error', reject)
		})
		request.on('error', reject)
	})
}

/** @type {Record<string, (given: any) => unknown>} */
const does = {
	make(options) {
		try {
			limiter = clusterLimiter(options)
			return 'made'
		} catch (error) {
			return /** @type {{ code?: string }} */ (error).code
		}
	},
	async acquire() {
		const since = performance.now()
		try {
			held.push(await limiter.acquire())
			return 'admitted'
		} catch (error) {
			const { reason, message } = /** @type {{ reason?: string, message: string }} */ (error)
			return { reason: reason ?? message, after: performance.now() - since }
		}
	},
	release: () => held.shift()?.release(),
	/** Works again and again, several times at once. */
	loop({ port, concurrency }) {
		loops = Array.from({ length: concurrency }, async () => {
			while (running) {
				try {
					await limiter.run(() => work(port))
					seen.done++
				} catch {
					seen.rejected++
				}
			}
		})
	},
	async stop() {
		running = false
		await Promise.all(loops)
		await limiter.onIdle()
		return seen
	},
	/** Is busy from when it has asked, before it can read the answer. @param {number} ms */
	acquireBusy(ms) {
		const admission = does.acquire?.(undefined)
		setImmediate(() => {
			const end = performance.now() + ms
			while (performance.now() < end);
		})
		return admission
	},
	figures: () => ({ ...limiter.stats(), available: limiter.available, warnings }),
	async both(options) {
		const { createRequire } = await import('node:module')
		const other = createRequire(import.meta.url)('inflight-limit/cluster')
		try {
			return other.clusterLimiter(options)
		} catch (error) {
			return /** @type {{ code?: string }} */ (error).code
		}
	},
}

process.on('message', async (/** @type {any} */ { call, given, number }) => {
	if (call === undefined) return
	// The callback takes the error of a channel that has closed meanwhile.
	process.send?.({ number, result: await does[call]?.(given) }, undefined, undefined, () => {})
})
process.send?.({ ready: true })
