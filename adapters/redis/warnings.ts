import type { Alone } from './alone.js'

/* The warnings of a limiter, by `process.emitWarning`. */

function warn(code: string, text: string): void {
	process.emitWarning(text, { type: 'InflightLimitWarning', code })
}

export function warnOfClient(name: string): void {
	warn(
		'INFLIGHT_REDIS_CLIENT',
		`The client of the limiter ${name} has no listener for 'error': when its connection breaks, it ends the ` +
			"process. Add one: client.on('error', (error) => …)",
	)
}

export function warnOfEviction(name: string, policy: string): void {
	warn(
		'INFLIGHT_REDIS_EVICTION',
		`Redis may evict the keys of the limiter ${name}: its maxmemory-policy is ${policy}, and should be noeviction`,
	)
}

export function warnOfOutage(name: string, reason: unknown, { rule, noShare }: Alone): void {
	const said = reason instanceof Error ? reason.message : String(reason ?? 'no answer')
	const meant = {
		local: 'a local share of it is used',
		reject: 'requests are rejected',
		admit: 'all are admitted',
	}[rule]
	const why = noShare ? ', as no share is known before it has answered once' : ''
	warn(
		'INFLIGHT_REDIS_UNAVAILABLE',
		`Redis is unavailable to the limiter ${name} (${said}): ${meant}${why}`,
	)
}

export function warnOfReturn(name: string): void {
	warn('INFLIGHT_REDIS_BACK', `The limiter ${name} is the fleet's again: Redis is back`)
}
