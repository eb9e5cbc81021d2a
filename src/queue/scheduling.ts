import { checkFlow, checkFunction, checkLowerShare, checkOrder, checkPriority } from '../checks.js'
import type { Pace } from '../semaphore/pace.js'
import { Flows } from './flows.js'
import type { Rank, Ranked } from './group.js'
import { Line, type Order } from './line.js'
import type { QueueOptions } from './options.js'
import { ScheduledQueue } from './scheduled-queue.js'

/** Creates the queues of a limiter, and finds the rank of a request in them. */
export class Scheduling {
	readonly #order: Order
	readonly #lowerShare: number
	readonly #options: { [Name in 'priority' | 'fairBy']: QueueOptions[Name] | undefined }

	constructor({ order = 'fifo', priority, fairBy, lowerShare = 0 }: QueueOptions) {
		this.#order = checkOrder(order)
		this.#lowerShare = checkLowerShare(lowerShare, priority)
		this.#options = { priority: checkFunction('priority', priority), fairBy: checkFunction('fairBy', fairBy) }
	}

	/** Whether the order is plain first come, first served, for which a simple queue is enough. */
	get plain(): boolean {
		const { priority, fairBy } = this.#options
		return this.#order === 'fifo' && priority === undefined && fairBy === undefined
	}

	newQueue<T extends Ranked<T>>(pace: Pace): ScheduledQueue<T> {
		const newLine = (): Line<T> => new Line(this.#order, pace)
		const shared = this.#options.fairBy !== undefined
		return new ScheduledQueue(shared ? () => new Flows(newLine) : newLine, shared, this.#lowerShare)
	}

	/** @throws TypeError, RangeError - what the user's functions throw, or for what they returned. */
	rank(request: object, weight: number): Rank {
		const { priority, fairBy } = this.#options
		return {
			priority: priority === undefined ? 0 : checkPriority(priority(request)),
			flow: fairBy === undefined ? '' : checkFlow(fairBy(request)),
			weight,
		}
	}
}
