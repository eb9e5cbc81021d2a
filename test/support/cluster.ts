import { type ClusterLimiterOptions, readClusterOptions } from '../../adapters/cluster/options.js'
import { PrimaryLimiter } from '../../adapters/cluster/primary.js'
import {
	type Answer,
	type Ask,
	answerMessage,
	askMessage,
	readAnswer,
	readAsk,
} from '../../adapters/cluster/protocol.js'
import { WorkerLimiter } from '../../adapters/cluster/worker.js'

type Given = Partial<ClusterLimiterOptions<never>>

const DEFAULTS = { name: 'renders', capacity: 2 }

export function newPrimary(options: Given = {}): PrimaryLimiter {
	return new PrimaryLimiter(readClusterOptions({ ...DEFAULTS, ...options }))
}

/** A worker in this process: its channel to the primary carries text, and can be stopped. */
export class TestWorker {
	readonly limiter: WorkerLimiter
	/** The messages that it has sent. */
	readonly sent: Ask[] = []
	/** The primary that reads its messages, if any does. */
	primary: PrimaryLimiter | undefined
	#stopped = false
	#alive = true
	readonly #onItsWay: (() => void)[] = []

	constructor(primary: PrimaryLimiter | undefined, options: Given = {}) {
		this.primary = primary
		this.limiter = new WorkerLimiter(readClusterOptions({ ...DEFAULTS, ...options }), (ask) =>
			this.#post(ask),
		)
		this.limiter.begin()
	}

	/** What the primary answers with. */
	readonly answer = (answer: Answer): void => {
		const text = JSON.stringify(answerMessage(answer))
		this.#carry(() => {
			const read = readAnswer(JSON.parse(text))
			if (read === undefined) throw new Error(`not an answer: ${text}`)
			if (this.#alive) this.limiter.receive(read)
		})
	}

	#post(ask: Ask): void {
		this.sent.push(ask)
		const text = JSON.stringify(askMessage(ask))
		this.#carry(() => {
			const read = readAsk(JSON.parse(text))
			if (read === undefined) throw new Error(`not a message: ${text}`)
			if (this.#alive) this.primary?.receive(read, this.answer)
		})
	}

	#carry(message: () => void): void {
		if (this.#stopped) this.#onItsWay.push(message)
		else message()
	}

	/** From now on, messages are on their way. */
	stop(): void {
		this.#stopped = true
	}

	/** They arrive. */
	goOn(): void {
		this.#stopped = false
		for (const message of this.#onItsWay.splice(0)) message()
	}

	/** Its process ends, with all that it does. */
	die(): void {
		this.#alive = false
		this.limiter.disconnected()
		this.primary?.exited(this.answer)
	}
}

/** Until nothing is going on any more that needs no timer. */
export async function quiet(): Promise<void> {
	for (let i = 0; i < 8; i++) await new Promise((resolve) => setImmediate(resolve))
}
