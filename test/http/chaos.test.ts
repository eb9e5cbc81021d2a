import type http from 'node:http'
import net from 'node:net'
import { pipeline, Readable } from 'node:stream'
import { afterEach, expect, test, vi } from 'vitest'
import { admission } from '../../adapters/express.js'
import { expectNothingLost, get, serve, until, workshop } from '../support/clients.js'
import { frameworks } from '../support/frameworks.js'

/** The run can be repeated: CHAOS_SEED=… npx vitest run test/http/chaos.test.ts */
const SEED = Number(process.env.CHAOS_SEED ?? Math.floor(Math.random() * 2 ** 32))
const REQUESTS = 1200
const CAPACITY = 4

afterEach(() => {
	vi.restoreAllMocks()
})

/** mulberry32: a small seeded generator, so that a failure can be repeated. */
function generator(seed: number): () => number {
	let state = seed
	return () => {
		state = (state + 0x6d2b79f5) | 0
		let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
	}
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

test.each(frameworks.filter(({ name }) => name === 'Express 5' || name === 'Koa 3'))(
	`$name: ${REQUESTS} random requests, well-behaved and not, lose nothing (CHAOS_SEED=${SEED})`,
	{ timeout: 60_000 },
	async (framework) => {
		const random = generator(SEED)
		vi.spyOn(console, 'error').mockImplementation(() => {})
		const accidents: unknown[] = []
		const onAccident = (what: unknown): number => accidents.push(what)
		for (const event of ['unhandledRejection', 'uncaughtException', 'warning'])
			process.on(event, onAccident)

		const fresh = workshop()
		let atWork = 0
		let highest = 0
		const served = new Set<string>()
		const gone = new Set<string>()
		const servedGone: string[] = []
		const options = { capacity: CAPACITY, maxQueue: 40, maxWait: 400, abandonedTimeout: 1000 }
		await using running = await serve(framework, options, async (req, res) => {
			if (req.url?.startsWith('/fresh')) return fresh.handler(req, res)
			const [, id = '', kind = '', delay = '0'] = req.url?.split('/') ?? []
			if (gone.has(id)) servedGone.push(id)
			served.add(id)
			highest = Math.max(highest, ++atWork)
			const early = kind === 'release'
			try {
				if (kind === 'read') for await (const _ of req);
				await pause(Number(delay))
			} finally {
				atWork--
			}
			if (kind === 'throw') throw new Error('chaos')
			if (kind === 'pipe') return void Readable.from(['a', 'b', 'c']).pipe(res)
			if (kind === 'large')
				return void pipeline(
					Readable.from([Buffer.alloc(300_000), Buffer.alloc(300_000)]),
					res,
					() => res.end(),
				)
			if (kind === 'empty') return res.writeHead(204).end()
			if (kind === 'destroy') return res.destroy()
			res.end(kind)
			if (early) admission(req)?.release()
		})
		const kinds = ['plain', 'throw', 'pipe', 'large', 'empty', 'destroy', 'release', 'read']
		running.server.on('connection', (socket) => {
			socket.once('close', () => {
				for (const id of (socket as net.Socket & { ids?: string[] }).ids ?? []) gone.add(id)
			})
		})
		running.server.prependListener('request', (req: http.IncomingMessage) => {
			const socket = req.socket as net.Socket & { ids?: string[] }
			socket.ids ??= []
			socket.ids.push(req.url?.split('/')[1] ?? '')
		})

		let sent = 0
		const path = (): string =>
			`/${sent++}/${kinds[Math.floor(random() * kinds.length)]}/${Math.floor(random() * 8)}`
		async function client(): Promise<void> {
			while (sent < REQUESTS) {
				const behaviour = random()
				const socket = net.connect(running.port, '127.0.0.1')
				socket.on('error', () => {})
				const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
				const count = behaviour < 0.4 ? 1 : 1 + Math.floor(random() * 10)
				let text = ''
				for (let i = 0; i < count; i++) {
					const last = i === count - 1 ? 'Connection: close\r\n' : ''
					text +=
						random() < 0.3
							? `POST ${path()} HTTP/1.1\r\nHost: localhost\r\n${last}Content-Length: 5\r\n\r\nhello`
							: get(path(), last)
				}
				socket.write(behaviour > 0.95 ? text.slice(0, -2) : text)
				const patience = random() * 30
				if (behaviour < 0.55) {
					socket.resume()
					await Promise.race([closed, pause(1000)])
				} else if (behaviour < 0.7) {
					await pause(patience)
					socket.resetAndDestroy()
				} else if (behaviour < 0.8) {
					await pause(patience)
					socket.end()
				} else if (behaviour < 0.9) {
					socket.pause()
					await pause(patience)
				}
				socket.destroy()
				await closed
			}
		}
		await Promise.all(Array.from({ length: 24 }, client))
		await until(() => running.limiter.active === 0 && running.limiter.queued === 0)
		expect(highest).toBeLessThanOrEqual(CAPACITY)
		expect(servedGone).toEqual([])
		expect(accidents).toEqual([])
		const { admitted, completed, abandoned, rejected } = running.limiter.stats()
		expect(served.size).toBe(admitted)
		expect(completed + abandoned).toBe(admitted)
		expect(admitted).toBeGreaterThan(REQUESTS / 10)
		expect(rejected.aborted).toBeGreaterThan(0)
		await expectNothingLost(running, fresh)
		for (const event of ['unhandledRejection', 'uncaughtException', 'warning'])
			process.off(event, onAccident)
	},
)
