import type { Listening } from './protocol.js'

/*
 * What is needed of a client, and nothing more: written by hand, so that a user of one client needs
 * no types of the other. The two are told apart by their methods.
 */

/** What is needed of a client of `redis` (node-redis): single, Sentinel or Cluster. */
export interface NodeRedisClient {
	evalSha(sha1: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
	eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
	subscribe(channel: string, listener: (message: string) => void): Promise<unknown>
	unsubscribe(channel: string): Promise<unknown>
	/** Cluster */
	sSubscribe?(channel: string, listener: (message: string) => void): Promise<unknown>
	sUnsubscribe?(channel: string): Promise<unknown>
}

/** What is needed of a client of `ioredis`: single, Sentinel or Cluster. */
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

export type RedisClient = NodeRedisClient | IoredisClient

/** What both have that emits events. */
export interface Emitter {
	on(event: string, listener: (...args: never[]) => void): unknown
	listenerCount?(event: string): number
}

/** What both have on a connection of their own. */
export interface Duplicate extends Emitter {
	connect?(): Promise<unknown>
	/** ioredis */
	disconnect?(): unknown
	/** node-redis */
	destroy?(): unknown
	unref?(): unknown
	stream?: { unref?(): unknown }
}

/** One kind of client, in the words of the limiter. */
export interface Driver {
	readonly listening: Listening
	/**
	 * Where messages come from a connection of our own: it alone says when messages may have been
	 * missed.
	 */
	readonly ownMessages: boolean
	/** It throws when a client without a listener for `error` loses its connection. */
	readonly needsErrorListener: boolean
	evalsha(sha: string, keys: string[], args: string[]): Promise<unknown>
	eval(script: string, keys: string[], args: string[]): Promise<unknown>
	/**
	 * Gets the connection for messages ready, once.
	 *
	 * @param tend - is given that of our own before it connects.
	 */
	open(tend: (duplicate: Duplicate) => void): Promise<void>
	listen(channel: string): Promise<unknown>
	leave(channel: string): Promise<unknown>
}

export type OnMessage = (channel: string, text: string) => void

export function driverOf(client: RedisClient, onMessage: OnMessage): Driver {
	return 'evalsha' in client ? ioredis(client, onMessage) : nodeRedis(client, onMessage)
}

/** ioredis puts the prefix of its keys before channels of a shard, too, and only before those. */
function hasShards(client: IoredisClient): boolean {
	const { options } = client as { options?: { shardedSubscribers?: boolean; keyPrefix?: string } }
	return options?.shardedSubscribers === true && !options.keyPrefix
}

function ioredis(client: IoredisClient, onMessage: OnMessage): Driver {
	const listening: Listening = !client.isCluster ? 'p' : hasShards(client) ? 's' : 'b'
	let subscriber: IoredisClient | undefined
	return {
		listening,
		ownMessages: !client.isCluster,
		needsErrorListener: false,
		evalsha: (sha, keys, args) => client.evalsha(sha, keys.length, ...keys, ...args),
		eval: (script, keys, args) => client.eval(script, keys.length, ...keys, ...args),
		async open(tend) {
			if (subscriber !== undefined) return
			const options = { enableOfflineQueue: true, lazyConnect: false, maxRetriesPerRequest: null }
			// A cluster keeps a connection for messages itself.
			subscriber = client.isCluster
				? client
				: (client as IoredisClient & { duplicate(options: object): IoredisClient }).duplicate(options)
			const emitter = subscriber as unknown as Duplicate
			emitter.on(listening === 's' ? 'smessage' : 'message', onMessage)
			if (!client.isCluster) tend(emitter)
		},
		listen: async (channel) =>
			listening === 's' ? client.ssubscribe?.(channel) : subscriber?.subscribe(channel),
		leave: async (channel) =>
			listening === 's' ? client.sunsubscribe?.(channel) : subscriber?.unsubscribe(channel),
	}
}

function nodeRedis(client: NodeRedisClient, onMessage: OnMessage): Driver {
	// Channels of a shard have no prefix, by which the keys could be of another shard.
	const prefixed = Boolean((client as { _keyPrefix?: unknown })._keyPrefix)
	const listening: Listening = !('slots' in client) ? 'p' : prefixed ? 'b' : 's'
	// Only a single client can be told not to keep the process alive; the others keep a connection
	// for messages themselves.
	const single = 'unref' in client
	let subscriber: Promise<NodeRedisClient> | undefined
	const connected = async (tend: (duplicate: Duplicate) => void): Promise<NodeRedisClient> => {
		const duplicate = (
			client as unknown as { duplicate(options: object): NodeRedisClient & Duplicate }
		).duplicate({ disableOfflineQueue: false })
		tend(duplicate)
		await duplicate.connect?.()
		return duplicate
	}
	return {
		listening,
		ownMessages: single,
		needsErrorListener: true,
		evalsha: (sha, keys, args) => client.evalSha(sha, { keys, arguments: args }),
		eval: (script, keys, args) => client.eval(script, { keys, arguments: args }),
		async open(tend) {
			subscriber ??= single ? connected(tend) : Promise.resolve(client)
			try {
				await subscriber
			} catch (error) {
				subscriber = undefined
				throw error
			}
		},
		async listen(channel) {
			const listener = (text: string): void => onMessage(channel, text)
			if (listening === 's') return client.sSubscribe?.(channel, listener)
			return (await subscriber)?.subscribe(channel, listener)
		},
		async leave(channel) {
			if (listening === 's') return client.sUnsubscribe?.(channel)
			return (await subscriber)?.unsubscribe(channel)
		},
	}
}
