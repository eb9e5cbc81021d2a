import type { IoredisClient, NodeRedisClient, RedisClient } from './clients.js'
import type { Listening } from './protocol.js'

/*
 * One interface for both clients. The methods of a client tell which of the two it is.
 */

/** The events of both clients. */
export interface Emitter {
	on(event: string, listener: (...args: never[]) => void): unknown
	listenerCount?(event: string): number
}

/** A second connection of either client. */
export interface Duplicate extends Emitter {
	connect?(): Promise<unknown>
	/** ioredis */
	disconnect?(): unknown
	/** node-redis */
	destroy?(): unknown
	unref?(): unknown
	stream?: { unref?(): unknown }
}

/** An interface that is the same for both clients. */
export interface Driver {
	readonly listening: Listening
	/**
	 * Whether messages come over a connection of our own: only such a connection shows when messages
	 * may have been missed.
	 */
	readonly ownMessages: boolean
	/** Whether the client throws when it loses its connection and has no listener for `error`. */
	readonly needsErrorListener: boolean
	evalsha(sha: string, keys: string[], args: string[]): Promise<unknown>
	eval(script: string, keys: string[], args: string[]): Promise<unknown>
	/**
	 * Opens the connection for messages, once.
	 *
	 * @param tend - is called with a connection of our own before it connects.
	 * @throws Error - the client is closed: the connection would outlive it.
	 */
	open(tend: (duplicate: Duplicate) => void): Promise<void>
	/** The client was closed, and so was the connection for messages. */
	closed(): void
	listen(channel: string): Promise<unknown>
	leave(channel: string): Promise<unknown>
}

export type OnMessage = (channel: string, text: string) => void

export function driverOf(client: RedisClient, onMessage: OnMessage): Driver {
	return 'evalsha' in client ? ioredis(client, onMessage) : nodeRedis(client, onMessage)
}

/** The longest pause of both clients between two attempts to connect, in ms. */
const LONGEST_PAUSE = 2_000

/**
 * How the connection for messages is made again: as that of the client, but it does not give up
 * before the client itself. Otherwise no message would come any more, while commands still work.
 *
 * @param strategy - that of the client: a pause in ms, or a function that gives one; anything else
 * means that it gives up.
 */
function persistent(strategy: unknown, isOpen: () => boolean): (...args: unknown[]) => unknown {
	return (...args) => {
		const pause = typeof strategy === 'function' ? strategy(...args) : strategy
		return typeof pause === 'number' || !isOpen() ? pause : LONGEST_PAUSE
	}
}

/**
 * Whether it subscribes to sharded channels. Not with a key prefix: ioredis puts it before sharded
 * channels, too, and only before those.
 */
function hasShards(client: IoredisClient): boolean {
	const { options } = client as { options?: { shardedSubscribers?: boolean; keyPrefix?: string } }
	return options?.shardedSubscribers === true && !options.keyPrefix
}

interface Configured {
	options?: { retryStrategy?: unknown; sentinelRetryStrategy?: unknown }
}

function ioredis(client: IoredisClient, onMessage: OnMessage): Driver {
	const listening: Listening = !client.isCluster ? 'p' : hasShards(client) ? 's' : 'b'
	let subscriber: IoredisClient | undefined
	const isOpen = (): boolean => (client as { status?: string }).status !== 'end'
	// As lists, which it takes, too: there may be more arguments than fit on the stack.
	const lists = client as unknown as Record<
		'evalsha' | 'eval',
		(script: string, numkeys: number, keys: string[], args: string[]) => Promise<unknown>
	>
	return {
		listening,
		ownMessages: !client.isCluster,
		needsErrorListener: false,
		evalsha: (sha, keys, args) => lists.evalsha(sha, keys.length, keys, args),
		eval: (script, keys, args) => lists.eval(script, keys.length, keys, args),
		async open(tend) {
			if (subscriber !== undefined) return
			if (!isOpen()) throw new Error('the client is closed')
			const { retryStrategy, sentinelRetryStrategy } = (client as Configured).options ?? {}
			const options = {
				enableOfflineQueue: true,
				lazyConnect: false,
				maxRetriesPerRequest: null,
				retryStrategy: persistent(retryStrategy, isOpen),
				sentinelRetryStrategy: persistent(sentinelRetryStrategy, isOpen),
			}
			// The client of a cluster has a connection for messages already.
			subscriber = client.isCluster
				? client
				: (client as IoredisClient & { duplicate(options: object): IoredisClient }).duplicate(
						options,
					)
			const emitter = subscriber as unknown as Duplicate
			emitter.on(listening === 's' ? 'smessage' : 'message', onMessage)
			if (!client.isCluster) tend(emitter)
		},
		closed() {
			subscriber = undefined
		},
		listen: async (channel) =>
			listening === 's' ? client.ssubscribe?.(channel) : subscriber?.subscribe(channel),
		leave: async (channel) =>
			listening === 's' ? client.sunsubscribe?.(channel) : subscriber?.unsubscribe(channel),
	}
}

function nodeRedis(client: NodeRedisClient, onMessage: OnMessage): Driver {
	// Sharded channels get no prefix: with a prefix for keys, channel and keys could be in different
	// shards.
	const prefixed = Boolean((client as { _keyPrefix?: unknown })._keyPrefix)
	const listening: Listening = !('slots' in client) ? 'p' : prefixed ? 'b' : 's'
	// Only a single client can be set not to keep the process alive. The others have a connection for
	// messages already.
	const single = 'unref' in client
	let subscriber: Promise<NodeRedisClient> | undefined
	const isOpen = (): boolean => (client as { isOpen?: boolean }).isOpen !== false
	// One for all channels: the client would call another one for the same channel, too.
	const listener = (text: string, channel: string): void => onMessage(channel, text)
	const connected = async (tend: (duplicate: Duplicate) => void): Promise<NodeRedisClient> => {
		const { socket } = (client as { options?: { socket?: { reconnectStrategy?: unknown } } })
			.options ?? { socket: undefined }
		const { reconnectStrategy } = socket ?? {}
		const options =
			reconnectStrategy === undefined
				? {}
				: { socket: { ...socket, reconnectStrategy: persistent(reconnectStrategy, isOpen) } }
		const duplicate = (
			client as unknown as { duplicate(options: object): NodeRedisClient & Duplicate }
		).duplicate({ disableOfflineQueue: false, ...options })
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
			if (!isOpen()) throw new Error('the client is closed')
			subscriber ??= single ? connected(tend) : Promise.resolve(client)
			try {
				await subscriber
			} catch (error) {
				subscriber = undefined
				throw error
			}
		},
		closed() {
			subscriber = undefined
		},
		async listen(channel) {
			if (listening === 's') return client.sSubscribe?.(channel, listener)
			return (await subscriber)?.subscribe(channel, listener)
		},
		async leave(channel) {
			if (listening === 's') return client.sUnsubscribe?.(channel)
			return (await subscriber)?.unsubscribe(channel)
		},
	}
}
