/*
 * The parts of the clients that are used. The types are written by hand, so that users of one
 * client don't need the types of the other.
 */

/** The part that is used of a client of `redis` (node-redis): single, Sentinel or Cluster. */
export interface NodeRedisClient {
	evalSha(sha1: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
	eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
	subscribe(channel: string, listener: (message: string, channel: string) => void): Promise<unknown>
	unsubscribe(channel: string): Promise<unknown>
	/** Cluster */
	sSubscribe?(
		channel: string,
		listener: (message: string, channel: string) => void,
	): Promise<unknown>
	sUnsubscribe?(channel: string): Promise<unknown>
}

/** The part that is used of a client of `ioredis`: single, Sentinel or Cluster. */
export interface IoredisClient {
	readonly isCluster: boolean
	evalsha(sha1: string, numkeys: number, ...args: string[]): Promise<unknown>
	eval(script: string, numkeys: number, ...args: string[]): Promise<unknown>
	subscribe(...channels: string[]): Promise<unknown>
	unsubscribe(...channels: string[]): Promise<unknown>
	/** Cluster */
	ssubscribe?(...channels: string[]): Promise<unknown>
	sunsubscribe?(...channels: string[]): Promise<unknown>
}

/** A connected client of `redis` or of `ioredis`. */
export type RedisClient = NodeRedisClient | IoredisClient
