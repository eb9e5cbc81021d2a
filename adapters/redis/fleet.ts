import { randomBytes } from 'node:crypto'
import type { Connection, User } from './connection.js'

/*
 * A process's membership in a fleet: its session and its lease, and whether Redis answers. See script.ts for the protocol.
 *
 * - `out`: nothing is held and nobody waits; Redis knows nothing of it.
 * - `joining`: it has no session that counts, and is after one. For `redisTimeout` at most that stays undecided; then Redis
 *   is unavailable.
 * - `in`: commands go to Redis. One without an answer within `redisTimeout`, or with a wrong one, ends the session.
 */

/** A permit as Redis knows it. */
export interface Held {
	readonly id: string
	readonly weight: number
}

/** Whose membership it is. */
export interface Member {
	/** The permits that it holds. */
	held(): Held[]
	/** Some of those who wait at Redis, as it has confirmed: oldest first. */
	waiting(): Held[]
	/** Nothing is held and nobody waits. */
	readonly idle: boolean
	/** From now on commands go to Redis, which knows of the permits in `held`, and of nothing else. */
	joined(held: Held[]): void
	/** What Redis had of it no longer counts, nor what it was asked and has not answered. */
	lost(): void
	/** Redis is unavailable, or back. */
	availability(available: boolean, reason: unknown): void
	/** An attempt to join failed, or the share has grown: whom there is room for can go on. */
	resume(): void
	/** One who waited has been given a permit. */
	granted(id: string, token: number): void
	/** The fleet has another capacity. */
	resized(capacity: number): void
	/** The lease has ended: what was held under it may be held by others. */
	lapsed(): void
}

/** How long a pause between two attempts to join, in ms. */
const RETRY = 100

/** After how many attempts in vain the client is told to subscribe again. */
const UNHEARD = 3

/** How many of those who wait are asked after with a renewal. */
export const ASKED = 100

const ENDED: unique symbol = Symbol('ended')

export interface FleetOptions {
	connection: Connection
	name: string
	capacity: number
	lease: number
	redisTimeout: number
}

export class Fleet implements User {
	state: 'out' | 'joining' | 'in' = 'out'
	/** Waiting for the answer to a join, in which `held` must not grow. */
	asking = false
	available = true
	/** Of the whole fleet, as last known. */
	capacity: number
	active = 0
	queued = 0
	processes = 1
	/** How many processes stand before this one, in an order that all see alike. */
	rank = 0
	/** Whether Redis has ever answered. */
	known = false
	/** The highest token seen. */
	token = 0
	readonly #connection: Connection
	readonly #member: Member
	readonly #configured: number
	readonly lease: number
	/** How long Redis keeps what is not renewed: shorter than the lease, so that with the time to notice it is at most that. */
	readonly #ttl: number
	readonly #redisTimeout: number
	readonly #process: string
	readonly #keys: string[]
	readonly #channel: string
	#session = 0
	#generation = ''
	/** A capacity that Redis has not been told of yet. */
	#resizing: number | undefined = undefined
	/** When the last renewal was sent that was answered: the lease counts from there. */
	#renewed = Number.NEGATIVE_INFINITY
	#lapsed = true
	/** How often in a row Redis has said that it does not see it listen. */
	#unheard = 0
	#mending = false
	#usedAt = 0
	#looping = false
	#reason: unknown = undefined
	/** The commands under way, oldest first, with the time at which they were sent. */
	readonly #pending = new Map<object, number>()
	#onQuiet: (() => void)[] = []
	#patience: NodeJS.Timeout | undefined = undefined
	#renewal: NodeJS.Timeout | undefined = undefined
	#lapse: NodeJS.Timeout | undefined = undefined
	#decision: NodeJS.Timeout | undefined = undefined

	constructor(member: Member, { connection, name, capacity, lease, redisTimeout }: FleetOptions) {
		this.#member = member
		this.#connection = connection
		this.capacity = this.#configured = capacity
		this.lease = lease
		this.#ttl = Math.floor(lease * 0.9)
		this.#redisTimeout = redisTimeout
		// Braces would end the tag, and a colon could make one name the beginning of another's key.
		this.#process = connection.listening + randomBytes(9).toString('base64url')
		const key = `inflight:{${encodeURIComponent(name)}}`
		this.#keys = [key, `${key}:queue`, `${key}:leases`]
		this.#channel = `${key}:${this.#process}`
	}

	/** Must be called before anything is asked of Redis. */
	use(): void {
		this.#usedAt = performance.now()
		if (this.state !== 'out') return
		this.state = 'joining'
		this.#decide()
		this.#join()
	}

	/**
	 * Asks Redis, in the present session.
	 *
	 * @returns `undefined` if the session ended meanwhile: what became of it is not known, and doesn't count.
	 */
	async ask(...args: (string | number)[]): Promise<unknown[] | undefined> {
		const session = this.#session
		const place = {}
		this.#pending.set(place, performance.now())
		this.#patience ??= setTimeout(losePatience, this.#redisTimeout, this).unref()
		try {
			const [operation, ...rest] = args.map(String)
			const answer = await this.#connection.run(this.#keys, [
				operation as string,
				this.#process,
				String(session),
				...rest,
			])
			if (session !== this.#session || this.state !== 'in') return undefined
			// After a pause, what had arrived before it is read now: it is from a session that has ended.
			if (this.check() || (answer as unknown[])[0] === 'rejoin') {
				this.#lose(undefined)
				return undefined
			}
			return answer as unknown[]
		} catch (error) {
			if (session === this.#session) this.#lose(error)
			return undefined
		} finally {
			this.#pending.delete(place)
			this.#settle()
		}
	}

	/** What Redis calls a permit, or one who waits for it, in the present session. */
	fieldOf(id: string): string {
		return `${this.#process}:${this.#session}:${id}`
	}

	/** Resolves when nothing is under way to Redis. */
	quiet(): Promise<void> {
		if (this.#pending.size === 0) return Promise.resolve()
		return new Promise((resolve) => {
			this.#onQuiet.push(resolve)
		})
	}

	/**
	 * Whether the leases of all others must have ended as well, if it is Redis that is away: each renewed its own within a
	 * quarter of a lease of the others, and then had to find out.
	 */
	get allLapsed(): boolean {
		return performance.now() > this.#renewed + this.#ttl + this.lease / 2
	}

	/** @returns whether the lease has ended, by a clock that nobody sets. Its session is then over, too. */
	check(): boolean {
		if (!this.#lapsed && performance.now() > this.#renewed + this.#ttl) {
			this.#lapsed = true
			clearTimeout(this.#lapse)
			this.#lapse = setTimeout(() => this.#member.resume(), this.lease / 2 + 1).unref()
			this.#member.lapsed()
			this.#lose(new Error('the lease ended before it could be renewed'))
		}
		return this.#lapsed
	}

	async resize(capacity: number): Promise<void> {
		this.capacity = this.#resizing = capacity
		this.use()
		if (this.state === 'in' && (await this.ask('resize', capacity)) !== undefined) {
			if (this.#resizing === capacity) this.#resizing = undefined
		}
	}

	/** Ends the membership: Redis forgets the process. */
	async leave(): Promise<void> {
		if (this.state === 'out') return
		const joined = this.#generation !== ''
		this.state = 'out'
		this.#stop()
		this.#generation = ''
		this.#lapsed = true
		if (joined) await this.#forget(this.#session)
	}

	/** Ends the membership for good. */
	async close(): Promise<void> {
		await this.leave()
		this.#connection.unsubscribe(this.#channel)
	}

	message(text: string): void {
		if (this.state !== 'in') return
		const [session, value = '', token] = text.split(':')
		if (session === 'capacity') this.#resized(Number(value))
		else if (session === String(this.#session) && !this.check()) this.#member.granted(value, Number(token))
	}

	reset(): void {
		this.#lose(new Error('the connection was lost'))
	}

	resubscribed(): void {
		if (this.state === 'in') this.#renew()
	}

	/** The oldest command has been under way for as long as it may, if this process was not late itself. */
	losePatience(): void {
		this.#patience = undefined
		const oldest = this.#oldest() as number
		const due = oldest + this.#redisTimeout
		const now = performance.now()
		if (now < due) {
			this.#patience = setTimeout(losePatience, due - now, this).unref()
		} else if (now - due > this.#redisTimeout / 4) {
			// The process was blocked. The answers may be here, and may not even have been asked for: the time begins again.
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

	/** Has Redis forget a session of this process. */
	async #forget(session: number): Promise<void> {
		const place = {}
		this.#pending.set(place, performance.now())
		try {
			await within(
				5 * this.#redisTimeout,
				this.#connection.run(this.#keys, ['leave', this.#process, String(session)]),
			)
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
		clearTimeout(this.#lapse)
		clearTimeout(this.#decision)
		this.#pending.clear()
		this.#settle()
	}

	/** The session has ended: nobody knows what Redis has of it. */
	#lose(reason: unknown, waited = false): void {
		if (this.state !== 'in') return
		this.state = 'joining'
		clearTimeout(this.#renewal)
		this.#pending.clear()
		this.#settle()
		this.#reason = reason
		this.#member.lost()
		if (waited) this.#unavailable()
		else this.#decide()
		this.#join()
	}

	/** Redis has `redisTimeout` to answer before it is unavailable; in which this process must not be blocked itself. */
	#decide(): void {
		clearTimeout(this.#decision)
		const due = performance.now() + this.#redisTimeout
		this.#decision = setTimeout(() => {
			if (performance.now() - due > this.#redisTimeout / 4) this.#decide()
			else this.#unavailable()
		}, this.#redisTimeout).unref()
	}

	#unavailable(): void {
		if (!this.available) return
		this.available = false
		this.#member.availability(false, this.#reason)
	}

	/** Joins, again and again if need be. */
	async #join(): Promise<void> {
		if (this.#looping) return
		this.#looping = true
		while (this.state === 'joining') {
			try {
				await this.#connection.subscribe(this.#channel, this)
				// While Redis does not answer, this is what waits for it: nothing is held up by it.
				if (!this.available) await this.#connection.probe(this.#keys[0] as string)
				if (this.state === 'joining') await this.#joinOnce()
			} catch (error) {
				this.#reason = error
			}
			if (this.state === 'joining') await new Promise((resolve) => setTimeout(resolve, RETRY).unref())
		}
		this.#looping = false
	}

	async #joinOnce(): Promise<void> {
		const session = ++this.#session
		const sentAt = performance.now()
		const held = this.#member.held()
		const args = [
			this.lease,
			this.#ttl,
			this.#generation,
			this.#configured,
			this.#resizing ?? '',
			this.token,
			this.capacity,
			...held.flatMap(({ id, weight }) => [this.fieldOf(id), weight]),
		]
		const resizing = this.#resizing
		this.asking = true
		try {
			const answer = await within(
				this.#redisTimeout,
				this.#connection.load(this.#keys, ['join', this.#process, String(session), ...args.map(String)]),
			)
			if (this.state === 'out') this.#forget(session)
			if ((answer as unknown[])[0] === 'unheard') {
				this.#mend()
				throw new Error('Redis does not see that its channel is subscribed to')
			}
			this.#unheard = 0
			if (this.state !== 'joining' || (answer as unknown[])[0] !== 'ok') return
			if (this.#resizing === resizing) this.#resizing = undefined
			clearTimeout(this.#decision)
			this.#decision = undefined
			this.state = 'in'
			this.asking = false
			this.#learn(answer as unknown[], sentAt)
			this.#member.joined(held)
			if (!this.available) {
				this.available = true
				this.#member.availability(true, undefined)
			}
			if (this.#resizing !== undefined) this.resize(this.#resizing)
		} finally {
			this.asking = false
			if (this.state === 'joining') this.#member.resume()
		}
	}

	/** A client follows its channels to another shard by itself, but may fail to, and then does not try again. */
	async #mend(): Promise<void> {
		if (++this.#unheard % UNHEARD > 0 || this.#mending) return
		this.#mending = true
		await this.#connection.resubscribe(this.#channel)
		this.#mending = false
	}

	async #renew(): Promise<void> {
		clearTimeout(this.#renewal)
		const sentAt = performance.now()
		if (!this.#member.idle) this.#usedAt = sentAt
		else if (sentAt - this.#usedAt >= this.lease) {
			this.leave()
			return
		}
		// Should it be lost, this one does not count on its answer to go on.
		this.#renewal = setTimeout(() => this.#renew(), this.lease / 4).unref()
		const session = this.#session
		const waiting = this.#member.waiting()
		const asked = waiting.flatMap(({ id, weight }) => [this.fieldOf(id), weight])
		const answer = await this.ask('renew', this.lease, this.#ttl, ...asked)
		if (answer === undefined || session !== this.#session || this.state !== 'in') return
		const given = answer.slice(8)
		this.#learn(answer, sentAt)
		for (let i = 0; i < given.length; i += 2) {
			this.#member.granted(String(given[i]).split(':')[2] as string, Number(given[i + 1]))
		}
		if (given.length === 2 * ASKED) this.#renew()
	}

	/** Takes in what an answer says of the fleet. */
	#learn(answer: unknown[], sentAt: number): void {
		const [, generation, capacity, active, queued, processes, rank, soon] = answer
		this.known = true
		this.#generation = String(generation)
		this.active = Number(active)
		this.queued = Number(queued)
		this.processes = Number(processes)
		this.rank = Number(rank)
		this.#resized(Number(capacity))
		this.#renewed = sentAt
		this.#lapsed = false
		clearTimeout(this.#lapse)
		this.#lapse = setTimeout(() => this.check(), sentAt + this.#ttl - performance.now() + 1).unref()
		// A little later than the others' end, or this would find that it has not come yet.
		const next = Number(soon) < 0 ? this.lease / 4 : Math.min(this.lease / 4, Number(soon) + 2)
		clearTimeout(this.#renewal)
		this.#renewal = setTimeout(() => this.#renew(), next).unref()
	}

	/** The highest token is what a generation to come begins with. */
	see(token: number): void {
		if (token > this.token) this.token = token
	}

	#resized(capacity: number): void {
		if (this.#resizing !== undefined || capacity === this.capacity) return
		this.capacity = capacity
		this.#member.resized(capacity)
	}
}

function losePatience(fleet: Fleet): void {
	fleet.losePatience()
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
