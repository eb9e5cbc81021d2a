import type { Gate } from '../limiter/gate.js'
import { type Inspection, inspect } from '../limiter/inspection.js'

/*
 * Notices the trap of two limits: requests hold the permits of a wide one while they only wait for a
 * narrow one behind it, and so nobody else gets a permit of the wide one. In the right order, the
 * narrow one first, a waiting request holds what nobody else could use.
 */

interface Holder {
	readonly gate: Gate & Partial<{ active: number; [inspect](): Inspection }>
	readonly held: boolean
	readonly outer: Holder | undefined
}

/** How long others must have waited, in ms. */
const LONG = 1_000

/** How many requests hold permits of a gate while they wait for a narrower one. */
const idle = new WeakMap<Gate, { requests: number; inner: Gate }>()

const warned = new WeakSet<Gate>()

/**
 * A request begins to wait for a gate.
 *
 * @param outer - what it has of the gates before this one.
 * @returns a function to call when it no longer waits; `undefined` if it holds nothing that others
 * could use.
 */
export function waitsFor(gate: Gate, outer: Holder | undefined): (() => void) | undefined {
	const wide: Gate[] = []
	for (let holder = outer; holder !== undefined; holder = holder.outer) {
		// With `key`, only requests of the same user wait for its permit.
		const isWide = holder.held && holder.gate.capacity > gate.capacity
		if (isWide && holder.gate[inspect]?.().keyed === false) wide.push(holder.gate)
	}
	if (wide.length === 0) return undefined
	for (const each of wide) idle.set(each, { requests: idleOf(each) + 1, inner: gate })
	return () => {
		for (const each of wide) idle.set(each, { requests: idleOf(each) - 1, inner: gate })
	}
}

/** A gate has admitted a request that waited for it. */
export function hasWaited({ gate }: Pick<Holder, 'gate'>, waited: number): void {
	if (waited < LONG || warned.has(gate)) return
	const { inner } = idle.get(gate) ?? {}
	// Half of the permits that others hold. A few waiting requests, in a short queue, do no harm.
	if (inner === undefined || idleOf(gate) < Math.max(1, ((gate.active ?? 0) - 1) / 2)) return
	warned.add(gate)
	const [wide, narrow] = [gate, inner].map(({ name }) => JSON.stringify(name))
	process.emitWarning(
		`Requests hold the permits of limiter ${wide} while they wait for limiter ${narrow}, and others wait for ${wide}: put ${narrow} before ${wide}, or give it a short queue`,
		{ type: 'InflightLimitWarning', code: 'INFLIGHT_IDLE_PERMITS' },
	)
}

function idleOf(gate: Gate): number {
	return idle.get(gate)?.requests ?? 0
}
