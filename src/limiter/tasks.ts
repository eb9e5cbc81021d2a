import { checkOptions, checkSignal, wrongType } from '../checks.js'
import type { Permit } from '../semaphore/permit.js'
import type { AbortSignalLike } from '../semaphore/signals.js'
import type { Outcome } from '../stats/observer.js'
import { enter, type Gate, type Stay, weigh } from './gate.js'

/** Options of a task that takes part in a limit without being a request. */
export interface TaskOptions {
	/** Ends the wait when it is aborted. Default: none. */
	signal?: AbortSignalLike | undefined
}

const TASK_OPTIONS = ['signal']

/** @internal The signal of a task that was given none. */
export const NEVER_ABORTED: AbortSignalLike = {
	aborted: false,
	addEventListener() {},
	removeEventListener() {},
}

/** Options in place of the context would be ignored: a semaphore takes them there. */
function checkNoOptions(context: object): void {
	if (!('signal' in context) && !('maxWait' in context)) return
	const names = Object.keys(context)
	if (names.length === 0 || names.some((name) => name !== 'signal' && name !== 'maxWait')) return
	const remedy = 'options come after it, as in limiter.run(task, {}, { signal })'
	throw wrongType('context', 'what the functions of the options are given', context, remedy)
}

/** Lets a task enter a gate. Rejects with the reason of `signal`, or with why it is rejected. */
async function admit(gate: Gate, context: object, options: TaskOptions): Promise<Stay | undefined> {
	if (typeof context !== 'object' || context === null) {
		throw wrongType('context', 'an object', context)
	}
	checkOptions(options, TASK_OPTIONS)
	checkNoOptions(context)
	checkSignal(options.signal)
	const { signal = NEVER_ABORTED } = options
	const entrance = gate[enter](context, signal)
	const settled = entrance.tag === 'waiting' ? await entrance.settled : entrance
	if (settled.tag === 'rejected')
		throw settled.error.reason === 'aborted' ? signal.reason : settled.error
	return settled.tag === 'admitted' ? settled : undefined
}

/** What `acquire` of a limiter does. */
export async function acquireTask(
	gate: Gate,
	context: object,
	options: TaskOptions,
): Promise<Permit> {
	return new TaskPermit(await admit(gate, context, options))
}

/** What `run` of a limiter does. */
export async function runTask<T>(
	gate: Gate,
	task: (permit: Permit) => T | PromiseLike<T>,
	context: object,
	options: TaskOptions,
): Promise<T> {
	if (typeof task !== 'function') throw wrongType('task', 'a function', task)
	const stay = await admit(gate, context, options)
	let outcome: Outcome = 'server-error'
	try {
		// The signal can be aborted after the permit was handed over and before this line runs.
		if (options.signal?.aborted) throw options.signal.reason
		const result = await task(new TaskPermit(stay))
		outcome = 'ok'
		return result
	} finally {
		stay?.leave(outcome)
	}
}

/** The permit of a task: an interface to its stay. */
class TaskPermit implements Permit {
	readonly #stay: Stay | undefined

	constructor(stay: Stay | undefined) {
		this.#stay = stay
	}

	get waited(): number {
		return this.#stay?.waited ?? 0
	}

	weigh(weight: number): void {
		if (this.#stay !== undefined) weigh(this.#stay, weight)
	}

	release(): void {
		this.#stay?.leave('ok')
	}

	[Symbol.dispose](): void {
		this.release()
	}
}
