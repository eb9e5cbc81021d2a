import { SCRIPT, SHA } from './script.js'

/*
 * What is needed of a client, and nothing more: written by hand, so that nobody needs the types of the client that he does
 * not use. The two are told apart by their methods.
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

interface Emitter {
	on(event: string, listener: (...args: never[]) => void): unknown
}

/** What both have on a connection of their own. */
interface Duplicate extends Emitter {
	connect?(): Promise<unknown>
	/** ioredis */
	disconnect?(): unknown
	/** node-redis */
	destroy?(): unknown
	unref?(): unknown
	stream?: { unref?(): unknown }
}

/** After each of these nobody knows what became of the commands under way, nor whether it is the same Redis. */
const RESETS = [
	'close',
	'end',
	'reconnecting',
	// Cluster
	'-node',
	'node-reconnecting',
	'node-disconnect',
	// Sentinel
	'topology-change',
]

/** Who uses a connection. */
export interface User {
	/** A message on its channel. */
	message(text: string): void
	/** The connection of its commands was lost, or is another one. */
	reset(): void
	/** Messages may have been missed, until now. */
	resubscribed(): void
}

/**
 * How a client listens to its channels, and whether Redis can see that it does: `p`: to channels, which a single Redis sees;
 * `s`: to channels of their shard in a cluster, which that shard sees; `b`: to channels in a cluster, which can't be seen.
 */
type Listening = 'p' | 's' | 'b'

/** A client, with one connection more for messages: shared by all limiters that were given this client. */
export interface Connection {
	readonly listening: Listening
	run(keys: string[], args: string[]): Promise<unknown>
	/** The same, on a Redis that may not know the script. */
	load(keys: string[], args: string[]): Promise<unknown>
	/** Is answered when Redis answers. */
	probe(key: string): Promise<unknown>
	subscribe(channel: string, user: User): Promise<void>
	/** Redis does not see that the client listens to a channel of a shard. Never rejects. */
	resubscribe(channel: string): Promise<void>
	unsubscribe(channel: string): void
}

const PROBE = 'return 1'

function isIoredis(client: RedisClient): client is IoredisClient {
	return 'evalsha' in client
}

/** Its limiters are the only users of the messages' connection: it must not keep their process alive, nor outlive the client. */
function tend(client: RedisClient, duplicate: Duplicate, onReady: () => void): void {
	duplicate.on('error', () => {})
	duplicate.on('connect', () => {
		if (duplicate.unref !== undefined) duplicate.unref()
		else duplicate.stream?.unref?.()
	})
	duplicate.on('ready', onReady)
	;(client as unknown as Emitter).on('end', () => {
		try {
			if (duplicate.disconnect !== undefined) duplicate.disconnect()
			else duplicate.destroy?.()
		} catch {
			// It was closed already.
		}
	})
}

/** How often, and after how long each, in ms, it is tried again to leave a channel. */
const ATTEMPTS = 10
const PAUSE = 1_000

/** A channel that is left behind would be subscribed to again with each new connection. */
async function insist(leave: () => Promise<unknown>): Promise<void> {
	for (let i = 0; i < ATTEMPTS; i++) {
		try {
			await leave()
			return
		} catch {
			await new Promise((resolve) => setTimeout(resolve, PAUSE).unref())
		}
	}
}

/** Subscribes again, if it is still wanted. */
async function mend(
	leave: () => Promise<unknown>,
	listen: () => Promise<unknown>,
	wanted: () => boolean,
): Promise<void> {
	try {
		await leave()
		if (wanted()) await listen()
		if (!wanted()) insist(leave)
	} catch {
		// Its user asks again.
	}
}

/** ioredis puts the prefix of its keys before channels of a shard, too, and only before those. */
function hasShards(client: IoredisClient): boolean {
	const { options } = client as { options?: { shardedSubscribers?: boolean; keyPrefix?: string } }
	return options?.shardedSubscribers === true && !options.keyPrefix
}

class IoredisConnection implements Connection {
	readonly listening: Listening
	readonly #client: IoredisClient
	readonly #users = new Map<string, User>()
	#subscriber: IoredisClient | undefined = undefined

	constructor(client: IoredisClient) {
		this.#client = client
		this.listening = !client.isCluster ? 'p' : hasShards(client) ? 's' : 'b'
		watch(client, this.#users)
	}

	run(keys: string[], args: string[]): Promise<unknown> {
		return this.#client.evalsha(SHA, keys.length, ...keys, ...args)
	}

	load(keys: string[], args: string[]): Promise<unknown> {
		return this.#client.eval(SCRIPT, keys.length, ...keys, ...args)
	}

	probe(key: string): Promise<unknown> {
		return this.#client.eval(PROBE, 1, key)
	}

	async subscribe(channel: string, user: User): Promise<void> {
		if (this.#users.has(channel)) return
		await this.#listen(channel)
		this.#users.set(channel, user)
	}

	resubscribe(channel: string): Promise<void> {
		return mend(
			() => this.#leave(channel),
			() => this.#listen(channel),
			() => this.#users.has(channel),
		)
	}

	unsubscribe(channel: string): void {
		if (this.#users.delete(channel)) insist(() => this.#leave(channel))
	}

	async #listen(channel: string): Promise<unknown> {
		this.#subscriber ??= this.#subscribing()
		return this.listening === 's' ? this.#client.ssubscribe?.(channel) : this.#subscriber.subscribe(channel)
	}

	async #leave(channel: string): Promise<unknown> {
		return this.listening === 's'
			? this.#client.sunsubscribe?.(channel)
			: this.#subscriber?.unsubscribe(channel)
	}

	#subscribing(): IoredisClient {
		const client = this.#client as IoredisClient & { duplicate(options: object): IoredisClient }
		// A cluster keeps a connection for messages itself.
		const subscriber = client.isCluster
			? client
			: client.duplicate({ enableOfflineQueue: true, lazyConnect: false, maxRetriesPerRequest: null })
		const emitter = subscriber as unknown as Emitter
		emitter.on(this.listening === 's' ? 'smessage' : 'message', (channel: string, text: string) =>
			this.#users.get(channel)?.message(text),
		)
		if (!client.isCluster) {
			// It subscribes again by itself, but does not say when that is done.
			tend(client, emitter, () => {
				const channels = [...this.#users.keys()]
				if (channels.length === 0) return
				subscriber.subscribe(...channels).then(
					() => {
						for (const user of this.#users.values()) user.resubscribed()
					},
					() => {},
				)
			})
		}
		return subscriber
	}
}

class NodeRedisConnection implements Connection {
	readonly listening: Listening
	readonly #client: NodeRedisClient
	readonly #users = new Map<string, User>()
	#subscriber: Promise<NodeRedisClient> | undefined = undefined

	constructor(client: NodeRedisClient) {
		this.#client = client
		// Channels of a shard have no prefix, by which the keys could be of another shard.
		const prefixed = Boolean((client as { _keyPrefix?: unknown })._keyPrefix)
		this.listening = !('slots' in client) ? 'p' : prefixed ? 'b' : 's'
		watch(client, this.#users)
	}

	run(keys: string[], args: string[]): Promise<unknown> {
		return this.#client.evalSha(SHA, { keys, arguments: args })
	}

	load(keys: string[], args: string[]): Promise<unknown> {
		return this.#client.eval(SCRIPT, { keys, arguments: args })
	}

	probe(key: string): Promise<unknown> {
		return this.#client.eval(PROBE, { keys: [key], arguments: [] })
	}

	async subscribe(channel: string, user: User): Promise<void> {
		if (this.#users.has(channel)) return
		await this.#listen(channel, user)
		this.#users.set(channel, user)
	}

	resubscribe(channel: string): Promise<void> {
		const user = this.#users.get(channel)
		return mend(
			() => this.#leave(channel),
			async () => user && this.#listen(channel, user),
			() => this.#users.has(channel),
		)
	}

	unsubscribe(channel: string): void {
		if (this.#users.delete(channel)) insist(() => this.#leave(channel))
	}

	async #listen(channel: string, user: User): Promise<unknown> {
		const listener = (text: string): void => user.message(text)
		if (this.listening === 's') return this.#client.sSubscribe?.(channel, listener)
		this.#subscriber ??= this.#subscribing()
		return (await this.#subscriber).subscribe(channel, listener)
	}

	async #leave(channel: string): Promise<unknown> {
		if (this.listening === 's') return this.#client.sUnsubscribe?.(channel)
		return (await this.#subscriber)?.unsubscribe(channel)
	}

	async #subscribing(): Promise<NodeRedisClient> {
		// Only a single client can be told not to keep the process alive; the others keep a connection for messages themselves.
		if (!('unref' in this.#client)) return this.#client
		const client = this.#client as unknown as {
			duplicate(options: object): NodeRedisClient & Duplicate
		}
		const subscriber = client.duplicate({ disableOfflineQueue: false })
		tend(this.#client, subscriber, () => {
			for (const user of this.#users.values()) user.resubscribed()
		})
		try {
			await subscriber.connect?.()
		} catch (error) {
			this.#subscriber = undefined
			throw error
		}
		return subscriber
	}
}

function watch(client: RedisClient, users: Map<string, User>): void {
	for (const event of RESETS) {
		;(client as unknown as Emitter).on(event, () => {
			for (const user of [...users.values()]) user.reset()
		})
	}
}

const connections = new WeakMap<RedisClient, Connection>()

/**
 * The connection that goes with a client.
 *
 * @throws TypeError - it is not a client of `redis` or `ioredis`.
 */
export function connectionOf(client: RedisClient): Connection {
	const known = connections.get(client)
	if (known !== undefined) return known
	const connection = isIoredis(client) ? new IoredisConnection(client) : new NodeRedisConnection(client)
	connections.set(client, connection)
	return connection
}
