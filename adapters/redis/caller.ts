import { randomBytes } from 'node:crypto'
import { type AbortSignalLike, reasonOf } from '../../src/semaphore/signals.js'
import type { Linked } from '../../src/semaphore/wait-queue.js'
import type { KeyQueue } from './key-queue.js'
import { LeaseLostError, watchedSignal } from './lease.js'
import type { FleetPermit } from './permit.js'
import type { Claim } from './protocol.js'

/** What a caller needs of its limiter. */
export interface Owner {
	/** Ends a wait without a permit. */
	reject(caller: Caller, error: unknown): void
	/** Checks whether the lease has ended. */
	check(): void
}

/** How many ids are made at once, of how many bytes each. */
const IDS = 256
const BYTES = 12

let random = Buffer.alloc(0)
let at = 0

function newId(): string {
	if (at === random.length) {
		random = randomBytes(IDS * BYTES)
		at = 0
	}
	at += BYTES
	return random.toString('base64url', at - BYTES, at)
}

/** A waiter, which becomes the permit that it is given. It is itself the listener on its signal. */
export class Caller implements FleetPermit, Linked<Caller>, Claim {
	previous: Caller | undefined = undefined
	next: Caller | undefined = undefined
	/** It can't be guessed: so a message with this id must come from Redis. */
	readonly id: string
	readonly weight: number
	readonly maxWait: number
	/** The queue of its key in this process. */
	readonly queue: KeyQueue<Caller>
	readonly since: number = performance.now()
	/** What Redis knows of its wait in the present session. */
	asked: 'no' | 'asking' | 'queued' = 'no'
	state: 'waiting' | 'held' | 'over' = 'waiting'
	/** Its place in the queue of Redis, which it keeps when it asks again; 0: it never got one. */
	ticket = 0
	token = 0
	waited = 0
	/** Requests that were waiting ahead of it. */
	ahead = 0
	/** Whether Redis knows of the permit: then it can be lost. */
	leased = false
	lost = false
	admitted!: () => void
	/** With an error that may be `undefined`: the reason of a signal. */
	rejected!: (error: unknown) => void
	release!: () => void
	timer: NodeJS.Timeout | undefined = undefined
	cancel: AbortSignalLike | undefined = undefined
	readonly #owner: Owner
	#controller: AbortController | undefined = undefined

	constructor(owner: Owner, queue: KeyQueue<Caller>, weight: number, maxWait: number) {
		this.#owner = owner
		this.queue = queue
		this.id = newId()
		this.weight = weight
		this.maxWait = maxWait
	}

	/** The name of its key in Redis. */
	get account(): string {
		return this.queue.account
	}

	get signal(): AbortSignal {
		if (this.#controller === undefined) {
			this.#controller = new AbortController()
			watchedSignal(this.#controller, () => this.#owner.check())
			if (this.lost) this.lose()
		}
		return this.#controller.signal
	}

	lose(): void {
		this.lost = true
		this.#controller?.abort(
			new LeaseLostError('The permit was lost: its process could not renew its lease in time'),
		)
	}

	[Symbol.dispose](): void {
		this.release()
	}

	handleEvent(): void {
		const { cancel } = this
		this.cancel = undefined
		if (cancel !== undefined) this.#owner.reject(this, reasonOf(cancel))
	}
}
