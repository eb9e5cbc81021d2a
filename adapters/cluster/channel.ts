import cluster, { type Worker } from 'node:cluster'
import { coded } from '../../src/errors.js'
import {
	type Answer,
	type Ask,
	answerMessage,
	askMessage,
	readAnswer,
	readAsk,
} from './protocol.js'

/*
 * The limiters of this process, and how messages reach them: the only code that knows of processes.
 * The limiters are found by their names on `process`, so that two copies of this package in one
 * process have one limiter of a name, and listen once.
 */

/** A limiter of the primary, as workers reach it. */
export interface Server {
	/** It is closed, and nothing is at work: another one may take its name. */
	readonly over: boolean
	/**
	 * @param from - sends an answer to the worker; the same function for each message of a worker.
	 */
	receive(ask: Ask, from: (answer: Answer) => void): void
	/** The channel of a worker has closed. Its work may go on. */
	disconnected(from: (answer: Answer) => void): void
	/** The process of a worker has ended. */
	exited(from: (answer: Answer) => void): void
}

/** A limiter of a worker, as the primary reaches it. */
export interface Client {
	readonly over: boolean
	receive(answer: Answer): void
	/** The channel to the primary has closed. */
	disconnected(): void
}

const LIMITERS: unique symbol = Symbol.for('inflight-limit.cluster') as never

/** Adds a limiter of this process. `listen` is called with the first one. */
function add<L extends { readonly over: boolean }>(
	name: string,
	limiter: L,
	listen: (all: Map<string, L>) => void,
): void {
	const holder = process as { [LIMITERS]?: Map<string, L> }
	let all = holder[LIMITERS]
	if (all === undefined) {
		all = new Map()
		holder[LIMITERS] = all
		listen(all)
	}
	if (all.get(name)?.over === false) {
		const which = `a clusterLimiter named ${JSON.stringify(name)}`
		const message = `${which} is in this process already: make it once and share it`
		throw coded('ERR_INFLIGHT_NAME_TAKEN', new Error(message))
	}
	all.set(name, limiter)
}

/** Serves the workers that are there, and those that will be. */
export function serve(name: string, server: Server, announcement: Answer): void {
	add(name, server, listenToWorkers)
	for (const worker of Object.values(cluster.workers ?? {})) {
		if (worker !== undefined) senderTo(worker)(announcement)
	}
}

/** @returns what sends a message to the primary. */
export function join(name: string, client: Client): void {
	add(name, client, listenToPrimary)
}

export function tellPrimary(ask: Ask): void {
	// The callback takes the error of a channel that has just closed. Its event comes, too.
	process.send?.(askMessage(ask), undefined, undefined, () => {})
}

const senders = new WeakMap<Worker, (answer: Answer) => void>()

function senderTo(worker: Worker): (answer: Answer) => void {
	let send = senders.get(worker)
	if (send === undefined) {
		send = (answer) => {
			worker.send(answerMessage(answer), () => {})
		}
		senders.set(worker, send)
	}
	return send
}

function listenToWorkers(all: Map<string, Server>): void {
	cluster.on('message', (worker, message) => {
		const ask = readAsk(message)
		// The last messages of a process can come after its end.
		if (ask !== undefined && !worker.isDead()) all.get(ask.name)?.receive(ask, senderTo(worker))
	})
	cluster.on('disconnect', (worker) => {
		for (const server of all.values()) server.disconnected(senderTo(worker))
	})
	cluster.on('exit', (worker) => {
		for (const server of all.values()) server.exited(senderTo(worker))
	})
}

function listenToPrimary(all: Map<string, Client>): void {
	process.on('message', (message) => {
		const answer = readAnswer(message)
		if (answer !== undefined) all.get(answer.name)?.receive(answer)
	})
	process.on('disconnect', () => {
		for (const client of all.values()) client.disconnected()
	})
}
