import { randomBytes } from 'node:crypto'
import type { LinkUser, RedisLink } from './link.js'
import {
	decode,
	decodeMessage,
	encode,
	type FleetState,
	type Held,
	join,
	keysOf,
	leave,
	type Queued,
	type Request,
	renew,
	resize,
	type Speaker,
	vouch,
} from './protocol.js'

/*
 * A process's membership in a fleet: its session and its lease, and whether Redis answers. See
 * protocol.ts for what it says.
 */

/** Where a membership stands. */
export type MembershipState =
	/** Nothing is held and nobody waits; Redis knows nothing of the process. */
	| 'out'
	/** It has no session that counts, and is after one. */
	| 'joining'
	/** The same, and Redis is being told what is held: that must not grow until it has answered. */
	| 'telling'
	/** Redis has let it join, and is asked for one thing, to see whether it does that, too. */
	| 'trying'
	/**
	 * Commands go to Redis. One without an answer within `redisTimeout`, or with a wrong one, ends
	 * the session.
	 */
	| 'in'

/** What the owner of a membership is told, and asked. */
export interface MembershipOwner {
	/** The permits that it holds. */
	held(): Held[]
	/** Some of those that wait in Redis, as it has confirmed: the oldest of each key. */
	waiting(most: number): Queued[]
	/** Nothing is held and nobody waits. */
	readonly idle: boolean
	/**
	 * Redis knows of the permits in `held`, and of nothing else. @returns whether it was asked for
	 * something.
	 */
	joined(held: Held[]): boolean
	/** From now on commands go to Redis. */
	opened(): void
	/** What Redis had of it no longer counts, nor what it was asked and has not answered. */
	lost(): void
	/** Redis is unavailable, or back. */
	availability(available: boolean, reason: unknown): void
	/** An attempt to join failed, or the share has grown: whoever there is room for can go on. */
	resume(): void
	/** One that waited has been given a permit. */
	granted(id: string, token: number): void
	/** The fleet has another capacity. */
	resized(capacity: number): void
	/** The lease has ended: what was held under it may be held by others. */
	lapsed(): void
	/** Redis may evict the keys, by this maxmemory-policy. */
	evictable(policy: string): void
}

export interface MembershipOptions {
	link: RedisLink
	name: string
	capacity: number
	lease: number
	redisTimeout: number
}

/** A pause between two attempts to join, in ms: it doubles with each that fails. */
const SHORTEST_PAUSE = 100
const LONGEST_PAUSE = 1_000

/** A session that lasted for so long, in ms, was no failed attempt. */
const LASTING = 1_000

/** Between two looks at what a message says that there is, in ms. */
const BETWEEN_LOOKS = 100

/** After how many attempts in vain the client is told to subscribe again. */
const UNHEARD = 3

/** How many of those that wait are asked after with a renewal. */
const ASKED = 100

/**
 * In which all clients have noticed that Redis is back, in ms: their longest pause between two
 * attempts is 2 s.
 */
const RECONNECTED = 3_000

/**
 * To connect and to join, in ms: for a client that has just lost its connection; and when a renewal
 * is due.
 */
const CONNECTED = 1_000
const ON_TIME = 400

/**
 * After so many leases without Redis nobody is taken to be still at work under one that has ended.
 */
const LONG_AWAY = 10

const ENDED: unique symbol = Symbol('ended')

/** The books that a process was in when it left, and what it has heard since. */
interface Witness {
	readonly generation: string
	readonly secret: string
	closed: boolean
	/** The generation that was opened after that. */
	opened: string | undefined
	/** The one that this process has opened. */
	own: string | undefined
}

export class Membership implements LinkUser {
	#state: MembershipState = 'out'
	#available = true
	#fleet: FleetState
	/** Whether Redis has ever answered. */
	#known = false
	/** The highest token seen. */
	#token = 0
	readonly #link: RedisLink
	readonly #owner: MembershipOwner
	readonly #configured: number
	readonly #lease: number
	/**
	 * How long Redis keeps what is not renewed: shorter than the lease, so that with the time to
	 * notice it is at most that.
	 */
	readonly #ttl: number
	readonly #redisTimeout: number
	readonly #keys: string[]
	readonly #speaker: { readonly process: string; session: number }
	readonly #channel: string
	/** Of the books, which all listen to that can tell when they have missed something. */
	readonly #booksChannel: string
	#generation = ''
	#secret = ''
	#witness: Witness | undefined = undefined
	/** A capacity that Redis has not been told of yet. */
	#resizing: number | undefined = undefined
	/** When the last renewal was sent that was answered: the lease counts from there. */
	#renewed = Number.NEGATIVE_INFINITY
	#lapsed = true
	/** When the session began to serve. */
	#openedAt = 0
	/** Attempts to join, and sessions, that failed in a row. */
	#failures = 0
	/** How often in a row Redis has said that it does not see it listen. */
	#unheard = 0
	#mending = false
	#policySeen = false
	#usedAt = 0
	#lookedAt = Number.NEGATIVE_INFINITY
	#looping = false
	#reason: unknown = undefined
	/** The commands under way, oldest first, with the time at which they were sent. */
	readonly #pending = new Map<object, number>()
	#onQuiet: (() => void)[] = []
	#patience: NodeJS.Timeout | undefined = undefined
	#renewal: NodeJS.Timeout | undefined = undefined
	#look: NodeJS.Timeout | undefined = undefined
	#lapse: NodeJS.Timeout | undefined = undefined
	#decision: NodeJS.Timeout | undefined = undefined

	constructor(owner: MembershipOwner, { link, name, capacity, lease, redisTimeout }: MembershipOptions) {
		this.#owner = owner
		this.#link = link
		this.#configured = capacity
		this.#fleet = { capacity, active: 0, queued: 0, processes: 1, rank: 0, soon: undefined }
		this.#lease = lease
		this.#ttl = Math.floor(lease * 0.9)
		this.#redisTimeout = redisTimeout
		this.#keys = keysOf(name)
		// Braces would end the tag, and a colon could make one name the beginning of another's key.
		this.#speaker = { process: link.listening + randomBytes(9).toString('base64url'), session: 0 }
		this.#channel = `${this.#keys[0]}:${this.#speaker.process}`
		this.#booksChannel = `${this.#keys[0]}:books`
	}

	get state(): MembershipState {
		return this.#state
	}

	/** Whether Redis answers. While nothing is known yet, it is taken to. */
	get available(): boolean {
		return this.#available
	}

	/** Of the whole fleet, as last known. */
	get fleet(): Readonly<FleetState> {
		return this.#fleet
	}

	/** Whether Redis has ever answered. */
	get known(): boolean {
		return this.#known
	}

	/**
	 * Whether nobody is taken to be at work any more under a lease from before Redis went away, if it
	 * is Redis that is away. A lease by itself says little: the work under one that has ended goes
	 * on, where it doesn't look at its signal.
	 */
	get longAway(): boolean {
		return performance.now() > this.#renewed + LONG_AWAY * this.#lease
	}

	/** Must be called before anything is asked of Redis. */
	use(): void {
		this.#usedAt = performance.now()
		if (this.#state !== 'out') return
		this.#state = 'joining'
		this.#decide()
		this.#join()
	}

	/**
	 * Asks Redis, in the present session.
	 *
	 * @returns `undefined` if the session ended meanwhile: what became of it is not known, and
	 * doesn't count.
	 */
	async ask<Answer>(request: Request<Answer>): Promise<Answer | undefined> {
		const { session } = this.#speaker
		const place = {}
		this.#pending.set(place, performance.now())
		this.#patience ??= setTimeout(losePatience, this.#redisTimeout, this).unref()
		try {
			const answer = decode(request, await this.#link.run(this.#keys, encode(request, this.#speaker)))
			if (!this.#speaks(session)) return undefined
			// After a pause, what had arrived before it is read now: it is from a session that has ended.
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
			this.#settle()
		}
	}

	/** What an answer to a command says of the fleet. */
	learn(active: number): void {
		this.#fleet.active = active
	}

	/** The highest token is what a generation to come begins with. */
	see(token: number): void {
		if (token > this.#token) this.#token = token
	}

	/** Resolves when nothing is under way to Redis. */
	quiet(): Promise<void> {
		if (this.#pending.size === 0) return Promise.resolve()
		return new Promise((resolve) => {
			this.#onQuiet.push(resolve)
		})
	}

	/**
	 * @returns whether the lease has ended, by a clock that nobody sets. Its session is then over,
	 * too.
	 */
	check(): boolean {
		if (!this.#lapsed && performance.now() > this.#renewed + this.#ttl) {
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
		await this.#leave()
		this.#link.unsubscribe(this.#channel)
		this.#link.unsubscribe(this.#booksChannel)
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
				this.#witnessOpening(message.generation)
				// Its own books are gone.
				if (this.#state === 'in' && message.generation !== this.#generation) this.#lookSoon()
				return
			case 'closed':
				if (this.#witness?.generation !== message.generation) return
				if (this.#witness.secret === message.secret) this.#witness.closed = true
		}
	}

	reset(): void {
		this.#witness = undefined
		this.#lose(new Error('the connection was lost'))
	}

	gap(): void {
		this.#witness = undefined
	}

	resubscribed(): void {
		if (this.#state === 'in') this.#renew()
	}

	/**
	 * The oldest command has been under way for as long as it may, if this process was not late
	 * itself.
	 */
	losePatience(): void {
		this.#patience = undefined
		const oldest = this.#oldest() as number
		const due = oldest + this.#redisTimeout
		const now = performance.now()
		if (now < due) {
			this.#patience = setTimeout(losePatience, due - now, this).unref()
		} else if (now - due > this.#redisTimeout / 4) {
			// The process was blocked. The answers may be here, and may not even have been asked for: the
			// time begins again.
			for (const place of this.#pending.keys()) this.#pending.set(place, now)
			this.#patience = setTimeout(losePatience, this.#redisTimeout, this).unref()
		} else {
			// Sockets are read between timers and immediates: what has arrived counts.
			setImmediate(() => {
				const left = this.#oldest()
				if (left === oldest) this.#lose(new Error(`no answer within ${this.#redisTimeout} ms`), true)
				else if (left !== undefined) this.#patience ??= setTimeout(losePatience, 1, this).unref()
			})
		}
	}

	/** When the oldest command under way was sent; `undefined`: there is none. */
	#oldest(): number | undefined {
		return this.#pending.values().next().value
	}

	/** Whether a session is the present one. */
	#speaks(session: number): boolean {
		return session === this.#speaker.session && (this.#state === 'in' || this.#state === 'trying')
	}

	/** Ends the membership: Redis forgets the process. */
	async #leave(): Promise<void> {
		if (this.#state === 'out') return
		const joined = this.#generation !== ''
		if (joined && this.#state === 'in' && this.#link.gapless) {
			const [generation, secret] = [this.#generation, this.#secret]
			this.#witness = { generation, secret, closed: false, opened: undefined, own: undefined }
		}
		this.#state = 'out'
		this.#stop()
		this.#generation = ''
		this.#lapsed = true
		if (joined) await this.#forget({ ...this.#speaker })
	}

	/** Has Redis forget a session of this process. */
	async #forget(speaker: Speaker): Promise<void> {
		const place = {}
		this.#pending.set(place, performance.now())
		try {
			await within(5 * this.#redisTimeout, this.#link.run(this.#keys, encode(leave, speaker)))
		} catch {
			// Its lease will end by itself.
		} finally {
			this.#pending.delete(place)
			this.#settle()
		}
	}

	#settle(): void {
		if (this.#pending.size > 0) return
		clearTimeout(this.#patience)
		this.#patience = undefined
		for (const resolve of this.#onQuiet.splice(0)) resolve()
	}

	#stop(): void {
		clearTimeout(this.#renewal)
		clearTimeout(this.#look)
		this.#look = undefined
		clearTimeout(this.#lapse)
		clearTimeout(this.#decision)
		this.#pending.clear()
		this.#settle()
	}

	/** The session has ended: nobody knows what Redis has of it. */
	#lose(reason: unknown, waited = false): void {
		const { state } = this
		if (state !== 'in' && state !== 'trying') return
		this.#state = 'joining'
		clearTimeout(this.#renewal)
		clearTimeout(this.#look)
		this.#look = undefined
		this.#pending.clear()
		this.#settle()
		this.#reason = reason
		// One in which no command succeeded was no session, but a failed attempt: Redis stays as
		// available as it was.
		if (state === 'trying' || performance.now() - this.#openedAt < LASTING) this.#failures++
		else this.#failures = 0
		this.#owner.lost()
		if (waited) this.#unavailable()
		else if (state === 'in') this.#decide()
		this.#join()
	}

	/**
	 * Redis has `redisTimeout` to answer before it is unavailable; in which this process must not be
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

	/** Joins, again and again if need be. */
	async #join(): Promise<void> {
		if (this.#looping) return
		this.#looping = true
		while (this.#state === 'joining') {
			if (this.#failures > 1 || this.#unheard > 0) await pause(this.#failures - 2)
			try {
				await this.#link.subscribe(this.#channel, this)
				if (this.#link.gapless) await this.#link.subscribe(this.#booksChannel, this)
				// While Redis does not answer, this is what waits for it: nothing is held up by it.
				if (!this.#available) await this.#link.probe(this.#keys[0] as string)
				if (this.#state === 'joining') await this.#joinOnce()
			} catch (error) {
				this.#failures++
				this.#reason = error
			}
		}
		this.#looping = false
		// It may have been lost again while this loop was still taken to run.
		if (this.state === 'joining') this.#join()
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
			const answer = decode(request, await within(this.#redisTimeout, loaded))
			// It has left meanwhile.
			if (this.state === 'out') this.#forget(speaker)
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
			this.#witnessJoin(answer.opened)
			if (!this.#owner.joined(held)) this.#renew()
			if (this.#resizing !== undefined) this.resize(this.#resizing)
		} finally {
			if (this.#state === 'telling') {
				this.#state = 'joining'
				this.#owner.resume()
			}
		}
	}

	/** Redis does what it is asked: the session serves. */
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

	/**
	 * Books were opened. Only if they are the first since those closed that it was in is nothing
	 * missing from them.
	 */
	#witnessOpening(generation: string): void {
		const witness = this.#witness
		if (witness === undefined) return
		if (!witness.closed || witness.opened !== undefined) this.#witness = undefined
		else witness.opened = generation
		this.#vouch()
	}

	#witnessJoin(opened: boolean): void {
		if (!opened) this.#witness = undefined
		else if (this.#witness !== undefined) this.#witness.own = this.#generation
		this.#vouch()
	}

	#vouch(): void {
		const { opened, own } = this.#witness ?? {}
		if (own === undefined || opened === undefined) return
		this.#witness = undefined
		if (opened === own && (this.#state === 'trying' || this.#state === 'in')) this.ask(vouch(own))
	}

	/**
	 * A client follows its channels to another shard by itself, but may fail to, and then does not
	 * try again.
	 */
	async #mend(): Promise<void> {
		if (this.#unheard % UNHEARD > 0 || this.#mending) return
		this.#mending = true
		await this.#link.resubscribe(this.#channel)
		this.#mending = false
	}

	/** Renews soon, at most so often, whoever sends how many messages. */
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
		// One that could not tell later whether others came and went meanwhile stays, so that the books
		// do.
		else if (sentAt - this.#usedAt >= this.#lease && this.#link.gapless) {
			this.#leave()
			return
		}
		// Should it be lost, this one does not count on its answer to go on.
		this.#renewal = setTimeout(() => this.#renew(), this.#lease / 4).unref()
		const { session } = this.#speaker
		const answer = await this.ask(renew(this.#lease, this.#ttl, this.#owner.waiting(ASKED)))
		if (answer === undefined || !this.#speaks(session)) return
		this.#renewedAt(sentAt, answer.fleet)
		for (const { id, token } of answer.given) this.#owner.granted(id, token)
		if (answer.given.length === ASKED) this.#renew()
	}

	/** Takes in what an answer says of the fleet, and begins a lease. */
	#renewedAt(sentAt: number, fleet: FleetState): void {
		const { capacity } = this.#fleet
		this.#known = true
		this.#fleet = fleet
		if (this.#resizing !== undefined) this.#fleet.capacity = capacity
		else if (fleet.capacity !== capacity) this.#owner.resized(fleet.capacity)
		this.#renewed = sentAt
		this.#lapsed = false
		clearTimeout(this.#lapse)
		this.#lapse = setTimeout(() => this.check(), sentAt + this.#ttl - performance.now() + 1).unref()
		// A little later than the others' end, or this would find that it has not come yet.
		const next = Math.min(this.#lease / 4, (fleet.soon ?? this.#lease) + 2)
		clearTimeout(this.#renewal)
		this.#renewal = setTimeout(() => this.#renew(), next).unref()
	}
}

function losePatience(membership: Membership): void {
	membership.losePatience()
}

function pause(failures: number): Promise<void> {
	const ms = Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** Math.max(0, failures))
	return new Promise((resolve) => setTimeout(resolve, ms).unref())
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
