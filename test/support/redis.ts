import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net, { type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from 'vitest'

/*
 * Real servers, started by the tests themselves, each on a free port and in a folder of its own;
 * and fleets of processes.
 */

function installed(binary: string): boolean {
	try {
		execFileSync(binary, ['--version'], { stdio: 'ignore' })
		return true
	} catch {
		return false
	}
}

/** A pause of this process, in ms, that an idle machine does not have. */
const PAUSE = 100
const LOOK = 20

let pausedAt = Number.NEGATIVE_INFINITY
/** The first look counts for nothing: the modules were being loaded before it. */
let lookedAt = Number.POSITIVE_INFINITY
setInterval(() => {
	const now = performance.now()
	if (now - lookedAt > PAUSE + LOOK) pausedAt = now
	lookedAt = now
}, LOOK).unref()

/** Says of an `expect` that it must hold however busy the machine is: see {@link WHEN_BUSY}. */
export const ALWAYS = 'on any machine'

/**
 * A function would do, but vitest 4 takes it out before it comes to be used; not so an expression.
 */
class Busy extends RegExp {
	override test(message: string): boolean {
		const again = performance.now() - pausedAt < 60_000 && !message.includes(ALWAYS)
		if (again) process.stdout.write(`      again, as this process stood still: ${message}\n`)
		return again
	}
}

/**
 * For tests that rest on leases and on a Redis that answers in time: on a busy machine, both fail
 * rightly. One that fails soon after this process stood still is run again. But not by what must
 * hold on any machine: that no more are at work than may be.
 */
export const WHEN_BUSY = { count: 2, condition: new Busy('') }

/** A promise that is awaited later, unless the test fails before. */
export function later<T>(promise: Promise<T>): Promise<T> {
	promise.catch(() => {})
	return promise
}

/** The servers there are. */
export const servers: string[] = ['redis-server', 'valkey-server'].filter(installed)

const MISSING = `
  #######################################################################
  #  No redis-server and no valkey-server is installed: ALL TESTS OF    #
  #  inflight-limit/redis ARE LEFT OUT. To run them:                    #
  #      apt-get install redis-server      (or: brew install redis)     #
  #######################################################################
`

/**
 * Like `describe`, where there is a server. Where there is none, it says so loudly; with `CI`, that
 * is a failure.
 */
export const describeRedis: typeof describe | typeof describe.skip = (() => {
	if (servers.length > 0) return describe
	if (process.env.CI) throw new Error(MISSING)
	process.stderr.write(MISSING)
	return describe.skip
})()

export async function freePort(): Promise<number> {
	const server = net.createServer()
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const { port } = server.address() as AddressInfo
	await new Promise((resolve) => server.close(resolve))
	return port
}

/** Whether a server answers on a port. */
function answers(port: number): Promise<boolean> {
	return new Promise((resolve) => {
		const socket = net.connect(port, '127.0.0.1', () => socket.write('PING\r\n'))
		socket.once('data', (data) => {
			resolve(!/LOADING|MASTERDOWN/.test(String(data)))
			socket.destroy()
		})
		socket.once('error', () => resolve(false))
	})
}

export interface Server {
	readonly port: number
	/** At once, with SIGKILL. */
	kill(): Promise<void>
	start(): Promise<void>
	/** SIGSTOP and SIGCONT. */
	pause(): void
	resume(): void
}

const running = new Set<ChildProcess>()
const folders = new Set<string>()

/** Ends all servers and processes of this file. */
export function endAll(): void {
	for (const child of running) child.kill('SIGKILL')
	for (const folder of folders) rmSync(folder, { recursive: true, force: true })
	running.clear()
	folders.clear()
}
process.once('exit', endAll)

/** A folder that goes with the servers. */
export function newFolder(): string {
	const folder = mkdtempSync(join(tmpdir(), 'inflight-limit-redis-'))
	folders.add(folder)
	return folder
}

async function launch(binary: string, port: number, args: string[]): Promise<Server> {
	let child: ChildProcess | undefined
	const server: Server = {
		port,
		async start() {
			child = spawn(binary, args, { stdio: 'ignore' })
			running.add(child)
			for (let i = 0; i < 500 && !(await answers(port)); i++) await sleep(20)
		},
		async kill() {
			const ended = child
			if (ended === undefined) return
			child = undefined
			running.delete(ended)
			await new Promise((resolve) => {
				ended.once('exit', resolve)
				ended.kill('SIGKILL')
			})
		},
		pause: () => child?.kill('SIGSTOP'),
		resume: () => child?.kill('SIGCONT'),
	}
	await server.start()
	return server
}

export async function startServer(
	args: string[] = [],
	binary: string = servers[0] as string,
): Promise<Server> {
	const port = await freePort()
	const own = ['--port', String(port), '--dir', newFolder(), '--bind', '127.0.0.1']
	return launch(binary, port, [...own, '--save', '', '--appendonly', 'no', ...args])
}

/** A sentinel that watches over a master, which it calls `main`, and fails over by itself. */
export async function startSentinel(master: Server, binary: string): Promise<Server> {
	const port = await freePort()
	const folder = newFolder()
	const file = join(folder, 'sentinel.conf')
	const lines = [
		`port ${port}`,
		'bind 127.0.0.1',
		`dir ${folder}`,
		`sentinel monitor main 127.0.0.1 ${master.port} 1`,
		'sentinel down-after-milliseconds main 500',
		'sentinel failover-timeout main 5000',
	]
	writeFileSync(file, lines.join('\n'))
	return launch(binary, port, [file, '--sentinel'])
}

/** A server that has been up for so long that it can't be one that lost its memory a moment ago. */
async function startOldServer(args: string[] = [], binary?: string): Promise<Server> {
	const server = await startServer(args, binary)
	await sleep(3_100)
	return server
}

/** Servers that tests take in turn, each for itself: so that many can wait at the same time. */
export interface Pool {
	take(): Promise<Server>
	/** It must be as it was. */
	give(server: Server): void
}

/** A pool of old servers, all started at once: they grow old together. */
export async function startPool(size: number, args: string[] = [], binary?: string): Promise<Pool> {
	const free = await Promise.all(Array.from({ length: size }, () => startOldServer(args, binary)))
	const waiting: ((server: Server) => void)[] = []
	return {
		async take() {
			return free.pop() ?? new Promise<Server>((resolve) => waiting.push(resolve))
		},
		give(server) {
			const next = waiting.shift()
			if (next === undefined) free.push(server)
			else next(server)
		},
	}
}

/** Runs a test on a server of a pool, with what it makes there, and ends that. */
export async function onPool<Made extends { end(): Promise<unknown> }>(
	pool: Pool,
	make: (server: Server) => Made,
	body: (made: Made) => Promise<void>,
): Promise<void> {
	const server = await pool.take()
	const made = make(server)
	try {
		await body(made)
	} finally {
		await made.end()
		pool.give(server)
	}
}

/** A way to a server that can be stalled, and cut. */
export interface Relay {
	readonly port: number
	/** Takes no byte in either direction. */
	stall(): void
	flow(): void
	/** Resets all connections. */
	cut(): void
	/** New connections reach another server from now on. */
	leadTo(target: number): void
	close(): void
}

export async function startRelay(first: number): Promise<Relay> {
	let target = first
	const sockets = new Set<Socket>()
	let stalled = false
	const server = net.createServer((near) => {
		const far = net.connect(target, '127.0.0.1')
		for (const [from, to] of [
			[near, far],
			[far, near],
		] as const) {
			sockets.add(from)
			from.pipe(to)
			from.on('error', () => {})
			from.on('close', () => {
				sockets.delete(from)
				to.destroy()
			})
			if (stalled) from.pause()
		}
	})
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	return {
		port: (server.address() as AddressInfo).port,
		stall() {
			stalled = true
			for (const socket of sockets) socket.pause()
		},
		flow() {
			stalled = false
			for (const socket of sockets) socket.resume()
		},
		cut() {
			for (const socket of sockets) socket.resetAndDestroy()
		},
		leadTo(next) {
			target = next
		},
		close() {
			for (const socket of sockets) socket.destroy()
			server.close()
		},
	}
}

export interface WorkerOptions {
	kind?: 'redis' | 'ioredis'
	port?: number
	/** The ports of a cluster, in place of `port`. */
	cluster?: number[]
	probePort: number
	concurrency?: number
	/** How long a permit is held, in ms: from half of it to one and a half. */
	hold?: number
	/** Counts how many others are admitted while each waits, by its token. */
	turns?: boolean
	/** For how long its event loop is blocked, again and again, in ms. */
	block?: number
	/** How many keys the limiter has, each with a limit of its own: those of `take` by turns. */
	keys?: number
	/** How wrong its clock is, in ms. */
	clock?: number
	options: { name: string; capacity: number; [option: string]: unknown }
}

export interface Figures {
	done: number
	rejected: number
	lost: number
	workAfterLoss: number
	/** How long each that was admitted has waited, in ms. */
	waits: number[]
	/** See {@link WorkerOptions.turns}. */
	turns: number[]
	stats: { admitted: number; available: boolean; fleet: { processes: number } }
}

/** What became of one permit: times are in ms, by a clock that all processes share. */
interface Taken {
	token: number
	/** When it was admitted. */
	at: number
	/** When it was released. */
	until: number
}

/** A process of a fleet. */
export interface Worker {
	readonly id: string
	readonly child: ChildProcess
	/**
	 * Has it take one permit, and release it after `hold` ms, or when told. Resolves when Redis knows
	 * of it.
	 */
	take(place: number, hold?: number): Promise<void>
	/** Resolves when the permit was admitted, or has been. */
	admitted(place: number): Promise<Taken>
	released(place: number): Promise<Taken>
	give(place: number): void
	figures(): Promise<Figures>
	/** By SIGKILL. Resolves when it has ended. */
	kill(): Promise<void>
	/** Lets it finish, and leave. */
	stop(): Promise<Figures>
}

let workers = 0

export async function startWorker(given: WorkerOptions): Promise<Worker> {
	const id = `worker ${++workers}`
	const argument = JSON.stringify({
		kind: workers % 2 ? 'redis' : 'ioredis',
		concurrency: 4,
		hold: 30,
		id,
		...given,
	})
	const child = fork(join(import.meta.dirname, '../adapters/redis/worker.js'), [argument], {
		stdio: 'inherit',
		execArgv: ['--no-warnings'],
	})
	running.add(child)
	child.once('exit', () => running.delete(child))
	const told = new Map<string, unknown>()
	child.on('message', (message: object) => {
		const [[word, value]] = Object.entries(message) as [[string, unknown]]
		told.set(typeof value === 'number' ? `${word} ${value}` : word, message)
		child.emit('told')
	})
	/** What it has said, or will. */
	const hear = async (what: string): Promise<unknown> => {
		while (!told.has(what)) {
			if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${id} has ended`)
			await new Promise<void>((resolve) => {
				const on = (): void => {
					child.off('told', on).off('exit', on)
					resolve()
				}
				child.on('told', on).on('exit', on)
			})
		}
		return told.get(what)
	}
	const ask = async (what: string): Promise<Figures> => {
		told.delete('figures')
		if (child.connected) child.send({ [what]: true })
		return ((await hear('figures')) as { figures: Figures }).figures
	}
	child.setMaxListeners(0)
	await hear('ready')
	return {
		id,
		child,
		async take(place, hold) {
			if (child.connected) child.send({ take: place, hold })
			await hear(`arrived ${place}`)
		},
		admitted: (place) => hear(`admitted ${place}`) as Promise<Taken>,
		released: (place) => hear(`released ${place}`) as Promise<Taken>,
		give(place) {
			if (child.connected) child.send({ give: place })
		},
		async kill() {
			if (child.exitCode !== null || child.signalCode !== null) return
			const ended = new Promise((resolve) => child.once('exit', resolve))
			child.kill('SIGKILL')
			await ended
		},
		figures: () => ask('figures'),
		stop: () => ask('stop'),
	}
}
