import { AsyncLocalStorage } from 'node:async_hooks'
import http from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { admission, type Limiter } from '../../adapters/express.js'
import {
	expectNothingLost,
	get,
	rawClient,
	request,
	serve,
	until,
	workshop,
} from '../support/clients.js'
import { frameworks, type Handler } from '../support/frameworks.js'

afterEach(() => {
	vi.useRealTimers()
	vi.restoreAllMocks()
})

/** Ways in which a response ends well. */
const ends: Record<string, { handler: Handler; method?: string; status?: number; body: string }> = {
	'a body': { handler: (_req, res) => res.end('body'), body: 'body' },
	'an empty body': { handler: (_req, res) => res.end(), body: '' },
	'204': { handler: (_req, res) => res.writeHead(204).end(), status: 204, body: '' },
	'304': { handler: (_req, res) => res.writeHead(304).end(), status: 304, body: '' },
	'an answer to HEAD': { handler: (_req, res) => res.end('body'), method: 'HEAD', body: '' },
	chunks: {
		async handler(_req, res) {
			res.write('one ')
			await new Promise(setImmediate)
			res.end('two')
		},
		body: 'one two',
	},
	'a piped stream': {
		handler: (_req, res) => void Readable.from(['a', 'b']).pipe(res),
		body: 'ab',
	},
	'a pipeline': { handler: (_req, res) => pipeline(Readable.from(['a', 'b']), res), body: 'ab' },
	'an upload that nobody reads': {
		handler: (_req, res) => res.end('unread'),
		method: 'POST',
		body: 'unread',
	},
	'an upload that is read': {
		async handler(req, res) {
			let length = 0
			for await (const chunk of req) length += chunk.length
			res.end(String(length))
		},
		method: 'POST',
		body: '300000',
	},
}

describe.each(frameworks)('$name', (framework) => {
	test.each(Object.entries(ends))(
		'the permit comes back after %s',
		async (_name, { handler, method, status, body }) => {
			const work = workshop()
			let first = true
			await using running = await serve(framework, 1, (req, res) => {
				if (!first) return work.handler(req, res)
				first = false
				return handler(req, res)
			})
			const upload = method === 'POST' ? { body: Buffer.alloc(300_000) } : {}
			const answer = await request(running.port, { method: method ?? 'GET', ...upload })
			expect(answer).toMatchObject({ status: status ?? 200, body })
			await expectNothingLost(running, work)
			expect(running.limiter.stats()).toMatchObject({ completed: 2, abandoned: 0 })
		},
	)

	test('never more than the capacity are at work, in the order of their arrival', async () => {
		const work = workshop()
		await using running = await serve(framework, 3, work.handler)
		const answers: Promise<{ body: string }>[] = []
		for (let i = 0; i < 30; i++) {
			answers.push(request(running.port, { path: `/${i}` }))
			await until(() => running.limiter.active + running.limiter.queued === i + 1)
		}
		expect(work.atWork()).toBe(3)
		for (let i = 0; i < 30; i++) {
			work.finish(`/${i}`)
			expect((await answers[i])?.body).toBe(`/${i}`)
			await until(() => work.begun.length === Math.min(30, i + 4))
		}
		expect(work.begun).toEqual(Array.from({ length: 30 }, (_, i) => `/${i}`))
		expect(work.highest()).toBe(3)
		await expectNothingLost(running, work)
	})

	test('hundreds of requests on one keep-alive connection add no listeners and draw no warning', async () => {
		const warnings: string[] = []
		const onWarning = ({ name }: Error): number => warnings.push(name)
		process.on('warning', onWarning)
		const counts: number[] = []
		const work = workshop()
		await using running = await serve(framework, 1, (req, res) => {
			if (req.url?.startsWith('/fresh')) return work.handler(req, res)
			counts.push(req.socket.listenerCount('close'))
			return res.end('ok')
		})
		const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
		for (let i = 0; i < 300; i++) expect((await request(running.port, { agent })).body).toBe('ok')
		agent.destroy()
		expect(new Set(counts).size).toBe(1)
		expect(warnings).toEqual([])
		process.off('warning', onWarning)
		await expectNothingLost(running, work)
	})

	test('Expect: 100-continue', async () => {
		const work = workshop()
		work.finishAll()
		await using running = await serve(framework, 1, work.handler)
		const answer = await new Promise<number | undefined>((resolve, reject) => {
			const req = http.request({
				port: running.port,
				host: '127.0.0.1',
				method: 'POST',
				path: '/fresh/x',
				headers: { Expect: '100-continue' },
			})
			req.on('continue', () => req.end('upload'))
			req.on('response', (res) => res.resume().on('end', () => resolve(res.statusCode)))
			req.on('error', reject)
			req.flushHeaders()
		})
		expect(answer).toBe(200)
		await until(() => running.limiter.active === 0)
	})

	test('HTTP/1.0', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, work.handler)
		const client = await rawClient(running.port, 'GET /old HTTP/1.0\r\n\r\n')
		await until(() => work.begun.length === 1)
		work.finish()
		await client.closed
		expect(client.text()).toContain('/old')
		await expectNothingLost(running, work)
	})

	test('a handler that throws is answered by its own framework, before and after waiting', async () => {
		const work = workshop((req, res) => {
			if (req.url?.startsWith('/throw')) throw new Error(`thrown by ${req.url}`)
			return res.end('fine')
		})
		vi.spyOn(console, 'error').mockImplementation(() => {})
		await using running = await serve(framework, 1, work.handler)
		const first = request(running.port, { path: '/throw/1' })
		await until(() => work.begun.length === 1)
		const second = request(running.port, { path: '/throw/2' })
		const third = request(running.port, { path: '/fine' })
		await until(() => running.limiter.queued === 2)
		work.finish()
		expect((await first).status).toBe(500)
		await until(() => work.begun.length === 2)
		work.finish()
		expect((await second).status).toBe(500)
		await until(() => work.begun.length === 3)
		work.finish()
		expect(await third).toMatchObject({ status: 200, body: 'fine' })
		await expectNothingLost(running, work)
	})

	test('a request that waited goes on in its own async context', async () => {
		const storage = new AsyncLocalStorage<string>()
		const seen: Record<string, string | undefined> = {}
		const work = workshop((req, res) => {
			seen[req.url ?? ''] = storage.getStore()
			res.end()
		})
		const { listener, limiter } = framework.app(1, work.handler)
		const {
			server,
			port,
			[Symbol.asyncDispose]: end,
		} = await serve(
			{
				...framework,
				app: () => ({
					listener: (req, res) => storage.run(`of ${req.url}`, () => listener(req, res)),
					limiter,
				}),
			},
			1,
			work.handler,
		)
		const first = request(port, { path: '/a' })
		await until(() => work.begun.length === 1)
		const second = request(port, { path: '/b' })
		await until(() => limiter.queued === 1)
		work.finish()
		await first
		await until(() => work.begun.length === 2)
		work.finish()
		await second
		expect(seen).toEqual({ '/a': 'of /a', '/b': 'of /b' })
		expect(server.listening).toBe(true)
		await end()
	})

	test('past its bounds a request is rejected with an honest answer', async () => {
		const log = vi.spyOn(console, 'error')
		const work = workshop()
		await using running = await serve(
			framework,
			{ capacity: 1, maxQueue: 1, name: 'secret' },
			work.handler,
		)
		const first = request(running.port)
		await until(() => work.begun.length === 1)
		const second = request(running.port)
		await until(() => running.limiter.queued === 1)

		const { status, headers, body } = await request(running.port)
		expect(status).toBe(503)
		expect(headers['retry-after']).toBe('1')
		expect(headers['content-type']).toBe('application/problem+json')
		expect(headers['content-length']).toBe(String(body.length))
		expect(JSON.parse(body)).toEqual({
			type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity',
			title: 'Request cannot be satisfied due to temporary server capacity constraints',
			status: 503,
			detail: 'Too many requests are being worked on. Try again in 1 s.',
			reason: 'queue-full',
		})
		expect(await request(running.port, { method: 'HEAD' })).toMatchObject({ status: 503, body: '' })
		expect(
			await request(running.port, { method: 'POST', body: 'x'.repeat(200_000) }),
		).toMatchObject({
			status: 503,
		})
		expect(log).not.toHaveBeenCalled()

		work.finish()
		await first
		await until(() => work.begun.length === 2)
		work.finish()
		await second
		await expectNothingLost(running, work)
		expect(running.limiter.stats().rejected['queue-full']).toBe(3)
	})

	test('a request that has waited maxWait is rejected, and leaves the queue to the others', async () => {
		const work = workshop()
		await using running = await serve(framework, { capacity: 1, maxWait: 30 }, work.handler)
		const first = request(running.port)
		await until(() => work.begun.length === 1)
		const rejected = await request(running.port)
		expect(rejected.status).toBe(503)
		expect(JSON.parse(rejected.body).reason).toBe('timeout')
		work.finish()
		await first
		await expectNothingLost(running, work)
	})

	test('with key, each has its own limit, and is rejected with 429', async () => {
		const key = (of: {
			req?: http.IncomingMessage
			headers?: http.IncomingHttpHeaders
		}): string | undefined =>
			((of.req ?? of) as http.IncomingMessage).headers['x-user'] as string | undefined
		const work = workshop()
		await using running = await serve(framework, { capacity: 1, maxQueue: 0, key }, work.handler)
		const headers = { 'x-user': '__proto__' }
		const first = request(running.port, { path: '/first', headers })
		await until(() => work.begun.length === 1)
		const rejected = await request(running.port, { headers })
		expect(rejected.status).toBe(429)
		expect(JSON.parse(rejected.body)).toMatchObject({
			type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
			status: 429,
		})
		const other = request(running.port, { path: '/other', headers: { 'x-user': 'other' } })
		const nobody = request(running.port, { path: '/nobody' })
		await until(() => work.begun.length === 3)
		expect(running.limiter.stats()).toMatchObject({ active: 2, keys: 2 })
		work.finishAll()
		await Promise.all([first, other, nobody])
		await until(() => running.limiter.stats().keys === 0)
		expect(running.limiter.stats()).toMatchObject({ active: 0, admitted: 2, completed: 2 })
	})

	test('a function of the options that throws fails its request, which takes no permit', async () => {
		vi.spyOn(console, 'error').mockImplementation(() => {})
		const work = workshop()
		const weight = (of: { req?: http.IncomingMessage; url?: string }): number => {
			const { url } = (of.req ?? of) as http.IncomingMessage
			if (url === '/throw') throw new Error('mine')
			return url === '/heavy' ? 9 : 1
		}
		const skip = (of: { req?: http.IncomingMessage; url?: string }): boolean =>
			((of.req ?? of) as http.IncomingMessage).url === '/skip'
		await using running = await serve(framework, { capacity: 1, weight, skip }, work.handler)
		expect((await request(running.port, { path: '/throw' })).status).toBe(500)
		expect((await request(running.port, { path: '/heavy' })).status).toBe(500)
		expect(work.begun).toEqual([])
		const skipped = request(running.port, { path: '/skip' })
		await until(() => work.begun.length === 1)
		expect(running.limiter.active).toBe(0)
		work.finish()
		await skipped
		await expectNothingLost(running, work)
	})

	test('admission tells a handler how long it waited, and when its client has left', async () => {
		const seen: Record<string, ReturnType<typeof admission>> = {}
		const aborted: string[] = []
		const work = workshop()
		await using running = await serve(framework, 1, (req, res) => {
			const found = admission(req)
			seen[req.url ?? ''] = found
			found?.signal.addEventListener('abort', () => aborted.push(req.url ?? ''))
			return work.handler(req, res)
		})
		const first = request(running.port, { path: '/first' })
		await until(() => work.begun.length === 1)
		const second = request(running.port, { path: '/second' })
		await until(() => running.limiter.queued === 1)
		const third = await rawClient(running.port, get('/third'))
		await until(() => running.limiter.queued === 2)
		work.finish()
		await first
		await until(() => work.begun.length === 2)
		work.finish()
		await second
		await until(() => work.begun.length === 3)
		expect(seen['/first']).toMatchObject({ waited: 0, queued: 0 })
		expect(seen['/second']?.waited).toBeGreaterThan(0)
		expect(seen['/second']?.queued).toBe(0)
		expect(seen['/third']?.queued).toBe(1)
		third.socket.destroy()
		await until(() => aborted.length === 1)
		expect(aborted).toEqual(['/third'])
		expect(seen['/third']?.signal).toBe(seen['/third']?.signal)
		work.finish()
		await expectNothingLost(running, work)
		expect(admission({})).toBeUndefined()
	})

	test('a signal that is first looked at after the client left is aborted', async () => {
		const signals: AbortSignal[] = []
		const work = workshop((req) => {
			signals.push(admission(req)?.signal as AbortSignal)
		})
		await using running = await serve(framework, 1, work.handler)
		const gone = new Promise((resolve) => {
			running.server.once('connection', (socket) => socket.once('close', resolve))
		})
		const client = await rawClient(running.port, get())
		await until(() => work.begun.length === 1)
		client.socket.destroy()
		await gone
		work.finish()
		await until(() => signals.length === 1)
		expect(signals[0]?.aborted).toBe(true)
	})

	test('a signal that is first looked at after the answer is not aborted, although the server has ended the connection', async () => {
		const aborted: (boolean | undefined)[] = []
		const work = workshop()
		await using running = await serve(framework, 1, (req, res) => {
			res.once('finish', () => aborted.push(admission(req)?.signal.aborted))
			return work.handler(req, res)
		})
		const client = await rawClient(running.port, get('/', 'Connection: close\r\n'))
		await until(() => work.begun.length === 1)
		work.finish()
		await until(() => aborted.length === 1)
		expect(aborted).toEqual([false])
		client.socket.destroy()
	})

	test('release gives the permit back early, once', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, async (req, res) => {
			if (req.url === '/poll') admission(req)?.release()
			await work.handler(req, res)
			if (req.url === '/poll') admission(req)?.release()
		})
		const poll = request(running.port, { path: '/poll' })
		await until(() => work.begun.length === 1)
		expect(running.limiter.active).toBe(0)
		const other = request(running.port, { path: '/other' })
		await until(() => work.begun.length === 2)
		work.finish('/poll')
		await poll
		expect(running.limiter.active).toBe(1)
		work.finish('/other')
		await other
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ admitted: 2, completed: 2 })
	})

	test('weigh changes how many permits a request holds, until it is over', async () => {
		const work = workshop()
		const weights = [5, 1, 2]
		await using running = await serve(framework, 2, async (req, res) => {
			for (const weight of weights.splice(0)) {
				admission(req)?.weigh(weight)
				expect(running.limiter.active).toBe(weight)
			}
			expect(() => admission(req)?.weigh(0)).toThrow('weight must be an integer from 1; got 0')
			await work.handler(req, res)
			admission(req)?.release()
			admission(req)?.weigh(7)
		})
		const first = request(running.port)
		await until(() => work.begun.length === 1)
		const second = request(running.port)
		await until(() => running.limiter.queued === 1)
		work.finish()
		await first
		await until(() => work.begun.length === 2)
		work.finish()
		expect((await second).status).toBe(200)
		await until(() => running.limiter.active === 0)
	})

	test('close rejects all that wait and come; those at work finish', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, work.handler)
		const first = request(running.port)
		await until(() => work.begun.length === 1)
		const waiting = request(running.port)
		await until(() => running.limiter.queued === 1)
		running.limiter.close()
		for (const rejected of [await waiting, await request(running.port)]) {
			expect(rejected.status).toBe(503)
			expect(JSON.parse(rejected.body).reason).toBe('closed')
		}
		const idle = running.limiter.onIdle()
		work.finish()
		expect((await first).status).toBe(200)
		await idle
		expect(work.begun.length).toBe(1)
	})

	test('resize takes effect at once', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, work.handler)
		const answers = [1, 2, 3].map(() => request(running.port))
		await until(() => work.begun.length === 1 && running.limiter.queued === 2)
		running.limiter.resize(3)
		await until(() => work.begun.length === 3)
		running.limiter.resize(1)
		for (let i = 0; i < 3; i++) work.finish()
		await Promise.all(answers)
		running.limiter.resize(3)
		await expectNothingLost(running, work)
	})

	test('one limiter is shared by several apps', async () => {
		const work = workshop()
		await using one = await serve(framework, 2, work.handler)
		const other = frameworks.find(({ kind }) => kind !== framework.kind) as (typeof frameworks)[0]
		await using two = await serve(other, one.limiter as Limiter, work.handler)
		expect(two.limiter).toBe(one.limiter)
		const answers = [one, two, one, two].map(({ port }) => request(port))
		await until(() => work.begun.length === 2 && one.limiter.queued === 2)
		for (let i = 0; i < 4; i++) {
			await until(() => work.begun.length >= Math.min(4, i + 1))
			work.finish()
		}
		await Promise.all(answers)
		expect(work.highest()).toBe(2)
		await until(() => one.limiter.active === 0)
		expect(one.limiter.stats()).toMatchObject({ completed: 4 })
	})
})
