import { types } from 'node:util'
import { checkObserver } from '../checks.js'
import { inWords, type RejectionReason } from '../errors.js'

/**
 * How a request ended, as far as the limiter can tell.
 *
 * - `ok`: answered with a status below 400, or its permit was given back before the end.
 * - `client-error`: answered with a status from 400 to 499.
 * - `server-error`: answered with a status from 500.
 * - `abandoned`: its client left while its handler was at work, or was cut off after `stallTimeout`.
 */
export type Outcome = 'ok' | 'client-error' | 'server-error' | 'abandoned'

interface Facts {
	/** The name of the limiter. */
	readonly limiter: string
	/**
	 * The key of the request; `undefined` without `key`. Clients may send any number of keys: don't
	 * use it as a label of a metric.
	 */
	readonly key: string | undefined
	/** Permits held after this; with `key`, those of this key. */
	readonly active: number
	/** Requests waiting after this; with `key`, those of this key. */
	readonly queued: number
}

export interface AdmittedFacts extends Facts {
	/** How long the request waited, in ms; 0 when there was room. */
	readonly waited: number
}

export interface ReleasedFacts extends Facts {
	/** How long the request had waited, in ms. */
	readonly waited: number
	/** How long it held its permit, in ms. */
	readonly held: number
	readonly outcome: Outcome
}

export interface RejectedFacts extends Facts {
	readonly reason: RejectionReason
	/** How long the request had waited, in ms: 0 when it was rejected at once. */
	readonly waited: number
}

export interface ResizedFacts {
	/** The name of the limiter. */
	readonly limiter: string
	/**
	 * The key whose capacity has changed; `undefined`: the capacity of all keys, or without `key`.
	 */
	readonly key: string | undefined
	/** The new capacity; with `key`, that of each key. */
	readonly capacity: number
}

export interface AvailabilityFacts {
	/** The name of the limiter. */
	readonly limiter: string
	/** Whether what the limiter is shared through (Redis, or a primary) answers now. */
	readonly available: boolean
}

/**
 * Functions that are called at each event of a limiter. They are called synchronously, so keep them
 * short. An error that one throws, or that its promise rejects with, harms no request, and is
 * reported once, as a warning of the process.
 */
export interface Observer {
	/** A request was admitted. Called in the async context of that request. */
	admitted?(facts: AdmittedFacts): void
	/** A request gave its permit back. */
	released?(facts: ReleasedFacts): void
	/** A request was rejected, or left the queue. */
	rejected?(facts: RejectedFacts): void
	/** The capacity has changed. */
	resized?(facts: ResizedFacts): void
	/**
	 * What the limiter is shared through (Redis, or a primary) is unavailable, or available again.
	 */
	availability?(facts: AvailabilityFacts): void
}

type Told = { [Name in keyof Observer]-?: Parameters<NonNullable<Observer[Name]>>[0] }

/** An observer of a limiter. */
interface Place {
	readonly observer: Observer
	ended: boolean
	/** Whether an error of it was reported. */
	warned: boolean
}

/** The observers of a limiter. */
export class Observers {
	/**
	 * Each change makes a new array: so an event is told to those that were there when it came up,
	 * and not to those that are added meanwhile.
	 */
	#all: readonly Place[] = []

	/** How many there are. With 0, the facts need not be collected. */
	get size(): number {
		return this.#all.length
	}

	/** @returns a function that removes it. An observer that was added twice is called twice. */
	add(observer: Observer): () => void {
		checkObserver(observer)
		const place: Place = { observer, ended: false, warned: false }
		this.#all = [...this.#all, place]
		return () => {
			place.ended = true
			this.#all = this.#all.filter((other) => other !== place)
		}
	}

	tell<Name extends keyof Told>(name: Name, facts: Told[Name]): void {
		for (const place of this.#all) {
			if (place.ended) continue
			try {
				const { observer } = place
				const result = (observer[name] as ((facts: Told[Name]) => unknown) | undefined)?.(facts)
				if (types.isPromise(result)) result.catch((error) => warn(place, name, error))
			} catch (error) {
				warn(place, name, error)
			}
		}
	}
}

function warn(place: Place, name: string, error: unknown): void {
	if (place.warned) return
	place.warned = true
	process.emitWarning(
		`An observer of a limiter failed in ${name}(), and may do so again: ${inWords(error)}`,
		{ type: 'InflightLimitWarning', code: 'INFLIGHT_OBSERVER' },
	)
}
