export { RejectedError, type RejectionReason } from './errors.js'
export {
	type AbortSignalLike,
	type AcquireOptions,
	type Permit,
	Semaphore,
	type SemaphoreOptions,
	type TryAcquireOptions,
} from './semaphore.js'
