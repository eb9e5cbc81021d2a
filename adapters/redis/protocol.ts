import { createHash } from 'node:crypto'
import { SCRIPT } from './script.js'

/*
 * The protocol between the processes of a fleet and Redis: encodes commands as arguments of one
 * script, and decodes and checks the answers. The script is in lua/: each operation is atomic, and
 * one command.
 *
 * What Redis keeps of a limiter, all in one hash slot by the tag {name}, all with an expiry that
 * renewals extend. With the option `key`, `inflight:{name}:keyed` takes the place of
 * `inflight:{name}` in all of it:
 *
 *   inflight:{name}            the books, a hash: all that the bound rests on, so that it is lost
 *                              together or not at all
 *   inflight:{name}:queue      a sorted set of those that wait, by key and ticket
 *   inflight:{name}:leases     a sorted set: process → when its lease ends, by the clock of leases
 *   inflight:{name}:<process>  a channel: `grant:<session>:<id>:<token>` tells a process that its
 *                              waiter was given a permit, `look` that there is something to learn.
 *                              How it listens is in the first letter of what the process is called,
 *                              see `Listening`
 *   inflight:{name}:books      a channel: `opened:<generation>`, `closed:<generation>:<secret>`
 *
 * A lease is a process's, not a permit's. The process renews it each quarter of a lease. The same
 * command takes back the permits and places of processes whose leases have ended, and reports
 * permits whose message was lost.
 *
 * What can happen at the same time, or go wrong, and how it is handled:
 *
 * - An answer comes after `redisTimeout`. A process that got no answer in time does not know
 *   whether its commands were executed. It ends its *session*: it joins again with the next session
 *   number, and with the permits that it holds. Redis then forgets what it had of the old session.
 *   Commands of an old session that arrive late change nothing, and are answered with `rejoin`.
 * - An error, or an answer that the script never gives. The session ends, too. A session that ends
 *   before any of its commands has succeeded is a failed attempt to join.
 * - A cancel and a grant cross. The cancel is a release: it frees the permit if there is one, and
 *   otherwise removes the waiter from the queue. It is sent only after the answer to the acquire,
 *   so that no redirect can make it arrive first.
 * - The client sends a command twice, after a reconnection. Process, session and id identify the
 *   command, and it is executed once.
 * - A message is sent while the subscription is lost. The script sees that nothing listens to the
 *   channel, and passes over that waiter (in a cluster, this can only be seen with sharded
 *   channels). A living process finds out when it subscribes again or renews, and its waiter
 *   returns with its old ticket.
 * - The connection for messages leads to another server than that for commands, after a failover:
 *   perhaps to a replica, which hands on the messages of its master. Redis sends nothing to a
 *   process that it does not see listen, and tells it so with each renewal. The process then opens
 *   the connection for messages anew.
 * - Another user of Redis publishes a message. A grant has the id of its waiter, which cannot be
 *   guessed, and which only Redis and its process know until then. `look` makes the process ask
 *   Redis, at most ten times a second. Anything else is ignored.
 * - A process dies or is paused. Its lease ends, its permits go to others, and its session is gone:
 *   its late release changes nothing.
 * - Redis denies a command to the script. So the script checks its rights before its first write.
 *   Redis checks all other conditions (memory, replicas, the disk) only before the first write.
 * - The books are gone, incomplete, of another type, or an old copy, for any reason: FLUSHALL, DEL,
 *   an eviction, a restart, a failover. Then a new *generation* of the books begins, and processes
 *   join again with what they hold. During a period of *grace*, some of them may be missing, so
 *   free room counts as taken: permits only pass from a holder that releases to a waiter. If Redis
 *   goes away again, a process takes its share by what it knew before: then room was free that only
 *   seems free now. A process without such news takes none. The grace is a lease if there is any
 *   sign of earlier books. If there is none, it is the time within which each holder contacts Redis
 *   and learns that its permits are unknown: a quarter of a lease, plus the time to connect.
 * - There are no books, because no process was in the fleet. A *witness* knows this: a process that
 *   was in the last books, has received all messages since the last member closed them, and has
 *   seen no others opened before its own. It vouches for that, and there is no grace. Messages come
 *   in order: a process that has received its own opening has missed none before it.
 * - Redis was away, and has kept its memory. No process could renew, so none counts as dead: the
 *   clock of leases stood still.
 */

/**
 * How a client listens to its channels, and whether Redis can see it. `p`: to plain channels of a
 * single Redis, which sees it. `s`: to sharded channels in a cluster; their shard sees it. `b`: to
 * plain channels in a cluster, where it can't be seen.
 */
export type Listening = 'p' | 's' | 'b'

export const SHA: string = createHash('sha1').update(SCRIPT).digest('hex')

/**
 * The keys of a limiter, in the order that the script expects. Limiters of one name with keys and
 * without must not meet in one queue: neither would pass a permit on to the other.
 */
export function keysOf(name: string, keyed: boolean): string[] {
	const key = `inflight:{${encodeURIComponent(name)}}${keyed ? ':keyed' : ''}`
	return [key, `${key}:queue`, `${key}:leases`]
}

/**
 * The name of a key in Redis: a hash, as users may put anything into a key; '' for a limiter
 * without keys. Not by UTF-8, in which all lone surrogates are the same.
 */
export function accountOf(key: string | undefined): string {
	return key === undefined
		? ''
		: `=${createHash('sha256').update(key, 'utf16le').digest('base64url')}`
}

/** A permit, or a wait for one, as Redis knows it. */
export interface Claim {
	readonly id: string
	readonly weight: number
	/** See {@link accountOf}. */
	readonly account: string
	/** Its place in the queue, while it waits; 0: it never got one. */
	readonly ticket: number
}

/** A process in one session. */
export interface Speaker {
	readonly process: string
	readonly session: number
}

type Args = (string | number)[]

function fieldOf({ process, session }: Speaker, id: string): string {
	return `${process}:${session}:${id}`
}

/** The member of the sorted set for a waiter. */
function placeOf(speaker: Speaker, { account, ticket, id, weight }: Claim): string {
	return `${account}:${String(ticket).padStart(16, '0')}:${fieldOf(speaker, id)}:${weight}`
}

/** A command, and how to decode its answers. */
export interface Request<Answer> {
	readonly operation: string
	readonly args: (speaker: Speaker) => Args
	/** @throws Error - it is no valid answer to this command. */
	readonly decode: (answer: Reader) => Answer
}

export type Acquired =
	| { is: 'granted'; token: number; active: number }
	| { is: 'queued'; active: number; ahead: number; ticket: number }
	| { is: 'full'; active: number; queued: number }

/** What a process must know of its fleet. */
export interface FleetState {
	capacity: number
	active: number
	queued: number
	processes: number
	/** How many processes come before this one, in an order that is the same for all. */
	rank: number
	/**
	 * The time until the next lease of another process, or the grace, ends, in ms; `undefined`: none
	 * is known.
	 */
	soon: number | undefined
	/** Whether holders of permits may be missing from these figures, after a loss of memory. */
	grace: boolean
	/** Whether Redis sees that this process listens to its channel, or can't see it. */
	heard: boolean
}

export type Joined =
	| {
			is: 'joined'
			generation: string
			secret: string
			opened: boolean
			policy: string
			fleet: FleetState
	  }
	| { is: 'unheard' }
	| { is: 'stale' }

export interface Renewed {
	fleet: FleetState
	given: { id: string; token: number }[]
}

export function acquire(
	waiter: Claim,
	{ maxQueue, lease }: { maxQueue: number; lease: number },
): Request<Acquired> {
	return {
		operation: 'acquire',
		args: (speaker) => [
			fieldOf(speaker, waiter.id),
			waiter.weight,
			waiter.account,
			maxQueue,
			2 * lease,
			waiter.ticket,
		],
		decode: decodeAcquired,
	}
}

function decodeAcquired(answer: Reader): Acquired {
	switch (answer.word()) {
		case 'granted':
			return { is: 'granted', token: answer.count(1), active: answer.count() }
		case 'queued':
			return {
				is: 'queued',
				active: answer.count(),
				ahead: answer.count(),
				ticket: answer.count(1),
			}
		case 'full':
			return { is: 'full', active: answer.count(), queued: answer.count() }
		default:
			throw answer.odd()
	}
}

/** Ends a permit, or a wait. The answer is the number of permits then held in the fleet. */
export function release({ id, account, weight, ticket }: Claim): Request<number> {
	return {
		operation: 'release',
		args: (speaker) => [fieldOf(speaker, id), account, weight, ticket],
		decode: decodeReleased,
	}
}

function decodeReleased(answer: Reader): number {
	answer.expect('ok')
	return answer.count()
}

export interface Joining {
	lease: number
	ttl: number
	/** The time within which each holder contacts Redis, in ms. */
	absence: number
	/** How long after its start a server may be one that has lost its memory, in ms. */
	youth: number
	/** The generation of its last session; '': none. */
	generation: string
	configured: number
	/** The new capacity; `undefined`: it does not change. */
	resizing: number | undefined
	token: number
	/** As last known. */
	capacity: number
	secret: string
	/** Whether to look at the maxmemory-policy. */
	policy: boolean
	held: Claim[]
}

export function join(facts: Joining): Request<Joined> {
	return {
		operation: 'join',
		args: (speaker) => [
			facts.lease,
			facts.ttl,
			facts.absence,
			facts.youth,
			facts.generation,
			facts.configured,
			facts.resizing ?? '',
			facts.token,
			facts.capacity,
			facts.secret,
			facts.policy ? '1' : '',
			...facts.held.flatMap(({ id, weight, account }) => [
				fieldOf(speaker, id),
				`${weight}${account}`,
			]),
		],
		decode: (answer) => {
			switch (answer.word()) {
				case 'joined':
					return {
						is: 'joined',
						generation: answer.digits(),
						secret: answer.word(),
						opened: answer.count() === 1,
						policy: answer.word(),
						fleet: decodeFleet(answer),
					}
				case 'unheard':
					return { is: 'unheard' }
				case 'stale':
					return { is: 'stale' }
				default:
					throw answer.odd()
			}
		},
	}
}

export function renew(lease: number, ttl: number, waiting: Claim[]): Request<Renewed> {
	return {
		operation: 'renew',
		args: (speaker) => [
			lease,
			ttl,
			...waiting.flatMap((waiter) => [fieldOf(speaker, waiter.id), placeOf(speaker, waiter)]),
		],
		decode: (answer) => {
			answer.expect('renewed')
			const fleet = decodeFleet(answer)
			const given: Renewed['given'] = []
			while (answer.more) {
				const [, , id] = answer.word().split(':')
				if (id === undefined) throw answer.odd()
				given.push({ id, token: answer.count(1) })
			}
			return { fleet, given }
		},
	}
}

function decodeFleet(answer: Reader): FleetState {
	const capacity = answer.count(1)
	const active = answer.count()
	const queued = answer.count()
	const processes = answer.count(1)
	const rank = answer.count()
	const soon = answer.count(-1)
	const grace = answer.count() === 1
	const heard = answer.count() === 1
	return {
		capacity,
		active,
		queued,
		processes,
		rank,
		soon: soon < 0 ? undefined : soon,
		grace,
		heard,
	}
}

function plain(operation: string, ...args: Args): Request<true> {
	return {
		operation,
		args: () => args,
		decode: (answer) => {
			answer.expect('ok')
			return true
		},
	}
}

export function vouch(generation: string): Request<true> {
	return plain('vouch', generation)
}

export function resize(capacity: number): Request<true> {
	return plain('resize', capacity)
}

export const leave: Request<true> = plain('leave')

/** The arguments of the script for a request. */
export function encode(request: Request<unknown>, speaker: Speaker): string[] {
	return [request.operation, speaker.process, speaker.session, ...request.args(speaker)].map(String)
}

/**
 * The answer to a request.
 *
 * @returns `undefined`: Redis does not know the session.
 * @throws Error - the script never gives this answer to the request.
 */
export function decode<Answer>(request: Request<Answer>, answer: unknown): Answer | undefined {
	const reader = new Reader(answer)
	if (request.operation !== 'join' && reader.rejoin) return undefined
	const decoded = request.decode(reader)
	if (reader.more) throw reader.odd()
	return decoded
}

/** Reads an answer, value by value, and throws if one is not valid. */
class Reader {
	readonly #values: readonly unknown[]
	#at = 0

	constructor(answer: unknown) {
		this.#values = Array.isArray(answer) ? answer.map(inText) : [answer]
		if (!Array.isArray(answer)) throw this.odd()
	}

	get more(): boolean {
		return this.#at < this.#values.length
	}

	get rejoin(): boolean {
		return this.#values.length === 1 && this.#values[0] === 'rejoin'
	}

	word(): string {
		const value = this.#values[this.#at++]
		if (typeof value !== 'string') throw this.odd()
		return value
	}

	expect(word: string): void {
		if (this.word() !== word) throw this.odd()
	}

	digits(): string {
		const value = this.word()
		if (!/^\d{1,16}$/.test(value)) throw this.odd()
		return value
	}

	/** A safe integer; a client can be told to give numbers as strings. */
	count(lowest = 0): number {
		const value = this.#values[this.#at++]
		const number = typeof value === 'string' && /^-?\d{1,16}$/.test(value) ? Number(value) : value
		if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < lowest)
			throw this.odd()
		return number
	}

	odd(): Error {
		return new Error(`an answer that makes no sense: ${show(this.#values)}`)
	}
}

/** A client can be told to give text as bytes. */
function inText(value: unknown): unknown {
	return Buffer.isBuffer(value) ? value.toString() : value
}

function show(value: unknown): string {
	try {
		return (JSON.stringify(value) ?? String(value)).slice(0, 100)
	} catch {
		return typeof value
	}
}

/** A message on a channel. Other messages are ignored. */
export type Message =
	| { is: 'grant'; session: number; id: string; token: number }
	| { is: 'look' }
	| { is: 'opened'; generation: string }
	| { is: 'closed'; generation: string; secret: string }

/** Longer than any message of the script, in characters. */
const LONGEST_MESSAGE = 100

export function decodeMessage(text: unknown): Message | undefined {
	if (typeof text !== 'string' || text.length > LONGEST_MESSAGE) return undefined
	if (text === 'look') return { is: 'look' }
	const [, opened, closed, secret] = /^(?:opened:(\d+)|closed:(\d+):([\w-]+))$/.exec(text) ?? []
	if (opened !== undefined) return { is: 'opened', generation: opened }
	if (closed !== undefined) return { is: 'closed', generation: closed, secret: secret as string }
	const [, session, id, digits] = /^grant:(\d{1,16}):([\w-]+):(\d{1,16})$/.exec(text) ?? []
	const token = Number(digits)
	if (id === undefined || !(Number.isSafeInteger(token) && token > 0)) return undefined
	return { is: 'grant', session: Number(session), id, token }
}
