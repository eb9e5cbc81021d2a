export type { Controller, ControllerFactory, Sample } from './controller.js'
export type { DurationStats } from './durations.js'
export { RejectedError, type RejectionReason } from './errors.js'
export { requestDeadline, requestStart } from './http/deadlines.js'
export { type Admission, admission } from './http/exchange.js'
export { Limiter, type LimiterOptions, type LimiterStats } from './limiter.js'
export type {
	AdmittedFacts,
	AvailabilityFacts,
	Observer,
	Outcome,
	RejectedFacts,
	ReleasedFacts,
	ResizedFacts,
} from './observer.js'
export type { Order } from './schedule/line.js'
export {
	type AbortSignalLike,
	type AcquireOptions,
	type Permit,
	Semaphore,
	type SemaphoreOptions,
	type TryAcquireOptions,
} from './semaphore.js'
