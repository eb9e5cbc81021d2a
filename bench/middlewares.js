import { Mutex } from 'async-mutex'
import { Sema } from 'async-sema'
// @ts-expect-error - it has no types
import expressQueue from 'express-queue'
import { limit } from 'inflight-limit/express'

/**
 * Middleware as one would write it with each package. Only inflight-limit looks beyond the `finish`
 * of the response.
 *
 * @typedef {(req: import('node:http').IncomingMessage, res: import('node:http').ServerResponse, next: () => void) => unknown} Middleware
 * @typedef {{ name: string, make: (capacity: number) => Middleware, uncontendedOnly?: boolean }} Alternative
 */

export const NONE = 'none'
export const OURS = 'inflight-limit'
export const SEMA = 'async-sema by hand'

/** @type {Alternative[]} */
export const middlewares = [
	{ name: NONE, make: () => (_req, _res, next) => next() },
	{
		name: OURS,
		make: (capacity) => limit({ capacity, maxQueue: Number.POSITIVE_INFINITY }),
	},
	{
		name: 'bare counter',
		uncontendedOnly: true,
		make(capacity) {
			let active = 0
			return (_req, res, next) => {
				if (active === capacity) throw new Error('it cannot wait')
				active++
				res.on('finish', () => active--)
				next()
			}
		},
	},
	{
		name: SEMA,
		make(capacity) {
			const sema = new Sema(capacity)
			return async (_req, res, next) => {
				await sema.acquire()
				res.on('finish', () => sema.release())
				next()
			}
		},
	},
	{
		name: 'async-mutex runExclusive',
		make() {
			const mutex = new Mutex()
			return (_req, res, next) =>
				mutex.runExclusive(() => {
					next()
					return new Promise((resolve) => res.on('finish', resolve))
				})
		},
	},
	{
		name: 'express-queue',
		make: (capacity) => expressQueue({ activeLimit: capacity, queuedLimit: -1 }),
	},
]
