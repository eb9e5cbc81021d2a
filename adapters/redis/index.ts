export type { IoredisClient, NodeRedisClient, RedisClient } from './clients.js'
export { LeaseLostError } from './lease.js'
export {
	type FleetAcquireOptions,
	type RedisLimiter,
	type RedisLimiterStats,
	redisLimiter,
} from './limiter.js'
export type { RedisLimiterOptions } from './options.js'
export type { FleetPermit } from './permit.js'
