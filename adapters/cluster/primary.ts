import { checkInteger } from '../../src/checks.js'
import { type Entrance, enter, type Rejected, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import type { LimiterOptions } from '../../src/limiter/options.js'
import { onNextTurn } from '../../src/semaphore/clock.js'
import type { AbortSignalLike } from '../../src/semaphore/signals.js'
import type { Server } from './channel.js'
import type { Settings } from './options.js'
import type { Acquire, Admit, Answer, Ask, Leave, Reject } from './protocol.js'

/** A request of a worker, which enters the limiter of the primary. It is its own signal. */
class RemoteRequest implements AbortSignalLike {
	readonly weight: number
	readonly key: string | null
	aborted = false
	#waiter: { handleEvent(): void } | undefined = undefined

	constructor(weight: number, key: string | null) {
		this.weight = weight
		this.key = key
	}

	addEventListener(_type: 'abort', waiter: { handleEvent(): void }): void {
		this.#waiter = waiter
	}

	removeEventListener(): void {
		this.#waiter = undefined
	}

	abort(): void {
		this.aborted = true
		this.#waiter?.handleEvent()
	}
}

/** Of a request of a worker, the functions of the options were called there. */
function withRemotes(settings: Settings): LimiterOptions {
	const { functions, primaryTimeout: _, terms: __, ...others } = settings
	const { key, weight, skip } = functions
	return {
		...others,
		...(key && {
			key: (request) => (request instanceof RemoteRequest ? request.key : key(request)),
		}),
		weight: (request) =>
			request instanceof RemoteRequest ? request.weight : weight ? weight(request) : 1,
		...(skip && { skip: (request) => !(request instanceof RemoteRequest) && skip(request) }),
	}
}

/**
 * The limiter in the primary: the one that counts. Requests of the workers enter it as those of the
 * primary itself do, in the order in which they come.
 */
export class PrimaryLimiter extends Limiter implements Server {
	/** Always `true`: it asks no other process. */
	readonly available: boolean = true
	readonly #terms: string
	readonly #workers = new Map<(answer: Answer) => void, RemoteWorker>()
	#over = false

	constructor(settings: Settings) {
		super(withRemotes(settings))
		this.#terms = settings.terms
	}

	override resize(capacity: number): void {
		super.resize(checkInteger('capacity', capacity, 1, false))
		for (const worker of this.#workers.values()) worker.tell()
	}

	override close(): void {
		super.close()
		this.#over = true
	}

	/** @internal */
	get over(): boolean {
		return this.#over && this.active === 0 && this.queued === 0
	}

	/** @internal What workers are told that were there before. */
	get announcement(): Answer {
		return { ...newAnswer(this), begun: true }
	}

	/** @internal */
	receive(ask: Ask, from: (answer: Answer) => void): void {
		let worker = this.#workers.get(from)
		if (worker === undefined) {
			if (ask.terms === undefined) return
			if (ask.terms !== this.#terms) {
				from({ ...newAnswer(this), turn: ask.turn, terms: this.#terms })
				return
			}
			worker = new RemoteWorker(this, from)
			this.#workers.set(from, worker)
		}
		if (ask.resize !== undefined) this.resize(ask.resize)
		worker.receive(ask)
	}

	/** @internal Only its places: its work may go on until the process ends. */
	disconnected(from: (answer: Answer) => void): void {
		this.#workers.get(from)?.leaveQueue()
	}

	/** @internal */
	exited(from: (answer: Answer) => void): void {
		const worker = this.#workers.get(from)
		this.#workers.delete(from)
		worker?.leaveQueue()
		worker?.release()
	}
}

type Draft = Answer & { turn: number; admit: Admit[]; reject: Reject[] }

function newAnswer({ name, capacity }: Limiter): Draft {
	return { name, turn: 0, capacity, admit: [], reject: [] }
}

/** What a worker holds and waits for, and the next answer to it. */
class RemoteWorker {
	readonly #limiter: Limiter
	readonly #send: (answer: Answer) => void
	readonly #stays = new Map<number, Stay>()
	readonly #waiting = new Map<number, RemoteRequest>()
	#answer: Draft | undefined = undefined

	constructor(limiter: Limiter, send: (answer: Answer) => void) {
		this.#limiter = limiter
		this.#send = send
	}

	receive({ turn, acquire, leave, weigh }: Ask): void {
		for (const [id, weight] of weigh) this.#stays.get(id)?.weigh?.(weight)
		for (const left of leave) this.#leave(left)
		for (const wanted of acquire) this.#acquire(wanted)
		if (turn > 0) this.tell().turn = turn
	}

	leaveQueue(): void {
		for (const request of this.#waiting.values()) request.abort()
	}

	release(): void {
		for (const stay of this.#stays.values()) stay.leave('server-error')
		this.#stays.clear()
	}

	#acquire([id, weight, key]: Acquire): void {
		// A message that was repeated.
		if (this.#stays.has(id) || this.#waiting.has(id)) return
		const request = new RemoteRequest(Math.min(weight, this.#limiter.capacity), key)
		const entrance = this.#limiter[enter](request, request)
		if (entrance.tag === 'waiting') this.#wait(id, request, entrance.settled)
		else this.#decide(id, entrance)
	}

	async #wait(
		id: number,
		request: RemoteRequest,
		settled: Promise<Stay | Rejected>,
	): Promise<void> {
		this.#waiting.set(id, request)
		const outcome = await settled
		this.#waiting.delete(id)
		if (!request.aborted) this.#decide(id, outcome)
		else if (outcome.tag === 'admitted') outcome.leave('abandoned')
	}

	#decide(id: number, outcome: Exclude<Entrance, { tag: 'waiting' }>): void {
		if (outcome.tag === 'admitted') {
			this.#stays.set(id, outcome)
			this.tell().admit.push([id, outcome.queued, outcome.available])
		} else if (outcome.tag === 'rejected') {
			const { reason, retryAfter, active, queued } = outcome.error
			this.tell().reject.push([id, reason, retryAfter, active, queued])
		}
	}

	#leave([id, outcome]: Leave): void {
		this.#waiting.get(id)?.abort()
		this.#stays.get(id)?.leave(outcome)
		this.#stays.delete(id)
	}

	/** The next answer, which is sent in the next turn of the event loop. */
	tell(): Draft {
		if (this.#answer === undefined) {
			this.#answer = newAnswer(this.#limiter)
			onNextTurn(() => this.#flush())
		}
		return this.#answer
	}

	#flush(): void {
		const answer = this.#answer as Draft
		this.#answer = undefined
		this.#send({ ...answer, capacity: this.#limiter.capacity })
	}
}
