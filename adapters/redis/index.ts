export type { FleetPermit } from './caller.js'
export type { IoredisClient, NodeRedisClient, RedisClient } from './drivers.js'
export { LeaseLostError } from './lease.js'
export {
	type FleetAcquireOptions,
	type RedisLimiter,
	type RedisLimiterStats,
	redisLimiter,
} from './limiter.js'
export type { RedisLimiterOptions } from './options.js'
