import { randomBytes } from 'node:crypto'
import type { LinkUser, RedisLink } from './link.js'
import { Pending } from './pending.js'
import {
	type Claim,
	decode,
	decodeMessage,
	encode,
	type FleetState,
	join,
	keysOf,
	leave,
	type Request,
	renew,
	resize,
	type Speaker,
	vouch,
} from './protocol.js'
import { Witness } from './witness.js'

/*
 * The membership of a process in a fleet: its session, its lease, and whether Redis answers.
 * protocol.ts describes the messages.
 */

/** The state of a membership. */
export type MembershipState =
	/**
	 * Nothing is held and nothing waits. Redis does not know the process. It was available when it
	 * was last asked.
	 */
	| 'out'
	/** The same, for good. */
	| 'closed'
	/** It has no valid session, and tries to get one. */
	| 'joining'
	/**
	 * The same, and Redis is being told what is held: no permit must be added until it has answered.
	 */
	| 'telling'
	/** It has joined, and sends one command to see whether Redis executes it. */
	| 'trying'
	/**
	 * Commands go to Redis. A command that gets no answer within `redisTimeout`, or a wrong one, ends
	 * the session.
	 */
	| 'in'

/** What a membership asks and tells its owner, the limiter. */
export interface MembershipOwner {
	/** The permits that it holds. */
	held(): Claim[]
	/** Some of the callers that are queued in Redis: the oldest of each key. */
	waiting(most: number): Claim[]
	/** How many callers are queued in Redis. */
	readonly queued: number
	/** Nothing is held and nothing waits. */
	readonly idle: boolean
	/**
	 * Redis knows of the permits in `held`, and of nothing else of this process. Returns whether a
	 * command was sent.
	 */
	joined(held: Claim[]): boolean
	/** From now on commands go to Redis. */
	opened(): void
	/**
	 * The session has ended: what Redis knew no longer counts, nor do commands that it has not
	 * answered.
	 */
	lost(): void
	/** Redis is unavailable, or back. */
	availability(available: boolean, reason: unknown): void
	/**
	 * An attempt to join failed, or the share has grown: callers for which there is room can be
	 * admitted.
	 */
	resume(): void
	/** A waiter has been granted a permit. */
	granted(id: string, token: number): void
	/** The capacity of the fleet has changed. */
	resized(capacity: number): void
	/** The lease has ended: other processes may hold what was held under it. */
	lapsed(): void
	/** Redis may evict the keys: its `maxmemory-policy` allows it. */
	evictable(policy: string): void
}

export interface MembershipOptions {
	link: RedisLink
	name: string
	/** Whether each key has a limit of its own. */
	keyed: boolean
	capacity: number
	lease: number
	redisTimeout: number
}

/**
 * The pause between two attempts to join, in ms. It doubles with each failure, up to a tenth of the
 * lease: after a loss of memory, the permits are free 0.9 of a lease after the first attempt that
 * succeeds.
 */
const SHORTEST_PAUSE = 100
const LONGEST_PAUSE = 1_000

/** The time that Redis may take for each permit that a join tells of, in ms. */
const TELLING = 0.1

/** A session that lasted at least this long, in ms, does not count as a failed attempt. */
const LASTING = 1_000

/** The shortest time between two renewals that messages cause, in ms. */
const BETWEEN_LOOKS = 100

/** After how many attempts to join without being heard the client subscribes again. */
const UNHEARD = 3

/** For how many waiters a renewal asks whether their permits were granted. */
const ASKED = 100

/**
 * The time within which all clients notice that Redis is back, in ms: their longest pause between
 * two attempts is 2 s.
 */
const RECONNECTED = 3_000

/**
 * The time to connect and to join, in ms: after a client has just lost its connection, and when a
 * renewal is due.
 */
const CONNECTED = 1_000
const ON_TIME = 400

/**
 * After this many leases without Redis, no work is assumed to go on under a lease that has ended.
 */
const LONG_AWAY = 3

const ENDED: unique symbol = Symbol('ended')

export class Membership implements LinkUser {
	#state: MembershipState = 'out'
	#available = true
	#fleet: FleetState
	#othersWait = false
	/** Whether Redis has ever answered. */
	#known = false
	/** The highest token seen. */
	#token = 0
	readonly #link: RedisLink
	readonly #owner: MembershipOwner
	readonly #configured: number
	readonly #lease: number
	/**
	 * How long Redis keeps what is not renewed, in ms. It is shorter than the lease, so that the
	 * permits are free within the lease, including the time to notice.
	 */
	readonly #ttl: number
	readonly #redisTimeout: number
	readonly #keys: string[]
	readonly #speaker: { readonly process: string; session: number }
	readonly #channel: string
	/** Its own, and that of the books, if it notices when it has missed a message. */
	readonly #channels: string[]
	#generation = ''
	#secret = ''
	readonly #witness = new Witness()
	/** A capacity that Redis does not know yet. */
	#resizing: number | undefined = undefined
	/** When the last renewal that got an answer was sent, in ms: the lease begins at that time. */
	#renewed = Number.NEGATIVE_INFINITY
	#lapsed = true
	/** When the session came into the state `in`, in ms. */
	#openedAt = 0
	/** Attempts to join, and sessions, that failed in a row. */
	#failures = 0
	/** How often in a row Redis has answered that it does not see this process listen. */
	#unheard = 0
	#mending = false
	#policySeen = false
	#usedAt = 0
	#lookedAt = Number.NEGATIVE_INFINITY
	/** When the connection for messages was last opened anew, in ms. */
	#reopenedAt = Number.NEGATIVE_INFINITY
	#looping = false
	#reason: unknown = undefined
	readonly #pending: Pending
	#renewal: NodeJS.Timeout | undefined = undefined
	#look: NodeJS.Timeout | undefined = undefined
	#lapse: NodeJS.Timeout | undefined = undefined
	#decision: NodeJS.Timeout | undefined = undefined

	constructor(
		owner: MembershipOwner,
		{ link, name, keyed, capacity, lease, redisTimeout }: MembershipOptions,
	) {
		this.#owner = owner
		this.#link = link
		this.#configured = capacity
		this.#fleet = {
			capacity,
			active: 0,
			queued: 0,
			processes: 1,
			rank: 0,
			soon: undefined,
			grace: false,
			heard: true,
		}
		this.#lease = lease
		this.#ttl = Math.floor(lease * 0.9)
		this.#redisTimeout = redisTimeout
		this.#pending = new Pending(redisTimeout, () =>
			this.#lose(new Error(`no answer within ${redisTimeout} ms`), true),
		)
		this.#keys = keysOf(name, keyed)
		// The id has no braces and no colon: they have a meaning in the keys.
		this.#speaker = { process: link.listening + randomBytes(9).toString('base64url'), session: 0 }
		this.#channel = `${this.#keys[0]}:${this.#speaker.process}`
		this.#channels = [this.#channel, ...(link.gapless ? [`${this.#keys[0]}:books`] : [])]
	}

	get state(): MembershipState {
		return this.#state
	}

	/** Whether Redis answers. `true` until the contrary is known. */
	get available(): boolean {
		return this.#available
	}

	/** The state of the whole fleet, as last known. */
	get fleet(): Readonly<FleetState> {
		return this.#fleet
	}

	/** Whether other processes wait, as last known. */
	get othersWait(): boolean {
		return this.#othersWait
	}

	/** Whether Redis has ever answered. */
	get known(): boolean {
		return this.#known
	}

	/**
	 * Whether Redis has been away for so long that no work is assumed to go on under an older lease.
	 * This holds if Redis is away, and not only this process. The end of a lease alone does not show
	 * this: work that doesn't check its signal goes on.
	 */
	get longAway(): boolean {
		return performance.now() > this.#renewed + LONG_AWAY * this.#lease
	}

	/** Must be called before any command. */
	use(): void {
		this.#usedAt = performance.now()
		if (this.#state !== 'out') return
		this.#state = 'joining'
		this.#decide()
		this.#join()
	}

	/**
	 * Sends a command to Redis in the present session.
	 *
	 * @returns the answer; `undefined` if the session ended meanwhile: then it is not known whether
	 * the command was executed, and it doesn't count.
	 */
	async ask<Answer>(request: Request<Answer>): Promise<Answer | undefined> {
		const { session } = this.#speaker
		const place = this.#pending.add()
		this.#pending.watch()
		try {
			const answer = decode(
				request,
				await this.#link.run(this.#keys, encode(request, this.#speaker)),
			)
			if (!this.#speaks(session)) return undefined
			// After a pause of the process, an answer that came before it is read only now: its session
			// has ended.
			if (this.check() || answer === undefined) {
				this.#lose(new Error('Redis does not know the session'))
				return undefined
			}
			this.#open()
			return answer
		} catch (error) {
			if (this.#speaks(session)) this.#lose(error)
			return undefined
		} finally {
			this.#pending.delete(place)
		}
	}

	/** Takes over the permits held in the fleet from an answer. */
	learn(active: number): void {
		if (!this.#fleet.grace) this.#fleet.active = active
	}

	/** Notes the highest token: the next generation of the books begins with it. */
	see(token: number): void {
		if (token > this.#token) this.#token = token
	}

	/** Resolves when no command is under way. */
	quiet(): Promise<void> {
		return this.#pending.quiet()
	}

	/** Whether the lease has ended, by the monotonic clock. */
	get leaseEnded(): boolean {
		return this.#lapsed || performance.now() > this.#renewed + this.#ttl
	}

	/**
	 * The same, and if the lease has just ended, its owner is told: it may admit callers at once.
	 *
	 * @returns whether the lease has ended. Then the session has ended, too.
	 */
	check(): boolean {
		if (!this.#lapsed && this.leaseEnded) {
			this.#lapsed = true
			clearTimeout(this.#lapse)
			const left = this.#renewed + LONG_AWAY * this.#lease - performance.now()
			this.#lapse = setTimeout(() => this.#owner.resume(), Math.max(0, left) + 1).unref()
			this.#owner.lapsed()
			this.#lose(new Error('the lease ended before it could be renewed'))
		}
		return this.#lapsed
	}

	async resize(capacity: number): Promise<void> {
		this.#fleet.capacity = this.#resizing = capacity
		this.use()
		if (this.#state === 'in' || this.#state === 'trying') {
			const told = await this.ask(resize(capacity))
			if (told && this.#resizing === capacity) this.#resizing = undefined
		}
	}

	/** Ends the membership for good. */
	async close(): Promise<void> {
		const left = this.#leave()
		this.#state = 'closed'
		await left
		for (const channel of this.#channels) this.#link.unsubscribe(channel, this)
	}

	message(text: string): void {
		const message = decodeMessage(text)
		switch (message?.is) {
			case 'grant':
				if (!this.#speaks(message.session) || this.check()) return
				this.#owner.granted(message.id, message.token)
				return
			case 'look':
				if (this.#state === 'in') this.#lookSoon()
				return
			case 'opened':
				this.#witness.opened(message.generation)
				this.#vouch()
				// The books of this process are gone.
				if (this.#state === 'in' && message.generation !== this.#generation) this.#lookSoon()
				return
			case 'closed':
				this.#witness.closed(message.generation, message.secret)
		}
	}

	reset(): void {
		this.#witness.forget()
		this.#lose(new Error('the connection was lost'))
	}

	gap(): void {
		this.#witness.forget()
	}

	resubscribed(): void {
		if (this.#state === 'in') this.#renew()
	}

	/** Whether a session is the present one. */
	#speaks(session: number): boolean {
		return session === this.#speaker.session && (this.#state === 'in' || this.#state === 'trying')
	}

	/** Ends the membership: Redis forgets the process. */
	async #leave(): Promise<void> {
		if (this.#state === 'out' || this.#state === 'closed') return
		const joined = this.#generation !== ''
		if (joined && this.#state === 'in' && this.#link.gapless) {
			this.#witness.left(this.#generation, this.#secret)
		}
		this.#state = 'out'
		this.#stop()
		this.#generation = ''
		this.#lapsed = true
		if (joined) await this.#forget({ ...this.#speaker })
	}

	/** Has Redis forget a session of this process. */
	async #forget(speaker: Speaker): Promise<void> {
		const place = this.#pending.add()
		try {
			await within(5 * this.#redisTimeout, this.#link.run(this.#keys, encode(leave, speaker)))
		} catch {
			// Its lease will end by itself.
		} finally {
			this.#pending.delete(place)
		}
	}

	#stop(): void {
		clearTimeout(this.#renewal)
		clearTimeout(this.#look)
		this.#look = undefined
		clearTimeout(this.#lapse)
		clearTimeout(this.#decision)
		this.#pending.clear()
	}

	/** Ends the session: it is not known what Redis has of it. */
	#lose(reason: unknown, waited = false): void {
		const { state } = this
		if (state !== 'in' && state !== 'trying') return
		this.#state = 'joining'
		clearTimeout(this.#renewal)
		clearTimeout(this.#look)
		this.#look = undefined
		this.#pending.clear()
		this.#reason = reason
		// A session in which no command succeeded is a failed attempt to join: it does not change
		// whether Redis is available.
		if (state === 'trying' || performance.now() - this.#openedAt < LASTING) this.#failures++
		else this.#failures = 0
		this.#owner.lost()
		if (waited) this.#unavailable()
		else if (state === 'in') this.#decide()
		this.#join()
	}

	/**
	 * Makes Redis unavailable if it does not answer within `redisTimeout`, unless this process was
	 * blocked itself.
	 */
	#decide(): void {
		clearTimeout(this.#decision)
		const due = performance.now() + this.#redisTimeout
		this.#decision = setTimeout(() => {
			if (performance.now() - due > this.#redisTimeout / 4) this.#decide()
			else this.#unavailable()
		}, this.#redisTimeout).unref()
	}

	#unavailable(): void {
		if (!this.#available) return
		this.#available = false
		this.#owner.availability(false, this.#reason)
	}

	/** Joins, and tries again until it succeeds. */
	async #join(): Promise<void> {
		if (this.#looping) return
		this.#looping = true
		while (this.#state === 'joining') {
			if (this.#failures > 1 || this.#unheard > 0) await this.#pause()
			if (this.state !== 'joining') break
			try {
				await this.#link.subscribe(this.#channels, this)
				// While Redis does not answer, only this probe waits for it, and no caller.
				if (!this.#available) await this.#link.probe(this.#keys[0] as string)
				if (this.#state === 'joining') await this.#joinOnce()
			} catch (error) {
				this.#failures++
				this.#reason = error
			}
		}
		this.#looping = false
		// The session may have been lost again while `#looping` was still set.
		if (this.state === 'joining') this.#join()
	}

	#pause(): Promise<void> {
		const doubled = SHORTEST_PAUSE * 2 ** Math.max(0, this.#failures - 2)
		const ms = Math.min(LONGEST_PAUSE, this.#lease / 10, doubled)
		return new Promise((resolve) => setTimeout(resolve, ms).unref())
	}

	async #joinOnce(): Promise<void> {
		this.#speaker.session++
		const speaker = { ...this.#speaker }
		const sentAt = performance.now()
		const held = this.#owner.held()
		const resizing = this.#resizing
		const request = join({
			lease: this.#lease,
			ttl: this.#ttl,
			absence: Math.min(this.#ttl, Math.max(CONNECTED, Math.ceil(this.#lease / 4) + ON_TIME)),
			youth: Math.min(this.#lease + CONNECTED, RECONNECTED),
			generation: this.#generation,
			configured: this.#configured,
			resizing,
			token: this.#token,
			capacity: this.#fleet.capacity,
			secret: randomBytes(9).toString('base64url'),
			policy: !this.#policySeen,
			held,
		})
		this.#state = 'telling'
		try {
			const loaded = this.#link.load(this.#keys, encode(request, speaker))
			const answer = decode(request, await within(this.#patience(held.length), loaded))
			// The process has left meanwhile.
			if (this.state === 'out' || this.state === 'closed') this.#forget(speaker)
			if (answer?.is === 'unheard') {
				this.#reason = new Error('Redis does not see that its channel is subscribed to')
				this.#unheard++
				this.#mend()
				return
			}
			this.#unheard = 0
			if (this.#state !== 'telling') return
			if (answer?.is !== 'joined') throw new Error('Redis knows the session already')
			if (this.#resizing === resizing) this.#resizing = undefined
			if (!this.#policySeen && answer.policy !== '' && answer.policy !== 'noeviction') {
				this.#owner.evictable(answer.policy)
			}
			this.#policySeen = true
			this.#state = 'trying'
			this.#generation = answer.generation
			this.#secret = answer.secret
			this.#renewedAt(sentAt, answer.fleet)
			if (answer.opened && answer.fleet.heard) this.#witness.openedItself(answer.generation)
			else this.#witness.forget()
			this.#vouch()
			if (!this.#owner.joined(held)) this.#renew()
			if (this.#resizing !== undefined) this.resize(this.#resizing)
			if (!answer.fleet.heard) this.#reopen()
		} finally {
			if (this.#state === 'telling') {
				this.#state = 'joining'
				this.#owner.resume()
			}
		}
	}

	/**
	 * How long Redis may take for a join, in ms. Other processes tell it what they hold at the same
	 * time: so with each failure, each permit may take longer.
	 */
	#patience(permits: number): number {
		const telling = TELLING * permits * 2 ** Math.min(this.#failures, 10)
		return this.#redisTimeout + Math.min(telling, this.#lease / 4)
	}

	/** Redis has executed a command: the session is valid. */
	#open(): void {
		if (this.#state !== 'trying') return
		this.#state = 'in'
		this.#openedAt = performance.now()
		clearTimeout(this.#decision)
		this.#decision = undefined
		if (!this.#available) {
			this.#available = true
			this.#owner.availability(true, undefined)
		}
		this.#owner.opened()
	}

	/** If books miss nothing that this process has opened, Redis is told. */
	#vouch(): void {
		const own = this.#witness.testify()
		if (own !== undefined && (this.#state === 'trying' || this.#state === 'in'))
			this.ask(vouch(own))
	}

	/**
	 * Subscribes again: a client follows its channels to another shard by itself, but if that fails
	 * it does not try again.
	 */
	async #mend(): Promise<void> {
		if (this.#unheard % UNHEARD > 0 || this.#mending) return
		this.#mending = true
		await this.#link.resubscribe(this.#channel)
		this.#mending = false
	}

	/** Renews soon, but not more often than each `BETWEEN_LOOKS`, however many messages come. */
	#lookSoon(): void {
		const now = performance.now()
		this.#look ??= setTimeout(
			() => {
				this.#look = undefined
				this.#lookedAt = performance.now()
				this.#renew()
			},
			Math.max(0, this.#lookedAt + BETWEEN_LOOKS - now),
		).unref()
	}

	async #renew(): Promise<void> {
		clearTimeout(this.#renewal)
		if (this.#state !== 'in' && this.#state !== 'trying') return
		const sentAt = performance.now()
		if (!this.#owner.idle) this.#usedAt = sentAt
		// A process that could not notice later whether others came and left stays, so that the books
		// are kept. One that has just joined stays until Redis has executed a command.
		else if (this.#state === 'in' && sentAt - this.#usedAt >= this.#lease && this.#link.gapless) {
			this.#leave()
			return
		}
		// Set before the answer: if that is lost, the next renewal still comes.
		this.#renewal = setTimeout(() => this.#renew(), this.#lease / 4).unref()
		const { session } = this.#speaker
		const answer = await this.ask(renew(this.#lease, this.#ttl, this.#owner.waiting(ASKED)))
		if (answer === undefined || !this.#speaks(session)) return
		this.#renewedAt(sentAt, answer.fleet)
		for (const { id, token } of answer.given) this.#owner.granted(id, token)
		if (answer.given.length === ASKED) this.#renew()
		if (!answer.fleet.heard) this.#reopen()
	}

	/**
	 * Opens the connection for messages anew, as Redis does not see it: but not again and again, as
	 * commands are still answered.
	 */
	#reopen(): void {
		const now = performance.now()
		if (now - this.#reopenedAt < this.#lease || !this.#link.reopen()) return
		this.#reopenedAt = now
	}

	/** Takes over the state of the fleet from an answer, and begins a lease. */
	#renewedAt(sentAt: number, fleet: FleetState): void {
		const { capacity } = this.#fleet
		this.#fleet = fleet.grace ? this.#withMissing(fleet) : fleet
		this.#othersWait = fleet.queued > this.#owner.queued
		this.#known = true
		if (this.#resizing !== undefined) this.#fleet.capacity = capacity
		else if (fleet.capacity !== capacity) this.#owner.resized(fleet.capacity)
		this.#renewed = sentAt
		this.#lapsed = false
		clearTimeout(this.#lapse)
		this.#lapse = setTimeout(() => this.check(), sentAt + this.#ttl - performance.now() + 1).unref()
		// A little later than the end of the next lease of another process: it must have ended when
		// Redis looks.
		const next = Math.min(this.#lease / 4, (fleet.soon ?? this.#lease) + 2)
		clearTimeout(this.#renewal)
		this.#renewal = setTimeout(() => this.#renew(), next).unref()
	}

	/**
	 * The state of the fleet, when holders of permits may be missing from the news: with the
	 * processes and permits that were known before.
	 */
	#withMissing(news: FleetState): FleetState {
		if (!this.#known) return { ...news, active: news.capacity }
		const { active, processes, rank } = this.#fleet
		return { ...news, active: Math.max(active, news.active), processes, rank }
	}
}

/** Rejects when a promise takes longer than `ms`. */
async function within<T>(ms: number, promise: Promise<T>): Promise<T> {
	let timer: NodeJS.Timeout | undefined
	const late = new Promise<typeof ENDED>((resolve) => {
		timer = setTimeout(resolve, ms, ENDED).unref()
	})
	promise.catch(() => {})
	try {
		const first = await Promise.race([promise, late])
		if (first === ENDED) throw new Error(`no answer within ${ms} ms`)
		return first as T
	} finally {
		clearTimeout(timer)
	}
}
