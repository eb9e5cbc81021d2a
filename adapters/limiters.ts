import { wrongType } from '../src/checks.js'
import { coded } from '../src/errors.js'
import type { SharedLimiter } from '../src/http/setup.js'
import { enter } from '../src/limiter/gate.js'

/**
 * Claims the names of limiters for a registry, a meter or a page, so that no figure is shown twice
 * or mixed with that of another limiter.
 *
 * @param holder - the registry, meter or page. The names are stored on it: so they are freed with
 * it, and every copy of this package in a process finds them.
 * @returns a function that frees the names.
 * @throws TypeError - `limiters` is not an array of limiters.
 * @throws Error - a limiter of the same name is shown already. Then no name is claimed.
 */
export function claimNames(holder: object, limiters: readonly SharedLimiter[]): () => void {
	if (!Array.isArray(limiters)) throw wrongType('limiters', 'an array of limiters', limiters)
	;(holder as Claimed)[NAMES] ??= new Map()
	const claimed = (holder as Required<Claimed>)[NAMES]
	const names = new Map<string, SharedLimiter>()
	for (const [i, limiter] of limiters.entries()) {
		if (typeof limiter !== 'object' || limiter === null || !(enter in limiter)) {
			throw wrongType(
				`limiters[${i}]`,
				'a Limiter',
				limiter,
				'that of a middleware is its .limiter',
			)
		}
		const { name } = limiter
		const other = names.get(name) ?? claimed.get(name)
		if (other === limiter)
			throw taken(`limiter ${JSON.stringify(name)} is registered already: do it once`)
		if (other !== undefined) {
			throw taken(
				`another limiter named ${JSON.stringify(name)} is registered already: give each a name of its own, by the option name`,
			)
		}
		names.set(name, limiter)
	}
	for (const [name, limiter] of names) claimed.set(name, limiter)
	return () => {
		for (const name of names.keys()) claimed.delete(name)
	}
}

/**
 * What was ended may have begun anew since, under the same names.
 *
 * @returns a function of which only the first call counts.
 */
export function once(end: () => void): () => void {
	let ended = false
	return () => {
		if (ended) return
		ended = true
		end()
	}
}

function taken(message: string): Error {
	return coded('ERR_INFLIGHT_NAME_TAKEN', new Error(message))
}

const NAMES: unique symbol = Symbol.for('inflight-limit.names') as never

interface Claimed {
	[NAMES]?: Map<string, SharedLimiter>
}
