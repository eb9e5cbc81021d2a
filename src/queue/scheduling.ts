import {
	checkFlow,
	checkFunction,
	checkLowerShare,
	checkNeeded,
	checkOrder,
	checkPriority,
	checkShare,
} from '../checks.js'
import type { Pace } from '../semaphore/pace.js'
import { Flows } from './flows.js'
import type { Rank, Ranked } from './group.js'
import { Line } from './line.js'
import type { Order, QueueOptions } from './options.js'
import { ScheduledQueue } from './scheduled-queue.js'
import { WeightedFlows } from './weighted-flows.js'

/** Creates the queues of a limiter, and finds the rank of a request in them. */
export class Scheduling {
	readonly order: Order
	readonly #lowerShare: number
	readonly #options: { [Name in 'priority' | 'fairBy' | 'share']: QueueOptions[Name] | undefined }

	constructor({ order = 'fifo', priority, fairBy, share, lowerShare = 0 }: QueueOptions) {
		this.order = checkOrder(order)
		this.#lowerShare = checkLowerShare(lowerShare, priority)
		this.#options = {
			priority: checkFunction('priority', priority),
			fairBy: checkFunction('fairBy', fairBy),
			share: checkFunction('share', share),
		}
		checkNeeded('share', share, 'fairBy', fairBy)
	}

	get priority(): boolean {
		return this.#options.priority !== undefined
	}

	get fair(): boolean {
		return this.#options.fairBy !== undefined
	}

	/** Whether the order is plain first come, first served, for which a simple queue is enough. */
	get plain(): boolean {
		return this.order === 'fifo' && !this.priority && !this.fair
	}

	newQueue<T extends Ranked<T>>(pace: Pace): ScheduledQueue<T> {
		const newLine = (): Line<T> => new Line(this.order, pace)
		const { fairBy, share } = this.#options
		if (fairBy === undefined) return new ScheduledQueue(newLine, false, this.#lowerShare)
		const newFlows = () => (share === undefined ? new Flows(newLine) : new WeightedFlows(newLine))
		return new ScheduledQueue<T>(newFlows, true, this.#lowerShare)
	}

	/** @throws TypeError, RangeError - what the user's functions throw, or for what they returned. */
	rank(request: object, weight: number): Rank {
		const { priority, fairBy, share } = this.#options
		const flow = fairBy === undefined ? '' : checkFlow(fairBy(request))
		return {
			priority: priority === undefined ? 0 : checkPriority(priority(request)),
			flow,
			weight,
			share: share === undefined ? 1 : checkShare(share(flow)),
		}
	}
}
