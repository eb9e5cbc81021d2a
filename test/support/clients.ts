import http, { type IncomingHttpHeaders } from 'node:http'
import net, { type Socket } from 'node:net'
import { expect, vi } from 'vitest'
import type { Limiter } from '../../src/limiter/limiter.js'
import { type Framework, type Handler, listen, type Options } from './frameworks.js'

export interface Answer {
	status: number
	headers: IncomingHttpHeaders
	body: string
}

export interface RequestOptions {
	method?: string
	path?: string
	headers?: Record<string, string>
	body?: string | Buffer
	agent?: http.Agent
}

/** One well-behaved request, by default on a connection of its own. */
export function request(port: number, options: RequestOptions = {}): Promise<Answer> {
	const { method = 'GET', path = '/', headers = {}, body, agent } = options
	return new Promise((resolve, reject) => {
		const req = http.request(
			{ host: '127.0.0.1', port, method, path, headers, agent: agent ?? false },
			(res) => {
				const chunks: Buffer[] = []
				res.on('data', (chunk) => chunks.push(chunk))
				res.on('error', reject)
				res.on('end', () => {
					resolve({
						status: res.statusCode ?? 0,
						headers: res.headers,
						body: Buffer.concat(chunks).toString(),
					})
				})
			},
		)
		req.on('error', reject)
		req.end(body)
	})
}

/** A client that writes what it likes. `text` is all that it was sent. */
export interface RawClient {
	socket: Socket
	text: () => string
	closed: Promise<void>
}

export function rawClient(
	port: number,
	firstBytes: string,
	options: net.SocketConstructorOpts = {},
): Promise<RawClient> {
	return new Promise((resolve) => {
		const socket = new net.Socket(options)
		let text = ''
		socket.on('data', (chunk) => {
			text += chunk.toString('latin1')
		})
		socket.on('error', () => {})
		const closed = new Promise<void>((done) => socket.on('close', () => done()))
		socket.connect(port, '127.0.0.1', () => {
			socket.write(firstBytes)
			resolve({ socket, text: () => text, closed })
		})
	})
}

export function get(path = '/', headers = ''): string {
	return `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`
}

/**
 * Waits until something is so. Only as long as it may take on a busy machine, so that a failure
 * says what was missing.
 */
export async function until(what: () => boolean): Promise<void> {
	await vi.waitFor(() => expect(what()).toBe(true), { timeout: 10_000, interval: 2 })
}

/** How many connections the server knows to be closed. Their clients know it before. */
export function countClosed(server: net.Server): () => number {
	let closed = 0
	server.on('connection', (socket) => socket.once('close', () => closed++))
	return () => closed
}

/** A handler that counts the requests at work, and is told by the test when to go on. */
export interface Work {
	handler: Handler
	/** Paths of the requests whose handler has begun. */
	begun: string[]
	/** Handlers at work now, and at most at any time. */
	atWork: () => number
	highest: () => number
	/** Lets one handler go on: the oldest, or that of a path. */
	finish(path?: string): void
	finishAll(): void
}

/**
 * @param end - what a handler does once it may go on; by default it answers with its path.
 */
export function workshop(end: Handler = (req, res) => res.end(req.url)): Work {
	const waiting: { path: string; go: () => void }[] = []
	const begun: string[] = []
	let atWork = 0
	let highest = 0
	let open = false
	return {
		begun,
		atWork: () => atWork,
		highest: () => highest,
		async handler(req, res) {
			const path = req.url ?? ''
			begun.push(path)
			highest = Math.max(highest, ++atWork)
			try {
				if (!open) await new Promise<void>((go) => waiting.push({ path, go }))
			} finally {
				atWork--
			}
			await end(req, res)
		},
		finish(path) {
			const at = path === undefined ? 0 : waiting.findIndex((each) => each.path === path)
			const [found] = waiting.splice(at, 1)
			if (found === undefined) throw new Error(`nobody is at work on ${path}`)
			found.go()
		},
		finishAll() {
			open = true
			for (const { go } of waiting.splice(0)) go()
		},
	}
}

export interface Running {
	port: number
	limiter: Limiter
	server: http.Server
	[Symbol.asyncDispose](): Promise<void>
}

/** A server with one limiter before one handler. */
export async function serve(
	framework: Framework,
	options: Options,
	handler: Handler,
): Promise<Running> {
	const { listener, limiter } = framework.app(options, handler)
	const { server, port } = await listen(listener)
	return {
		port,
		limiter,
		server,
		async [Symbol.asyncDispose]() {
			server.closeAllConnections()
			await new Promise((resolve) => server.close(resolve))
		},
	}
}

/**
 * What must hold after whatever has happened: nothing is held, nobody waits, and `capacity` fresh
 * requests are all at work at the same time. `work` must be that of the server.
 */
export async function expectNothingLost({ port, limiter }: Running, work: Work): Promise<void> {
	await until(() => limiter.active === 0 && limiter.queued === 0)
	const { admitted, completed, abandoned } = limiter.stats()
	expect(completed + abandoned).toBe(admitted)
	const fresh = Array.from({ length: limiter.capacity }, (_, i) =>
		request(port, { path: `/fresh/${i}` }),
	)
	await until(
		() => work.begun.filter((path) => path.startsWith('/fresh/')).length === limiter.capacity,
	)
	expect(limiter.active).toBe(limiter.capacity)
	work.finishAll()
	for (const { status } of await Promise.all(fresh)) expect(status).toBe(200)
	await until(() => limiter.active === 0)
	expect(work.highest()).toBeLessThanOrEqual(limiter.capacity)
}
