import { createHash } from 'node:crypto'
import { SCRIPT } from './script.js'

/*
 * The protocol between the processes of a fleet and Redis: what is asked, as arguments of one
 * script, and what is answered, decoded by type. The script is in lua/: each operation is atomic,
 * and one command.
 *
 * What Redis keeps of a limiter, all in one hash slot by the tag {name}, all with an expiry that
 * renewals push on:
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
 * A lease is a process's, not a permit's. It renews it each quarter of a lease; the same command
 * takes back what belongs to processes whose leases have ended. It is also how a process learns of
 * permits whose message was lost.
 *
 * What can cross, or go wrong, and what then holds:
 *
 * - An answer and the end of patience. A process that got no answer in time does not know what
 *   became of its commands. It ends its *session*: it joins again with the next number, and with
 *   the permits that it holds. That drops whatever Redis had of it; commands of an older session
 *   that arrive late are answered `rejoin` and change nothing.
 * - An answer that is none of the script's, or an error. The same: the session ends. One that ends
 *   before any command of it has succeeded is a failed attempt to join.
 * - A cancel and a grant. To cancel is to release: it frees the permit if there is one, else takes
 *   the waiter out of the queue. It is sent only once the acquire was answered, so that no redirect
 *   can let it arrive first.
 * - A command that the client sends twice, after a reconnection. Each is known by process, session
 *   and id, and done once.
 * - A message and a lost subscription. The script sees that nobody listens, and passes over that
 *   waiter (in a cluster only with channels of its shard; else that can't be seen there). One that
 *   lives finds out when it subscribes again, or renews, and returns with its old ticket.
 * - A message that somebody else published. A grant names its waiter by an id that cannot be
 *   guessed, and that only Redis and its process know until then. `look` has the process ask Redis,
 *   at most ten times a second. Anything else is left aside.
 * - A dead holder, or one that was paused. Its lease ends, its permits go to others, and its
 *   session is gone: its late release changes nothing.
 * - A script that is denied a command. It asks for its rights before its first write. Whatever else
 *   can fail after that, Redis looks at before the first write only (memory, replicas, the disk).
 * - Books that are gone, incomplete, of another type, or an old copy, by whatever cause: FLUSHALL,
 *   DEL, an eviction, a restart, a failover. Then a new *generation* of the books begins, and
 *   processes join again with what they hold. For a while, in which some may be missing, room
 *   counts as taken: permits only pass from one that releases to one that waits (`grace`), and all
 *   of the capacity is said to be taken: a share of what only seems free would be one too many,
 *   should Redis go away again. That while is a lease if anything says that there was something. If
 *   nothing does, it is the time within which each that holds something meets Redis, and learns
 *   that it is gone: a quarter of a lease, and the time to connect.
 * - Nothing there, as nobody was there. That is known to a *witness*: to a process that has
 *   listened without a gap since it was in books that the last member closed, and heard that no
 *   others were opened before its own. It vouches for that, and nobody waits. A message of before
 *   its own opening cannot be missing when it hears its own: they come in order.
 * - A Redis that was away, with all its memory. Nobody could renew, so nobody is taken for dead:
 *   the clock of leases stood still.
 */

/**
 * How a client listens to its channels, and whether Redis can see that it does: `p`: to channels,
 * which a single Redis sees; `s`: to channels of their shard in a cluster, which that shard sees;
 * `b`: to channels in a cluster, which can't be seen.
 */
export type Listening = 'p' | 's' | 'b'

export const SHA: string = createHash('sha1').update(SCRIPT).digest('hex')

/** The keys of a limiter, in the order in which the script knows them. */
export function keysOf(name: string): string[] {
	const key = `inflight:{${encodeURIComponent(name)}}`
	return [key, `${key}:queue`, `${key}:leases`]
}

/**
 * What a key of a limiter is called in Redis, whatever users put into it; of a limiter without
 * keys: ''.
 */
export function accountOf(key: string | undefined): string {
	return key === undefined ? '' : `=${createHash('sha256').update(key).digest('base64url')}`
}

/** A permit, or a wait for one, as Redis knows it. */
export interface Held {
	readonly id: string
	readonly weight: number
	/** See {@link accountOf}. */
	readonly account: string
}

/** One that waits in Redis. */
export interface Queued extends Held {
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

/** As it stands in the queue. */
function placeOf(speaker: Speaker, { account, ticket, id, weight }: Queued): string {
	return `${account}:${String(ticket).padStart(16, '0')}:${fieldOf(speaker, id)}:${weight}`
}

/** What is asked, and what the answers to it can be. */
export interface Request<Answer> {
	readonly operation: string
	readonly args: (speaker: Speaker) => Args
	/** @throws Error - it is no answer to this. */
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
	/** How many processes stand before this one, in an order that all see alike. */
	rank: number
	/** In how many ms there is something to do; `undefined`: it is not known of any. */
	soon: number | undefined
}

export type Joined =
	| { is: 'joined'; generation: string; secret: string; opened: boolean; policy: string; fleet: FleetState }
	| { is: 'unheard' }
	| { is: 'stale' }

export interface Renewed {
	fleet: FleetState
	given: { id: string; token: number }[]
}

export function acquire(
	waiter: Queued,
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
			return { is: 'queued', active: answer.count(), ahead: answer.count(), ticket: answer.count(1) }
		case 'full':
			return { is: 'full', active: answer.count(), queued: answer.count() }
		default:
			throw answer.odd()
	}
}

/** Ends a permit, or the wait of one with a ticket. @returns what is then held in the fleet. */
export function release({ id, account, weight }: Held, ticket: number): Request<number> {
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
	/** Within this time each that holds something meets Redis, in ms. */
	absence: number
	/** How long after its start a server may be one that lost its memory, in ms. */
	youth: number
	/** The generation of its last session; '': none. */
	generation: string
	configured: number
	/** The capacity to be from now on. */
	resizing: number | undefined
	token: number
	/** As last known. */
	capacity: number
	secret: string
	/** Whether to look at the maxmemory-policy. */
	policy: boolean
	held: Held[]
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
			...facts.held.flatMap(({ id, weight, account }) => [fieldOf(speaker, id), `${weight}${account}`]),
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

export function renew(lease: number, ttl: number, waiting: Queued[]): Request<Renewed> {
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
	return { capacity, active, queued, processes, rank, soon: soon < 0 ? undefined : soon }
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
 * @throws Error - it is none of the answers that the script gives to it.
 */
export function decode<Answer>(request: Request<Answer>, answer: unknown): Answer | undefined {
	const reader = new Reader(answer)
	if (request.operation !== 'join' && reader.rejoin) return undefined
	const decoded = request.decode(reader)
	if (reader.more) throw reader.odd()
	return decoded
}

/** Takes an answer apart, value by value, and throws when one is not what it must be. */
class Reader {
	readonly #values: readonly unknown[]
	#at = 0

	constructor(answer: unknown) {
		this.#values = Array.isArray(answer) ? answer : [answer]
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
		if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < lowest) throw this.odd()
		return number
	}

	odd(): Error {
		return new Error(`an answer that makes no sense: ${show(this.#values)}`)
	}
}

function show(value: unknown): string {
	try {
		return (JSON.stringify(value) ?? String(value)).slice(0, 100)
	} catch {
		return typeof value
	}
}

/** What a message on a channel says; anything else is left aside. */
export type Message =
	| { is: 'grant'; session: number; id: string; token: number }
	| { is: 'look' }
	| { is: 'opened'; generation: string }
	| { is: 'closed'; generation: string; secret: string }

/** More than any message of the script has, in characters. */
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
