export type { Controller, ControllerFactory, Sample } from './adaptive/controller.js'
export type { EventLoopStats } from './adaptive/event-loop.js'
export { RejectedError, type RejectionReason } from './errors.js'
export { type AddressedRequest, type AddressKeyOptions, addressKey } from './http/address-key.js'
export { requestDeadline, requestStart } from './http/deadlines.js'
export { admission } from './http/exchange.js'
export type { Admission } from './http/ticket.js'
export { Limiter, type LimiterStats } from './limiter/limiter.js'
export type { LimiterOptions } from './limiter/options.js'
export type { TaskOptions } from './limiter/tasks.js'
export type { Order } from './queue/options.js'
export type { Permit } from './semaphore/permit.js'
export {
	type AcquireOptions,
	Semaphore,
	type SemaphoreOptions,
	type TryAcquireOptions,
} from './semaphore/semaphore.js'
export type { AbortSignalLike } from './semaphore/signals.js'
export type { DurationStats } from './stats/durations.js'
export type {
	AdmittedFacts,
	AvailabilityFacts,
	Observer,
	Outcome,
	RejectedFacts,
	ReleasedFacts,
	ResizedFacts,
} from './stats/observer.js'
