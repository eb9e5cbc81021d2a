export type { IoredisClient, NodeRedisClient, RedisClient } from './redis/connection.js'
export { LeaseLostError } from './redis/lease.js'
export {
	type FleetPermit,
	type RedisLimiter,
	type RedisLimiterOptions,
	type RedisLimiterStats,
	redisLimiter,
} from './redis/limiter.js'
