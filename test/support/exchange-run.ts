import http, { type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import http2, {
	type ClientHttp2Session,
	type ClientHttp2Stream,
	type ServerHttp2Stream,
} from 'node:http2'
import net, { type AddressInfo, Socket } from 'node:net'
import type { Limiter } from '../../adapters/express.js'
import {
	answerByOther,
	appOf,
	destroy,
	END,
	type Exchange,
	exchangeOf,
	Gate,
	release,
	setExchange,
	type Watch,
} from './exchange-apps.js'
import type { Exit, Program, Send, Step } from './exchange-model.js'
import { answersIn, type WireAnswer } from './http1-answers.js'

/*
 * Runs a program against a server, over sockets, and checks the laws: at each handler's start,
 * whenever the server is at rest, and at the end, when all handlers have gone on and all clients
 * that stayed must have their answers.
 */

/** A law does not hold. */
class Violation extends Error {}

const laterReal = globalThis.setTimeout

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const pause = (ms: number): Promise<void> => new Promise((resolve) => laterReal(resolve, ms))

/**
 * What does not come to be in so many turns and ms does not come to be: all of it happens in this
 * process.
 */
const PATIENCE = { turns: 300, ms: 250 }

async function waitFor(what: () => boolean, message: () => string): Promise<void> {
	const begun = performance.now()
	for (let turns = 0; !what(); turns++) {
		if (turns > PATIENCE.turns && performance.now() - begun > PATIENCE.ms)
			throw new Violation(message())
		await (turns > 50 ? pause(1) : turn())
	}
}

/** A client's side of a connection. */
interface Client {
	readonly sent: Exchange[]
	/** It has left, or can't be served. */
	left: boolean
	/** It sends nothing more. */
	mute: boolean
	closed: boolean
	/**
	 * The server has closed while there was more to read, by which what it had sent may be lost on
	 * the way.
	 */
	reset: boolean
	/** What it was answered, in the order of its requests; `undefined`: nothing yet. */
	answers(): (WireAnswer | undefined)[]
	write(exchange: Exchange): void
	/** Sends the rest of an upload. */
	completeUpload(): void
	leave(how: Exit, exchange: Exchange, halfOpen: boolean): void
	/** The server's side of it. */
	serverSocket(): Socket | undefined
	destroy(): void
}

export interface Bench {
	/** @throws Violation - a law does not hold. */
	run(program: Program): Promise<void>
	close(): Promise<void>
}

/** The servers, which serve one program after the other. */
export async function openBench(): Promise<Bench> {
	let listener: RequestListener = () => {}
	const server = http.createServer((req, res) => listener(req, res))
	// An idle time that somebody asked for is his affair.
	server.on('timeout', () => {})
	const server2 = http2.createServer((req, res) =>
		listener(req as unknown as IncomingMessage, res as unknown as ServerResponse),
	)
	server2.on('sessionError', () => {})
	const sockets = new Map<number, Socket>()
	for (const each of [server, server2]) {
		each.on('connection', (socket: Socket) => {
			const { remotePort = 0 } = socket
			sockets.set(remotePort, socket)
			socket.once('close', () => {
				sockets.delete(remotePort)
				closed.add(socket)
			})
		})
		await new Promise<void>((resolve) => each.listen(0, '127.0.0.1', resolve))
	}
	const portOf = (protocol: Program['protocol']): number =>
		((protocol === 'HTTP/2' ? server2 : server).address() as AddressInfo).port
	const baseline = new Map<string, Record<string, number>>()

	return {
		async run(program) {
			;(server as http.Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = program.halfOpen
			const timers = watchTimers()
			const accidents = watchAccidents()
			const connect = (): Promise<Client> =>
				program.protocol === 'HTTP/2'
					? connectHttp2(portOf('HTTP/2'), sockets)
					: connectHttp1(portOf('HTTP/1'), sockets)
			const run = new Run(program, connect)
			listener = run.listener
			try {
				await run.steps()
				await run.end()
				await run.serveFresh()
				if (program.protocol === 'HTTP/1') await run.checkListeners(baseline)
			} finally {
				run.letAllGo()
				for (const client of run.clients) client.destroy()
				// Node keeps a connection open whose client has ended its side before it was answered,
				// where half-open connections are allowed.
				if (program.halfOpen) for (const socket of sockets.values()) socket.destroy()
				for (let turns = 0; sockets.size > 0 && turns < 1000; turns++) await turn()
				timers.restore()
				accidents.restore()
			}
			await waitFor(
				() => timers.left() === 0,
				() => `${timers.left()} timers are left after all connections have closed`,
			)
			if (accidents.seen.length > 0)
				throw new Violation(`accidents: ${accidents.seen.map(String).join('; ')}`)
		},
		async close() {
			await new Promise((resolve) => server.close(resolve))
			await new Promise((resolve) => server2.close(resolve))
		},
	}
}

function watchTimers(): { left(): number; restore(): void } {
	const made: NodeJS.Timeout[] = []
	const real = globalThis.setTimeout
	const watched = (...args: Parameters<typeof real>): NodeJS.Timeout => {
		const timer = real(...args)
		made.push(timer)
		return timer
	}
	globalThis.setTimeout = Object.assign(watched, real)
	return {
		left: () =>
			made.filter((timer) => !(timer as unknown as { _destroyed: boolean })._destroyed).length,
		restore() {
			globalThis.setTimeout = real
		},
	}
}

const ACCIDENTS = ['unhandledRejection', 'uncaughtException', 'warning']

function watchAccidents(): { seen: unknown[]; restore(): void } {
	const seen: unknown[] = []
	const see = (what: unknown): void => {
		seen.push(what)
	}
	for (const event of ACCIDENTS) process.on(event, see)
	return {
		seen,
		restore() {
			for (const event of ACCIDENTS) process.off(event, see)
		},
	}
}

/**
 * Sockets that have emitted `close`: Node says that they are closed up to a turn of the event loop
 * before.
 */
const closed = new WeakSet<object>()

function isClosed(carrier: Exchange['carrier']): boolean {
	return carrier !== undefined && (carrier instanceof Socket ? closed.has(carrier) : carrier.closed)
}

class Run implements Watch {
	readonly clients: Client[] = []
	readonly listener: RequestListener
	readonly #limiter: Limiter
	readonly #program: Program
	readonly #connect: () => Promise<Client>
	readonly #exchanges: Exchange[] = []
	readonly #byId = new Map<string, Exchange>()
	/** The client in use at each of the program's numbers. */
	readonly #current = new Map<number, Client>()
	/** Where a law was broken in the midst of a server's work, to be thrown by the run. */
	#broken: string | undefined
	/** The highest capacity of this turn. */
	#ceiling: number
	#free = false

	constructor(program: Program, connect: () => Promise<Client>) {
		this.#program = program
		this.#connect = connect
		this.#ceiling = program.capacity
		const { listener, limiter } = appOf(program, this)
		this.listener = listener
		this.#limiter = limiter
	}

	/* What the app tells. */

	arrives(req: IncomingMessage, res: ServerResponse): Exchange {
		const exchange = this.#byId.get(req.url?.split('/')[2] ?? '') as Exchange
		setExchange(req, exchange)
		const { stream } = res as ServerResponse & { stream?: ServerHttp2Stream }
		exchange.req = req
		exchange.res = res
		exchange.stream = stream
		exchange.carrier = stream ?? req.socket
		if (exchange.send.closes && stream === undefined) res.setHeader('Connection', 'close')
		// As in any sane app: what is written to a client that has left fails.
		res.on('error', () => {})
		stream?.on('error', () => {})
		;(stream ?? res).on('finish', () => {
			// Node ends a stream itself when its client resets it.
			if (stream?.aborted) return
			if (exchange.ended || exchange.piped || res.writableEnded) exchange.finished = true
		})
		return exchange
	}

	enters(exchange: Exchange): void {
		exchange.entered = true
	}

	asked(name: string, req: IncomingMessage): void {
		this.#mustBeThere(exchangeOf(req), `${name} was asked about`)
	}

	begins(exchange: Exchange): void {
		if (!exchange.limited) {
			exchange.begun = true
			return
		}
		this.#mustBeThere(exchange, 'the handler ran for')
		if (exchange.begun) this.#break(`the handler ran twice for #${exchange.id}`)
		exchange.begun = true
		const atWork = this.#exchanges.filter((each) => this.#atWork(each))
		if (atWork.length > this.#ceiling) {
			const ids = atWork.map(({ id }) => `#${id}`).join(', ')
			this.#break(`${atWork.length} handlers at work (${ids}), capacity ${this.#ceiling}`)
		}
	}

	#mustBeThere({ id, req, res, carrier, stream }: Exchange, what: string): void {
		if (carrier?.destroyed) this.#break(`${what} #${id}, the client of which was gone`)
		else if (res?.writableEnded) this.#break(`${what} #${id}, which was answered`)
		else if (res?.destroyed) this.#break(`${what} #${id}, the response of which was destroyed`)
		else if (stream === undefined && res?.socket !== req?.socket)
			this.#break(`${what} #${id} before its response owned the connection`)
	}

	#break(law: string): void {
		this.#broken ??= law
	}

	/**
	 * "When an exchange is over", read in favour of the limiter: this one has no right to be at work
	 * without a permit.
	 */
	#atWork(each: Exchange): boolean {
		return (
			each.limited &&
			each.begun &&
			!each.done &&
			!each.released &&
			!each.finished &&
			!this.#over(each)
		)
	}

	/** Its client has gone, and its handler is known to be done. */
	#over(each: Exchange): boolean {
		if (!each.carrier?.destroyed) return false
		if (this.#program.abandonedTimeout === 0) return true
		if (this.#program.framework === 'Koa 3') return each.done
		// The last handler of Express destroys the socket, when the head of the answer is out.
		const cut = each.cutSocket && (each.stream !== undefined || each.res?.headersSent)
		return each.ended || each.piped || each.destroyed || each.res?.writableEnded || cut === true
	}

	/* The steps. */

	async steps(): Promise<void> {
		for (const step of this.#program.steps) {
			await this.#take(step)
			for (let turns = 0; turns < step.turns; turns++) await turn()
			this.#check(step.turns > 2)
		}
	}

	async #take(step: Step): Promise<void> {
		if (step.do === 'send') {
			const client = await this.#client(step)
			client.completeUpload()
			this.#send(client, step)
			return
		}
		if (step.do === 'resize') {
			this.#limiter.resize(step.capacity)
			this.#ceiling = Math.max(this.#ceiling, step.capacity)
			setImmediate(() => {
				this.#ceiling = this.#limiter.capacity
			})
			return
		}
		if (step.do === 'pause') return pause(4)
		const exchange = this.#exchanges[step.of % this.#exchanges.length]
		if (exchange === undefined) return
		const client = this.#clientOf(exchange)
		switch (step.do) {
			case 'enter':
				exchange.entry.open()
				return
			case 'go':
				exchange.gate.letOne()
				return
			case 'answer':
				answerByOther(exchange, step.how, this.#program.framework === 'Koa 3')
				return
			case 'leave':
				client.leave(step.how, exchange, this.#program.halfOpen)
				return
			case 'release':
				// As a handler does that waits for nothing.
				if (exchange.begun && !exchange.done) release(exchange)
				return
			case 'destroy':
				if (exchange.res !== undefined) destroy(exchange, step.what)
		}
	}

	#clientOf(exchange: Exchange): Client {
		return this.clients.find(({ sent }) => sent.includes(exchange)) as Client
	}

	async #client({ connection }: Send): Promise<Client> {
		const client = this.#current.get(connection)
		if (client !== undefined && !client.left && !client.mute && !client.closed) return client
		const fresh = await this.#connect()
		this.clients.push(fresh)
		this.#current.set(connection, fresh)
		return fresh
	}

	#send(client: Client, send: Send, id = String(this.#exchanges.length)): Exchange {
		const { abandonedTimeout } = this.#program
		let winRace = (): void => {}
		const race = new Promise<void>((resolve) => {
			winRace = resolve
		})
		// Only `abandonedTimeout` bounds a handler that leaves its response open. To a server that
		// allows half-open connections, a client that left is one that has only ended its side.
		const { halfOpen } = this.#program
		const mayReturn = abandonedTimeout === 0 && !halfOpen
		// An error after the headers makes Express destroy the socket. When another request is behind,
		// this can't be told from a client that left, and `abandonedTimeout` is what bounds it.
		const mayCut = (this.#program.framework !== 'Express 5' || abandonedTimeout === 0) && !halfOpen
		const written = send.handler.indexOf('write')
		const handler = send.handler.map((each, i) => {
			if (each === 'return' && !mayReturn) return 'end'
			return each === 'throw' && written >= 0 && written < i && !mayCut ? 'end' : each
		})
		const exchange: Exchange = {
			id,
			send: { ...send, handler },
			limited: send.limited,
			req: undefined,
			res: undefined,
			carrier: undefined,
			stream: undefined,
			entry: new Gate(!send.held || this.#free),
			gate: new Gate(this.#free),
			entered: false,
			begun: false,
			done: false,
			answeredBy: undefined,
			finished: false,
			released: false,
			ended: false,
			piped: false,
			destroyed: false,
			threw: false,
			hangs: false,
			cut: false,
			cutSocket: false,
			winRace,
			race,
			takeOver() {},
		}
		this.#exchanges.push(exchange)
		this.#byId.set(id, exchange)
		client.sent.push(exchange)
		client.write(exchange)
		return exchange
	}

	/* The laws. */

	#check(atRest: boolean): void {
		if (this.#broken !== undefined) throw new Violation(this.#broken)
		const { active, queued, capacity } = this.#limiter
		if (this.#program.protocol === 'HTTP/1' && active + queued > this.clients.length) {
			throw new Violation(
				`${active} at work and ${queued} waiting by ${this.clients.length} connections: more than one each`,
			)
		}
		if (!atRest) return
		const waiting = this.#exchanges.filter((each) => this.#mayWait(each))
		if (queued > waiting.length) {
			throw new Violation(`${queued} are queued, though only ${ids(waiting)} may wait`)
		}
		const holding = this.#exchanges.filter((each) => this.#mayHold(each))
		if (active > holding.length) {
			throw new Violation(`${active} permits are held, though only ${ids(holding)} may hold one`)
		}
		if (queued > 0 && active < capacity) {
			throw new Violation(`${queued} wait, though only ${active} of ${capacity} permits are held`)
		}
	}

	#mayWait({ limited, entered, begun, res, carrier }: Exchange): boolean {
		return (
			limited && entered && !begun && !res?.writableEnded && !res?.destroyed && !isClosed(carrier)
		)
	}

	#mayHold(each: Exchange): boolean {
		// A file by the framework is opened first.
		const unsure = (each.piped && each.send.handler.length > 0) || each.cutSocket
		const over = isClosed(each.carrier) && this.#over(each) && !unsure
		return each.limited && each.begun && !each.released && !each.finished && !over
	}

	/* The end. */

	letAllGo(): void {
		this.#free = true
		for (const { entry, gate } of this.#exchanges) {
			entry.open()
			gate.open()
		}
	}

	/** All go on; then all permits are back, and the clients that stayed have their answers. */
	async end(): Promise<void> {
		this.letAllGo()
		for (const client of this.clients) client.completeUpload()
		await waitFor(
			() => this.clients.filter((client) => !this.#atPeace(client)).length === 0,
			() => {
				this.#check(false)
				const without = this.clients.flatMap((client) =>
					this.#atPeace(client) ? [] : client.sent.filter((_, i) => !client.answers()[i]?.complete),
				)
				return `clients that stayed have no complete answer: ${ids(without)}`
			},
		)
		// The last request of a client that has left reaches the server some time before its end.
		const seen = ({ left, serverSocket }: Client): boolean => {
			const socket = serverSocket()
			return !left || socket === undefined || (this.#program.halfOpen && socket.readableEnded)
		}
		await waitFor(
			() => this.clients.every(seen),
			() => 'the test itself: the server has not seen the end of a client that has left',
		)
		await this.#atRest()
		for (const client of this.clients) this.#checkAnswers(client)
		const figures = (): { admitted: number; completed: number; abandoned: number } =>
			this.#limiter.stats()
		await waitFor(
			() => figures().admitted === figures().completed + figures().abandoned,
			() => {
				const { admitted, completed, abandoned } = figures()
				return `admitted ${admitted}, completed ${completed}, abandoned ${abandoned}`
			},
		)
	}

	async #atRest(): Promise<void> {
		const { stats } = { stats: () => this.#limiter.stats() }
		await waitFor(
			() => this.#limiter.active === 0 && this.#limiter.queued === 0,
			() => `at the end ${stats().active} permits are held, and ${stats().queued} wait`,
		)
		await waitFor(
			() => this.#exchanges.every(({ begun, done }) => !begun || done),
			() => 'the test itself: a handler does not end',
		)
		this.#check(true)
	}

	/** The app has destroyed its connection. */
	#isCut({ sent }: Client): boolean {
		return this.#program.protocol === 'HTTP/1' && sent.some(({ cutSocket }) => cutSocket)
	}

	#atPeace(client: Client): boolean {
		if (this.#isCut(client)) return true
		// Nobody will ever end one of its responses, and others may wait for the permit of that.
		const hangs = client.sent.some(
			(each) => each.hangs && !each.finished && each.answeredBy !== 'other',
		)
		if (hangs) {
			client.left = true
			client.destroy()
			// Node sees nothing more of a client that has ended its side, where half-open connections are
			// allowed.
			client.serverSocket()?.destroy()
		}
		if (client.left || client.closed) return true
		const answers = client.answers()
		for (const [i, exchange] of client.sent.entries()) {
			if (exchange.cut) continue
			if (!answers[i]?.complete) return false
			if (answers[i].last) return true
		}
		return true
	}

	/**
	 * Each has exactly one answer, complete, its own; but for those behind an end of the connection
	 * that is in order.
	 */
	#checkAnswers(client: Client): void {
		if (client.left || this.#isCut(client)) return
		const answers = client.answers()
		if (answers.length > client.sent.length)
			throw new Violation(`${answers.length} answers to ${client.sent.length} requests`)
		for (const [i, exchange] of client.sent.entries()) {
			const answer = answers[i]
			// The server has closed with a part of an upload unread: what it had sent before can be lost
			// too.
			const mayClose = client.sent
				.slice(i)
				.some(({ send }) => send.closes || send.version !== '1.1')
			if (client.reset && !answer?.complete && mayClose) return
			if (exchange.cut || answer === undefined) {
				if (exchange.cut) {
					if (this.#program.protocol === 'HTTP/1') return
					continue
				}
				throw new Violation(`#${exchange.id} was not answered, and its connection closed`)
			}
			if (!answer.complete) throw new Violation(`the answer to #${exchange.id} is not complete`)
			this.#checkAnswer(exchange, answer)
			if (answer.last) return
		}
	}

	#checkAnswer({ id, limited, threw, begun, answeredBy }: Exchange, answer: WireAnswer): void {
		const { status, headers, body } = answer
		const of = `the answer to #${id}`
		const rejects = status === 503 || status === 429
		// In Koa, the loser of a race can still set another body, in the turn in which it has lost.
		const overtaken = rejects && answeredBy === 'other'
		if (headers['x-id'] !== undefined && !overtaken) {
			if (headers['x-id'] !== id) throw new Violation(`${of} is that to #${headers['x-id']}`)
			if (status !== 204 && !body.endsWith(END))
				throw new Violation(`${of} ends with ${JSON.stringify(body.slice(-9))}`)
			if (status === 504 && answeredBy !== 'other') throw new Violation(`${of} is 504`)
			return
		}
		if (status === 500 && threw) return
		if (!rejects || !limited || begun)
			throw new Violation(`${of} is ${status} ${JSON.stringify(body)}`)
		const { reason } = JSON.parse(body) as { reason: string }
		if (!['queue-full', 'timeout'].includes(reason) || !(Number(headers['retry-after']) >= 1)) {
			throw new Violation(`${of} is no honest rejection: ${JSON.stringify(answer)}`)
		}
	}

	/** As many as the capacity, by clients that have only just come, are at work at once. */
	async serveFresh(): Promise<void> {
		const { capacity } = this.#limiter
		this.#free = false
		const fresh: Exchange[] = []
		for (let i = 0; i < capacity; i++) {
			const client = await this.#connect()
			this.clients.push(client)
			fresh.push(this.#send(client, FRESH))
		}
		await waitFor(
			() => fresh.every(({ begun }) => begun),
			() =>
				`${fresh.filter(({ begun }) => begun).length} of ${capacity} fresh requests are at work`,
		)
		await this.end()
	}

	/**
	 * The limiter leaves no more than one listener for each event on a connection, however many
	 * requests it carried.
	 */
	async checkListeners(baseline: Map<string, Record<string, number>>): Promise<void> {
		const idle = this.clients.filter(({ left, mute, closed }) => !left && !mute && !closed)
		const socket = (client: Client): Socket | undefined => {
			const found = client.serverSocket()
			return found?.destroyed ? undefined : found
		}
		const { framework } = this.#program
		if (!baseline.has(framework) && this.#program.unlimitedBy === 'route') {
			const client = await this.#connect()
			this.clients.push(client)
			this.#free = true
			await this.#another(client, false)
			baseline.set(framework, listenersOf(socket(client) as Socket))
		}
		const before = baseline.get(framework)
		const client = idle.find(
			(each) => socket(each) !== undefined && each.sent.every(({ cut }) => !cut),
		)
		if (client === undefined || before === undefined) return
		this.#free = true
		await this.#another(client)
		const counts = listenersOf(socket(client) as Socket)
		for (const [event, count] of Object.entries(counts)) {
			if (count > (before[event] ?? 0) + 1) {
				throw new Violation(
					`${count} listeners for ${event} on an idle connection, ${before[event]} without us`,
				)
			}
		}
		await this.#another(client)
		const after = socket(client) as Socket
		for (const [event, count] of Object.entries(listenersOf(after))) {
			if (count > (counts[event] ?? 0))
				throw new Violation(`one more request added a listener for ${event} to its connection`)
		}
	}

	async #another(client: Client, limited = true): Promise<void> {
		this.#send(client, { ...FRESH, limited })
		await this.end()
		if (client.closed || client.serverSocket()?.destroyed)
			throw new Violation('an idle connection was closed')
	}
}

const FRESH: Send = {
	closes: false,
	do: 'send',
	connection: -1,
	version: '1.1',
	method: 'GET',
	limited: true,
	held: false,
	handler: ['wait'],
}

function ids(exchanges: Exchange[]): string {
	return exchanges.length === 0 ? 'none' : exchanges.map(({ id }) => `#${id}`).join(', ')
}

function listenersOf(socket: Socket): Record<string, number> {
	return Object.fromEntries(
		socket.eventNames().map((name) => [String(name), socket.listenerCount(name)]),
	)
}

function pathOf({ id, limited }: Exchange): string {
	return `/${limited ? 'limited' : 'open'}/${id}`
}

const BODY = 'uploaded'

function connectHttp1(port: number, sockets: Map<number, Socket>): Promise<Client> {
	return new Promise((resolve, reject) => {
		const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
		let text = ''
		let toUpload = false
		let known: { length: number; ended: boolean; answers: WireAnswer[] } | undefined
		let localPort = 0
		socket.on('data', (chunk) => {
			text += chunk.toString('latin1')
		})
		socket.on('error', () => {
			client.reset = true
		})
		socket.on('end', () => {
			client.closed = true
			socket.end()
		})
		socket.on('close', () => {
			client.closed = true
		})
		const client: Client = {
			sent: [],
			left: false,
			mute: false,
			closed: false,
			reset: false,
			answers() {
				// Also after a reset, by which a server says that it has closed with a part of an upload
				// unread.
				const ended = client.closed
				if (known?.length !== text.length || known.ended !== ended) {
					known = { length: text.length, ended, answers: answersIn(text, ended) }
				}
				return known.answers
			},
			write(exchange) {
				const { version, method } = exchange.send
				const [number, connection] = version.split(' ')
				const lines = [
					`${method === 'GET' ? 'GET' : 'POST'} ${pathOf(exchange)} HTTP/${number}`,
					'Host: localhost',
					...(connection === undefined ? [] : [`Connection: ${connection}`]),
					...(method === 'GET' ? [] : [`Content-Length: ${BODY.length}`]),
				]
				toUpload = method === 'upload'
				// What comes behind is malformed to Node.
				if (version === '1.0' || version === '1.1 close') client.mute = true
				socket.write(`${lines.join('\r\n')}\r\n\r\n${method === 'POST' ? BODY : ''}`)
			},
			completeUpload() {
				if (toUpload && !client.left && !socket.writableEnded) socket.write(BODY)
				toUpload = false
			},
			leave(how, _exchange, halfOpen) {
				if (client.left || socket.writableEnded) return
				if (how === 'FIN') {
					client.mute = true
					if (!halfOpen || toUpload) client.left = true
					socket.end()
					return
				}
				if (how === 'garbage') client.completeUpload()
				client.left = true
				if (how === 'garbage') socket.write('\0\r\n\r\n')
				else if (how === 'RST') socket.resetAndDestroy()
				else socket.destroy()
			},
			serverSocket: () => sockets.get(localPort),
			destroy: () => socket.destroy(),
		}
		socket.once('connect', () => {
			localPort = socket.localPort ?? 0
			// From here on, the server sees all that the client does.
			waitFor(
				() => sockets.has(localPort),
				() => 'the test itself: no connection',
			).then(() => resolve(client), reject)
		})
	})
}

function connectHttp2(port: number, sockets: Map<number, Socket>): Promise<Client> {
	return new Promise((resolve, reject) => {
		const socket = net.connect({ port, host: '127.0.0.1', noDelay: true })
		const createConnection = (): Socket => socket
		const session: ClientHttp2Session = http2.connect(`http://127.0.0.1:${port}`, {
			createConnection,
		})
		let localPort = 0
		const streams = new Map<Exchange, ClientHttp2Stream>()
		const answers = new Map<Exchange, WireAnswer>()
		session.on('error', () => {})
		session.on('close', () => {
			client.closed = true
		})
		const client: Client = {
			sent: [],
			left: false,
			mute: false,
			closed: false,
			reset: false,
			answers: () => client.sent.map((exchange) => answers.get(exchange)),
			write(exchange) {
				const { method } = exchange.send
				const stream = session.request(
					{ ':path': pathOf(exchange), ':method': method === 'GET' ? 'GET' : 'POST' },
					{ endStream: method === 'GET' },
				)
				streams.set(exchange, stream)
				if (method === 'POST') stream.end(BODY)
				let ended = false
				stream.setEncoding('latin1')
				stream.on('response', ({ ':status': status = 0, ...headers }) => {
					const answer: WireAnswer = {
						status,
						headers: headers as Record<string, string>,
						body: '',
						complete: false,
						last: false,
					}
					answers.set(exchange, answer)
					stream.on('data', (chunk: string) => {
						answer.body += chunk
					})
				})
				stream.on('end', () => {
					ended = true
					// The server has nothing more to say: what it has not read yet, it will not.
					stream.end()
				})
				stream.on('error', () => {})
				stream.on('close', () => {
					const answer = answers.get(exchange)
					if (answer !== undefined) answer.complete = ended && stream.rstCode === 0
				})
			},
			completeUpload() {
				for (const [{ send }, stream] of streams) {
					if (send.method === 'upload' && !stream.writableEnded && !stream.destroyed)
						stream.end(BODY)
				}
			},
			leave(how, exchange) {
				if (how !== 'reset stream' && how !== 'FIN') {
					client.left = true
					client.destroy()
				} else {
					exchange.cut = true
					streams.get(exchange)?.close(http2.constants.NGHTTP2_CANCEL)
				}
			},
			serverSocket: () => sockets.get(localPort),
			// Not the session, the end of which makes Node 20 loop without end where some streams have
			// been reset.
			destroy: () => socket.destroy(),
		}
		session.once('connect', () => {
			localPort = socket.localPort ?? 0
			// From here on, the server sees all that the client does.
			waitFor(
				() => sockets.has(localPort),
				() => 'the test itself: no connection',
			).then(() => resolve(client), reject)
		})
	})
}
