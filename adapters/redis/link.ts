import type { RedisClient } from './clients.js'
import { type Driver, type Duplicate, driverOf, type Emitter } from './drivers.js'
import { type Listening, SHA } from './protocol.js'
import { SCRIPT } from './script.js'

/** A user of a link, with one channel. */
export interface LinkUser {
	/** A message on its channel. */
	message(text: string): void
	/** The connection for commands was lost or replaced. */
	reset(): void
	/** Messages may be missed, before or after this. */
	gap(): void
	/** Messages arrive again. */
	resubscribed(): void
}

/**
 * Events after which it is not known what became of the commands under way, nor whether it is still
 * the same Redis.
 */
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

/** Events of the connection for messages after which messages may be missing. */
const GAPS = ['error', 'close', 'end', 'reconnecting', 'ready']

/** Events of the connection for messages after which it is down. */
const DOWN = ['close', 'end', 'reconnecting']

const PROBE = 'return 1'

/** How often it tries to unsubscribe from a channel, and the pause between two attempts, in ms. */
const ATTEMPTS = 10
const PAUSE = 1_000

/** Calls `call` at each of the events. */
function onAny(emitter: Emitter, events: readonly string[], call: () => void): void {
	for (const event of events) emitter.on(event, call)
}

/**
 * A client and its additional connection for messages, shared by all limiters that were given this
 * client.
 */
export class RedisLink {
	readonly listening: Listening
	/** Whether the link notices when messages may have been missed. */
	readonly gapless: boolean
	readonly #client: RedisClient
	readonly #driver: Driver
	/** The users of the channels that must be subscribed to, now or soon. */
	readonly #users = new Map<string, Set<LinkUser>>()
	/** The channels that are subscribed to. A client that was closed has none. */
	readonly #subscribed = new Set<string>()
	/** The connection of our own for messages. */
	#duplicate: Duplicate | undefined = undefined
	/** Whether it is up, and subscribed to all channels. */
	#settled = false

	constructor(client: RedisClient) {
		this.#client = client
		this.#driver = driverOf(client, (channel, text) => {
			for (const user of this.#users.get(channel) ?? []) user.message(text)
		})
		this.listening = this.#driver.listening
		this.gapless = this.#driver.ownMessages
		// Before its users hear of it, and subscribe again.
		;(client as unknown as Emitter).on('end', () => this.#end())
		onAny(client as unknown as Emitter, RESETS, () => {
			for (const user of this.#all()) user.reset()
		})
	}

	/**
	 * Whether a lost connection of the client ends the process: nothing listens to its `error` event.
	 */
	get fragile(): boolean {
		return (
			this.#driver.needsErrorListener &&
			(this.#client as unknown as Emitter).listenerCount?.('error') === 0
		)
	}

	run(keys: string[], args: string[]): Promise<unknown> {
		return this.#driver.evalsha(SHA, keys, args)
	}

	/** The same as {@link run}, for a Redis that may not have the script yet. */
	load(keys: string[], args: string[]): Promise<unknown> {
		return this.#driver.eval(SCRIPT, keys, args)
	}

	/** Resolves when Redis answers. */
	probe(key: string): Promise<unknown> {
		return this.#driver.eval(PROBE, [key], [])
	}

	/** A channel that is unsubscribed from meanwhile is left again. */
	async subscribe(channels: string[], user: LinkUser): Promise<void> {
		for (const channel of channels) {
			const users = this.#users.get(channel)
			if (users === undefined) this.#users.set(channel, new Set([user]))
			else users.add(user)
		}
		for (const channel of channels) {
			if (this.#subscribed.has(channel)) continue
			await this.#driver.open((duplicate) => this.#tend(duplicate))
			if (!this.#users.has(channel)) continue
			await this.#driver.listen(channel)
			if (this.#users.has(channel)) this.#subscribed.add(channel)
			else this.#insistOnLeaving(channel)
			this.#settled = true
		}
	}

	/**
	 * Opens the connection for messages anew, when the Redis that executes commands does not see it
	 * although it is up: it leads to another server.
	 *
	 * @returns whether it does so. All users are reset: they subscribe again when they join.
	 */
	reopen(): boolean {
		if (!this.#settled || this.#duplicate === undefined) return false
		this.#end()
		for (const user of this.#all()) user.reset()
		return true
	}

	/**
	 * Subscribes again if the channel is still used, when Redis does not see that the client is
	 * subscribed to a sharded channel. Never rejects.
	 */
	async resubscribe(channel: string): Promise<void> {
		try {
			await this.#driver.leave(channel)
			if (this.#users.has(channel)) await this.#driver.listen(channel)
			if (!this.#users.has(channel)) this.#insistOnLeaving(channel)
		} catch {
			// Its user calls this again.
		}
	}

	/** The channel is left with its last user: limiters of one name share that of their books. */
	unsubscribe(channel: string, user: LinkUser): void {
		const users = this.#users.get(channel)
		users?.delete(user)
		if (users === undefined || users.size > 0) return
		this.#users.delete(channel)
		this.#subscribed.delete(channel)
		this.#insistOnLeaving(channel)
	}

	#all(): Set<LinkUser> {
		return new Set([...this.#users.values()].flatMap((users) => [...users]))
	}

	/**
	 * Tries again, unless the channel is used again: the client would subscribe to it again with each
	 * new connection.
	 */
	async #insistOnLeaving(channel: string): Promise<void> {
		for (let i = 0; i < ATTEMPTS && !this.#users.has(channel); i++) {
			try {
				await this.#driver.leave(channel)
				return
			} catch {
				await new Promise((resolve) => setTimeout(resolve, PAUSE).unref())
			}
		}
	}

	/** The connection for messages must not keep the process alive, nor outlive the client. */
	#tend(duplicate: Duplicate): void {
		onAny(duplicate, GAPS, () => {
			for (const user of this.#all()) user.gap()
		})
		duplicate.on('connect', () => {
			if (duplicate.unref !== undefined) duplicate.unref()
			else duplicate.stream?.unref?.()
		})
		onAny(duplicate, DOWN, () => {
			if (duplicate === this.#duplicate) this.#settled = false
		})
		duplicate.on('ready', () => this.#resubscribed())
		this.#duplicate = duplicate
	}

	/** The client was closed. It may be connected again. */
	#end(): void {
		const duplicate = this.#duplicate
		this.#duplicate = undefined
		this.#settled = false
		this.#subscribed.clear()
		this.#driver.closed()
		try {
			if (duplicate?.disconnect !== undefined) duplicate.disconnect()
			else duplicate?.destroy?.()
		} catch {
			// It is closed already.
		}
	}

	/**
	 * Both clients subscribe again by themselves. But ioredis does not report when that is done, so
	 * it is told to subscribe once more.
	 */
	async #resubscribed(): Promise<void> {
		const channels = [...this.#subscribed]
		try {
			if (!this.#driver.needsErrorListener) {
				await Promise.all(channels.map((channel) => this.#driver.listen(channel)))
			}
			this.#settled = true
			for (const user of this.#all()) user.resubscribed()
		} catch {
			// The connection was lost again.
		}
	}
}

const links = new WeakMap<RedisClient, RedisLink>()

/** The link of a client. */
export function linkOf(client: RedisClient): RedisLink {
	let link = links.get(client)
	if (link === undefined) {
		link = new RedisLink(client)
		links.set(client, link)
	}
	return link
}
