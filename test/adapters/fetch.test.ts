import { subscribe } from 'node:diagnostics_channel'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { type FetchContext, type LimitedFetch, limitFetch } from '../../adapters/fetch.js'
import type { RejectedError } from '../../src/errors.js'
import { enter, type Gate } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import { Semaphore } from '../../src/semaphore/semaphore.js'
import { until } from '../support/clients.js'
import { install, node, scratch } from '../support/packed.js'

const root = join(import.meta.dirname, '../..')

/**
 * The partner: `/slow` sends its body when the test says so, `/chunks/N/MS` sends N chunks, one
 * each MS; `/break` fails after its first chunk. A response is open from the arrival of its request
 * until its body has gone or its client has.
 */
let open = 0
/** Only exact if no client leaves: the partner may hear of that after the next request. */
let mostOpen = 0
let requests: string[] = []
let held: ServerResponse[] = []
const CHUNK = '0123456789'.repeat(100)

async function serveChunks(res: ServerResponse, count: number, pause: number): Promise<void> {
	for (let i = 0; i < count && !res.destroyed; i++) {
		if (pause > 0) await sleep(pause)
		res.write(CHUNK)
	}
	res.end()
}

const server = http.createServer((req: IncomingMessage, res: ServerResponse) => {
	const url = req.url ?? ''
	requests.push(url)
	mostOpen = Math.max(mostOpen, ++open)
	let over = false
	const end = () => {
		if (!over) open--
		over = true
	}
	// A client that has closed its connection has no response open, while this server may still be
	// writing.
	req.socket.once('end', end).once('error', end)
	res.once('close', () => {
		req.socket.off('end', end).off('error', end)
		end()
	})
	const [, kind, count, pause] = url.split('/')
	if (kind === 'slow') {
		res.writeHead(200, { 'Content-Type': 'application/json', 'X-Of': 'partner' }).write('{')
		held.push(res)
	} else if (kind === 'silent') {
		held.push(res)
	} else if (kind === 'chunks') {
		serveChunks(res, Number(count), Number(pause))
	} else if (kind === 'status') {
		res.writeHead(Number(count), 'As Asked').end(Number(count) === 204 ? undefined : 'text')
	} else if (kind === 'redirect') {
		res
			.writeHead(302, {
				Location: count === '0' ? '/chunks/2/1' : `/redirect/${Number(count) - 1}`,
			})
			.end('moved')
	} else if (kind === 'form') {
		res.writeHead(200, { 'Content-Type': 'application/x-www-form-urlencoded' }).end('a=1&b=2')
	} else if (kind === 'break') {
		res.write(CHUNK)
		setTimeout(() => res.destroy(), 5)
	} else if (kind === 'refuse') {
		req.socket.destroy()
	} else {
		res.end()
	}
})
let base = ''

/**
 * The requests in flight, as the client below `fetch` tells of them: from the moment in which it
 * sends one until it has all of the response, or gives up its connection.
 */
const inFlight = new Set<unknown>()
let highest = 0

type Told = { request: unknown }
subscribe('undici:client:sendHeaders', (message) => {
	inFlight.add((message as Told).request)
	highest = Math.max(highest, inFlight.size)
})
for (const end of ['trailers', 'error']) {
	subscribe(`undici:request:${end}`, (message) => inFlight.delete((message as Told).request))
}

beforeAll(async () => {
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})

afterAll(() => {
	server.close()
	server.closeAllConnections()
})

afterEach(async () => {
	vi.restoreAllMocks()
	for (const res of held) res.end()
	held = []
	await until(() => open === 0)
	inFlight.clear()
	highest = 0
	mostOpen = 0
	requests = []
})

/** Lets the oldest slow response come to its end. */
function finish(): void {
	held.shift()?.end('}')
}

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
	for await (const _chunk of stream);
}

/** Each way of coming to the end of a body. Given one that has begun, and what lets it end. */
const WAYS: Record<string, (response: Response, end: () => void) => unknown> = {
	text: (response, end) => {
		end()
		return response.text()
	},
	json: (response, end) => {
		end()
		return response.json().catch(() => {})
	},
	arrayBuffer: (response, end) => {
		end()
		return response.arrayBuffer()
	},
	blob: (response, end) => {
		end()
		return response.blob()
	},
	'formData of what is none': (response, end) => {
		end()
		return response.formData().catch(() => {})
	},
	getReader: async (response, end) => {
		const reader = response.body?.getReader()
		await reader?.read()
		end()
		while ((await reader?.read())?.done === false);
	},
	'a reader with its own buffer': async (response, end) => {
		const reader = (response.body as ReadableStream).getReader({ mode: 'byob' })
		await reader.read(new Uint8Array(1))
		end()
		while (!(await reader.read(new Uint8Array(100))).done);
	},
	'async iteration': async (response, end) => {
		end()
		await drain(response.body as ReadableStream)
	},
	'iteration that breaks': async (response) => {
		for await (const _chunk of response.body as ReadableStream) break
	},
	pipeTo: (response, end) => {
		end()
		return response.body?.pipeTo(new WritableStream())
	},
	'pipeTo a sink that fails': (response) => {
		const sink = new WritableStream({
			write() {
				throw new Error('full')
			},
		})
		return response.body?.pipeTo(sink).catch(() => {})
	},
	pipeThrough: (response, end) => {
		end()
		return drain((response.body as ReadableStream).pipeThrough(new TransformStream()))
	},
	'Readable.fromWeb': (response, end) => {
		end()
		return drain(Readable.fromWeb(response.body as import('node:stream/web').ReadableStream))
	},
	'another Response': (response, end) => {
		end()
		return new Response(response.body).text()
	},
	'a stream that is transferred': async (response, end) => {
		end()
		const body = structuredClone(response.body, { transfer: [response.body as never] })
		await drain(body as ReadableStream)
	},
	'tee, both read': (response, end) => {
		end()
		return Promise.all((response.body as ReadableStream).tee().map(drain))
	},
	'tee, both cancelled': (response) =>
		Promise.all((response.body as ReadableStream).tee().map((branch) => branch.cancel())),
	'clone, both read': (response, end) => {
		const copy = response.clone()
		end()
		return Promise.all([response.text(), copy.text()])
	},
	'clone, one read and the other never touched': (response, end) => {
		const copy = response.clone()
		end()
		return copy.text()
	},
	'clone, one cancelled and the other read': async (response, end) => {
		const copy = response.clone()
		void response.body?.cancel()
		end()
		await copy.text()
	},
	'clone, both cancelled': (response) => {
		const copy = response.clone()
		return Promise.all([response.body?.cancel(), copy.body?.cancel()])
	},
	'clone of a clone': (response, end) => {
		const copy = response.clone()
		const second = copy.clone()
		end()
		return Promise.all([response.text(), copy.text(), second.text()])
	},
	'cancelled at once': (response) => response.body?.cancel(),
	'cancelled by its reader': async (response) => {
		const reader = response.body?.getReader()
		await reader?.read()
		await reader?.cancel('enough')
	},
	'cancelled while it is read': async (response) => {
		const reader = response.body?.getReader()
		await reader?.read()
		const read = reader?.read()
		await reader?.cancel('enough')
		await read
	},
}

describe.each(Object.entries(WAYS))('a body ends by %s', (_name, way) => {
	test('the permit is held until then, and comes back once', async () => {
		const limitedFetch = limitFetch(1)
		const { limiter } = limitedFetch
		const released = vi.fn()
		limiter.observe({ released })
		const response = await limitedFetch(`${base}/slow`)
		const next = limitedFetch(`${base}/empty`)
		// As long as nothing has ended the body, the next one waits.
		await sleep(5)
		expect([limiter.active, limiter.queued, open]).toEqual([1, 1, 1])
		await way(response, finish)
		const second = await next
		expect(second.status).toBe(200)
		await until(() => limiter.active === 0)
		expect(released).toHaveBeenCalledTimes(2)
		expect(released.mock.calls[0]?.[0]).toMatchObject({ outcome: 'ok' })
		expect(highest).toBe(1)
	})
})

test('form data and bytes are what they were', async () => {
	const limitedFetch = limitFetch(1)
	const form = await (await limitedFetch(`${base}/form`)).formData()
	expect([...form]).toEqual([
		['a', '1'],
		['b', '2'],
	])
	const response = (await limitedFetch(`${base}/form`)) as Response & {
		bytes?(): Promise<Uint8Array>
	}
	const bytes = await (response.bytes?.() ?? response.arrayBuffer())
	expect(Buffer.from(bytes as ArrayBuffer).toString()).toBe('a=1&b=2')
	await limitedFetch.limiter.onIdle()
})

describe('a response without a body to read gives the permit back at once', () => {
	test.each([
		['204', '/status/204', {}],
		['HEAD', '/chunks/3/0', { method: 'HEAD' }],
		['empty', '/empty', {}],
	])('%s', async (_name, path, init) => {
		const limitedFetch = limitFetch(1)
		for (let i = 0; i < 3; i++) await limitedFetch(base + path, init)
		await limitedFetch.limiter.onIdle()
		expect(highest).toBe(1)
	})
})

test('redirects are one call and one permit', async () => {
	const limitedFetch = limitFetch(1)
	const response = await limitedFetch(`${base}/redirect/3`)
	expect(limitedFetch.limiter.active).toBe(1)
	expect([response.redirected, response.url]).toEqual([true, `${base}/chunks/2/1`])
	await response.text()
	await limitedFetch.limiter.onIdle()
	expect([requests.length, highest, limitedFetch.limiter.stats().admitted]).toEqual([5, 1, 1])
})

describe('what fails gives the permit back', () => {
	/** The outcomes of calls, as observers see them. */
	function outcomes({ limiter }: LimitedFetch): string[] {
		const list: string[] = []
		limiter.observe({ released: ({ outcome }) => list.push(outcome) })
		return list
	}

	test('the network, before the headers', async () => {
		const limitedFetch = limitFetch(1)
		const ended = outcomes(limitedFetch)
		await expect(limitedFetch(`${base}/refuse`)).rejects.toThrow(TypeError)
		expect(limitedFetch.limiter.active).toBe(0)
		expect(ended).toEqual(['server-error'])
	})

	test.each([
		['read', true],
		['unread', false],
	])('the body, while it is %s', async (_name, read) => {
		const limitedFetch = limitFetch(1)
		const ended = outcomes(limitedFetch)
		const response = await limitedFetch(`${base}/break`)
		if (read) await expect(response.text()).rejects.toThrow(TypeError)
		await limitedFetch.limiter.onIdle()
		if (!read) await expect(response.text()).rejects.toThrow(TypeError)
		expect(ended).toEqual(['server-error'])
	})

	test('a call that `fetch` does not take', async () => {
		const limitedFetch = limitFetch(1)
		await expect(limitedFetch('no URL')).rejects.toThrow(TypeError)
		await expect(limitedFetch(base, { method: 'no method' })).rejects.toThrow(TypeError)
		expect([limitedFetch.limiter.active, requests]).toEqual([0, []])
	})

	test.each([undefined, null, 'a page'])('a `fetch` that resolves to %j', async (what) => {
		const fetch = (async () => what) as unknown as typeof globalThis.fetch
		const limitedFetch = limitFetch(1, { fetch, maxRetryAfter: 10 })
		await expect(limitedFetch('http://localhost/')).rejects.toThrow(
			/^what fetch resolves to must be a Response whose body is a ReadableStream; got /,
		)
		expect(limitedFetch.limiter.active).toBe(0)
	})

	test('a `fetch` whose responses are of another make', async () => {
		const bodies = [Readable.from(['text']), new ReadableStream()]
		const fetch = async () => ({ status: 200, body: bodies.shift() })
		const limitedFetch = limitFetch(1, { fetch })
		for (let i = 0; i < 2; i++) {
			await expect(limitedFetch()).rejects.toThrow(
				'what fetch resolves to must be a Response whose body is a ReadableStream',
			)
		}
		expect(limitedFetch.limiter.active).toBe(0)
	})

	test('the status of the partner is the outcome', async () => {
		const limitedFetch = limitFetch(1)
		const ended = outcomes(limitedFetch)
		for (const status of [200, 404, 503])
			await (await limitedFetch(`${base}/status/${status}`)).text()
		await limitedFetch.limiter.onIdle()
		expect(ended).toEqual(['ok', 'client-error', 'server-error'])
	})
})

describe('a signal that is aborted', () => {
	test.each<[string, (signal: AbortSignal) => [string | Request, RequestInit?]]>([
		['of the call', (signal) => [`${base}/never`, { signal }]],
		['of a Request', (signal) => [new Request(`${base}/never`, { signal })]],
	])('%s, while it waits: no request is made', async (_name, call) => {
		const limitedFetch = limitFetch(1)
		await limitedFetch(`${base}/slow`)
		const controller = new AbortController()
		const waiting = limitedFetch(...call(controller.signal))
		await sleep(1)
		expect(limitedFetch.limiter.queued).toBe(1)
		controller.abort(new Error('enough'))
		await expect(waiting).rejects.toThrow('enough')
		await expect(limitedFetch(...call(controller.signal))).rejects.toThrow('enough')
		expect(limitedFetch.limiter.queued).toBe(0)
		finish()
		await sleep(5)
		expect(requests).toEqual(['/slow'])
	})

	test('in the moment in which the permit is handed over: no request is made', async () => {
		const fetch = vi.fn(async () => new Response(null))
		const limiter = new Limiter(1)
		const limitedFetch = limitFetch(limiter, { fetch: fetch as typeof globalThis.fetch })
		const permit = await limiter.acquire()
		const controller = new AbortController()
		const waiting = limitedFetch(base, { signal: controller.signal })
		permit.release()
		controller.abort(new Error('enough'))
		await expect(waiting).rejects.toThrow('enough')
		expect([fetch.mock.calls.length, limiter.active]).toEqual([0, 0])
	})

	test('`null` takes away that of a Request', async () => {
		const limitedFetch = limitFetch(1)
		const response = await limitedFetch(new Request(base, { signal: AbortSignal.abort() }), {
			signal: null,
		})
		expect(response.status).toBe(200)
	})

	test.each(['/silent', '/slow'])('while %s is at work, read or not', async (path) => {
		const limitedFetch = limitFetch(1)
		const released = vi.fn()
		limitedFetch.limiter.observe({ released })
		for (const read of [true, false]) {
			const controller = new AbortController()
			const call = limitedFetch(base + path, { signal: controller.signal })
			await until(() => open === 1)
			const text = path === '/silent' || read ? call.then((response) => response.text()) : call
			if (path === '/slow') await call
			controller.abort(new Error('enough'))
			if (path === '/silent' || read) await expect(text).rejects.toThrow('enough')
			await limitedFetch.limiter.onIdle()
			if (!read && path === '/slow') await expect((await call).text()).rejects.toThrow('enough')
			await until(() => open === 0)
		}
		expect(released.mock.calls.map(([{ outcome }]) => outcome)).toEqual(['abandoned', 'abandoned'])
	})
})

test('a queue that is full, and one that is closed, reject without a request', async () => {
	const limitedFetch = limitFetch({ capacity: 1, maxQueue: 0 })
	const response = await limitedFetch(`${base}/slow`)
	await expect(limitedFetch(base)).rejects.toMatchObject({
		code: 'ERR_INFLIGHT_REJECTED',
		reason: 'queue-full',
	} satisfies Partial<RejectedError>)
	limitedFetch.limiter.close()
	await expect(limitedFetch(base)).rejects.toMatchObject({ reason: 'closed' })
	finish()
	expect(await response.text()).toBe('{}')
	expect(requests).toEqual(['/slow'])
})

describe('a body that is not read', () => {
	test('is cancelled after unreadTimeout, its reader is told, and one warning says so', async () => {
		const warning = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
		const limitedFetch = limitFetch({ capacity: 1, name: 'partner' }, { unreadTimeout: 30 })
		const first = await limitedFetch(`${base}/slow`)
		const second = await limitedFetch(`${base}/slow`)
		await limitedFetch.limiter.onIdle()
		for (const response of [first, second]) {
			await expect(response.text()).rejects.toMatchObject({
				name: 'TimeoutError',
				message: 'The body was not read for 30 ms',
			})
		}
		await until(() => open === 0)
		expect(warning.mock.calls).toEqual([
			[
				'A body held a permit of the limiter "partner" for 30 ms and nothing read it: it was cancelled. ' +
					'Read each body to its end, or cancel it.',
				{ type: 'InflightLimitWarning', code: 'INFLIGHT_UNREAD_BODY' },
			],
		])
		expect(highest).toBe(1)
	})

	test('also when its reader has read a part', async () => {
		vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
		const limitedFetch = limitFetch(1, { unreadTimeout: 30 })
		const reader = (await limitedFetch(`${base}/slow`)).body?.getReader()
		await reader?.read()
		await limitedFetch.limiter.onIdle()
		await expect(reader?.read()).rejects.toMatchObject({ name: 'TimeoutError' })
	})

	test('is not one whose reader waits for a slow partner', async () => {
		const warning = vi.spyOn(process, 'emitWarning')
		const limitedFetch = limitFetch(1, { unreadTimeout: 20 })
		const text = (await limitedFetch(`${base}/slow`)).text()
		await sleep(80)
		expect(limitedFetch.limiter.active).toBe(1)
		finish()
		expect(await text).toBe('{}')
		expect(warning).not.toHaveBeenCalled()
	})

	test('is kept for ever with Infinity, and nothing warns once it was read', async () => {
		const warning = vi.spyOn(process, 'emitWarning')
		const timer = vi.spyOn(globalThis, 'setTimeout')
		const limitedFetch = limitFetch(1, {
			unreadTimeout: Number.POSITIVE_INFINITY,
			fetch: async () => new Response('text'),
		})
		const response = await limitedFetch()
		expect(timer).not.toHaveBeenCalled()
		expect(limitedFetch.limiter.active).toBe(1)
		await response.text()
		const bounded = limitFetch(1, { unreadTimeout: 5 })
		await (await bounded(`${base}/chunks/3/0`)).text()
		await sleep(20)
		expect(warning).not.toHaveBeenCalled()
	})
})

describe('the response', () => {
	test('is what `fetch` made of it, and so is its clone', async () => {
		const limitedFetch = limitFetch(3)
		const url = `${base}/redirect/0`
		const theirs = await fetch(url)
		const ours = await limitedFetch(url)
		for (const response of [ours, ours.clone(), ours.clone().clone()]) {
			expect(response).toBeInstanceOf(Response)
			for (const name of [
				'url',
				'status',
				'statusText',
				'ok',
				'redirected',
				'type',
				'bodyUsed',
			] as const) {
				expect([name, response[name]]).toEqual([name, theirs[name]])
			}
			expect([...response.headers.keys()]).toEqual([...theirs.headers.keys()])
			expect(Object.keys(response)).toEqual([])
			expect(await response.text()).toBe(CHUNK.repeat(2))
			expect(response.bodyUsed).toBe(true)
			expect(() => response.clone()).toThrow(TypeError)
		}
		await theirs.text()
	})

	test('may have a status that no constructor takes', async () => {
		const response = await limitFetch(1)(`${base}/status/999`)
		expect([response.status, response.statusText, response.ok]).toEqual([999, 'As Asked', false])
		expect(await response.text()).toBe('text')
	})

	test('of a `fetch` whose body is no stream of bytes has the same chunks', async () => {
		const chunks = [Buffer.from('a'), Buffer.from('b')]
		const body = Readable.toWeb(Readable.from(chunks)) as ReadableStream
		const limitedFetch = limitFetch(1, { fetch: async () => new Response(body) })
		expect(await (await limitedFetch()).text()).toBe('ab')
		await limitedFetch.limiter.onIdle()
	})
})

describe('options', () => {
	test('the functions are given the call', async () => {
		const contexts: FetchContext[] = []
		const limitedFetch = limitFetch({
			capacity: 1,
			key(call) {
				contexts.push(call)
				return call.url.origin
			},
		})
		const init = { method: 'POST' }
		const request = new Request(`${base}/a`)
		const calls: Parameters<typeof fetch>[] = [
			[`${base}/a`, init],
			[new URL(`${base}/a`)],
			[request],
		]
		for (const args of calls) {
			await (await limitedFetch(...args)).text()
		}
		expect(contexts.map(({ input }) => input)).toEqual([`${base}/a`, new URL(`${base}/a`), request])
		expect(contexts.map(({ init }) => init)).toEqual([init, undefined, undefined])
		expect(contexts.map(({ url }) => url.href)).toEqual(Array(3).fill(`${base}/a`))
	})

	test('each key has its own limit, `undefined` has none', async () => {
		const limitedFetch = limitFetch({
			capacity: 1,
			key: ({ url }) => (url.pathname === '/empty' ? undefined : url.search),
		})
		const responses = await Promise.all([
			limitedFetch(`${base}/slow/?a`),
			limitedFetch(`${base}/slow/?b`),
		])
		const third = limitedFetch(`${base}/chunks/1/0/?a`)
		await limitedFetch(`${base}/empty`)
		expect([limitedFetch.limiter.active, limitedFetch.limiter.queued]).toEqual([2, 1])
		finish()
		finish()
		await Promise.all(responses.map((response) => response.text()))
		await (await third).text()
		await limitedFetch.limiter.onIdle()
	})

	test('a limiter made before is shared', async () => {
		const limiter = new Limiter(1)
		const limitedFetch = limitFetch(limiter)
		expect(limitedFetch.limiter).toBe(limiter)
		const permit = await limiter.acquire()
		const call = limitedFetch(base)
		await sleep(1)
		expect([limiter.queued, requests]).toEqual([1, []])
		permit.release()
		await call
		await limiter.onIdle()
	})

	test('a gate whose permit can be lost aborts the call', async () => {
		const lost = new AbortController()
		const leave = vi.fn()
		const gate = {
			name: 'fleet',
			[enter]: () => ({
				tag: 'admitted',
				waited: 0,
				queued: 0,
				available: 0,
				signalWith: (client: AbortSignal) => AbortSignal.any([client, lost.signal]),
				leave,
			}),
		} as unknown as Gate
		const response = await limitFetch(gate as Limiter)(`${base}/slow`)
		lost.abort(new Error('lost'))
		await expect(response.text()).rejects.toThrow('lost')
		expect(leave.mock.calls).toEqual([['abandoned']])
	})

	test('the global `fetch` is the one of the moment', async () => {
		const limitedFetch = limitFetch(1)
		vi.spyOn(globalThis, 'fetch').mockImplementation(async () => new Response('mine'))
		expect(await (await limitedFetch(base)).text()).toBe('mine')
	})

	test.each<[unknown[], string]>([
		[[0], 'capacity must be an integer from 1, or Infinity; got 0'],
		[[null], 'options must be an object; got null'],
		[[{ capacity: 1, statusCode: 503 }], 'unknown option "statusCode"'],
		[[1, { fetch: 'fetch' }], 'fetch must be a function; got "fetch"'],
		[[1, { unreadTimeout: -1 }], 'unreadTimeout must be a number of milliseconds'],
		[[1, { unreadTimeout: null }], 'unreadTimeout must be a number of milliseconds'],
		[[1, { maxRetryAfter: null }], 'maxRetryAfter must be a number of milliseconds'],
		[[1, { timeout: 1 }], 'unknown option "timeout"; allowed are fetch, unreadTimeout'],
	])('%j: %s', (args, message) => {
		expect(() => limitFetch(...(args as [1]))).toThrow(message)
	})
})

describe('a random mix of all of it', () => {
	/** mulberry32: the same numbers for the same seed. */
	function randomFrom(seed: number): () => number {
		let state = seed
		return () => {
			state = (state + 0x6d2b79f5) | 0
			let t = Math.imul(state ^ (state >>> 15), 1 | state)
			t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
			return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
		}
	}

	const ways = Object.values(WAYS)

	/** One call of many: random path, random way to its end, some aborted at a random moment. */
	async function call(limitedFetch: LimitedFetch, random: () => number): Promise<void> {
		const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T
		const path = pick([
			`/chunks/${1 + Math.floor(random() * 5)}/1`,
			`/chunks/${1 + Math.floor(random() * 200)}/0`,
			'/redirect/1',
			'/break',
			'/refuse',
			'/status/503',
			'/status/204',
			'/empty',
		])
		const way = pick(ways)
		const controller = new AbortController()
		if (random() < 0.2) setTimeout(() => controller.abort(), random() * 30)
		const response = await limitedFetch(base + path, { signal: controller.signal })
		if (response.body !== null && random() < 0.95) await way(response, () => {})
	}

	test.each([1, 2, 3, 4, 5, 6])(
		'seed %i: never more than the limit, and no permit is lost',
		async (seed) => {
			vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
			const random = randomFrom(seed)
			const capacity = 1 + Math.floor(random() * 4)
			const limitedFetch = limitFetch(capacity, { unreadTimeout: 40 })
			const released = vi.fn()
			limitedFetch.limiter.observe({ released })
			// The first ones are at work together, however slow the machine is.
			const first = Array.from({ length: capacity }, async () =>
				(await limitedFetch(`${base}/slow`)).text(),
			)
			const calls = Array.from({ length: 150 }, () => call(limitedFetch, random).catch(() => {}))
			await until(() => held.length === capacity)
			while (held.length > 0) finish()
			await Promise.all([...first, ...calls])
			await limitedFetch.limiter.onIdle()
			expect(highest).toBe(capacity)
			expect(released).toHaveBeenCalledTimes(limitedFetch.limiter.stats().admitted)
		},
	)

	test('a semaphore around `fetch` alone has more', async () => {
		const connections = new Semaphore(3)
		const pages = Array.from({ length: 4 }, () => connections.run(() => fetch(`${base}/slow`)))
		for (const page of pages) await page
		expect(highest).toBe(4)
	})
})

describe('in a process of its own', { timeout: 60_000 }, () => {
	const run = (program: string) =>
		node(root, [
			'--expose-gc',
			'--input-type=module',
			'-e',
			`import { setTimeout as sleep } from 'node:timers/promises'
			import { limitFetch } from 'inflight-limit/fetch'
			const base = ${JSON.stringify(base)}
			${program}`,
		])

	test.each([
		['a response', 'await limitedFetch(url)'],
		['its reader, after a part', 'await (await limitedFetch(url)).body.getReader().read()'],
		['the branches of its body', '(await limitedFetch(url)).body.tee()'],
		['a response and its clone', '(await limitedFetch(url)).clone()'],
	])('%s that is dropped gives its permit back', async (_name, drop) => {
		const { output } = await run(`
			const limitedFetch = limitFetch(1, { unreadTimeout: Infinity })
			const url = base + '/slow'
			async function drop() { ${drop} }
			await drop()
			for (let i = 0; i < 100 && limitedFetch.limiter.active > 0; i++) { gc(); await sleep(10) }
			console.log(limitedFetch.limiter.active)
			process.exit()
		`)
		expect(output).toBe('0\n')
	})

	test.each([
		['its response', 'const kept = await limitedFetch(url)', 'kept.text()'],
		['its body', 'const kept = (await limitedFetch(url)).body', 'new Response(kept).text()'],
		[
			'a reader',
			'const kept = (await limitedFetch(url)).body.getReader()',
			'kept.read().then(({ value }) => new TextDecoder().decode(value))',
		],
	])('a body is kept as long as somebody has %s', async (_name, keep, read) => {
		const { output } = await run(`
			const limitedFetch = limitFetch(1)
			const url = base + '/chunks/1/0'
			${keep}
			for (let i = 0; i < 20; i++) { gc(); await sleep(5) }
			console.log(limitedFetch.limiter.active, (await ${read}).length)
			process.exit()
		`)
		expect(output).toBe('1 1000\n')
	})

	test('a body that nothing reads keeps no process alive', async () => {
		const begin = performance.now()
		const { code, output } = await run(`
			const response = await limitFetch(1)(base + '/chunks/1/0')
			await sleep(50)
			process.on('exit', () => console.log('over', response.bodyUsed))
		`)
		expect([code, output]).toEqual([0, 'over false\n'])
		expect(performance.now() - begin).toBeLessThan(30_000)
	})

	test('a call that waits for such a body does', async () => {
		const { code, output } = await run(`
			process.removeAllListeners('warning')
			const limitedFetch = limitFetch({ capacity: 1, maxWait: Infinity }, { unreadTimeout: 500 })
			const unread = await limitedFetch(base + '/chunks/1/0')
			const text = await (await limitedFetch(base + '/chunks/1/0')).text()
			console.log(text.length, unread.status)
		`)
		expect([code, output]).toEqual([0, '1000 200\n'])
	})
})

describe('the `fetch` of undici', { timeout: 60_000 }, () => {
	const { folder, remove } = scratch()

	beforeAll(() => install(folder, ['undici@7']), 60_000)

	afterAll(remove)

	test('has its own Response, which it stays', async () => {
		const { output } = await node(root, [
			'--input-type=module',
			'-e',
			`import * as undici from ${JSON.stringify(join(folder, 'node_modules/undici/index.js'))}
			import { limitFetch } from 'inflight-limit/fetch'
			const limitedFetch = limitFetch(2, { fetch: undici.fetch })
			const paths = ['/chunks/5/2', '/redirect/1', '/chunks/100/0', '/status/404', '/chunks/3/1']
			const oks = await Promise.all(paths.map(async (path) => {
				const response = await limitedFetch(new undici.Request(${JSON.stringify(base)} + path))
				const copy = response.clone()
				const ours = [response, copy].every((each) => each instanceof undici.Response && each.url !== '')
				return ours && await response.text() === await copy.text() && response.status
			}))
			await limitedFetch.limiter.onIdle()
			console.log(...oks)
			process.exit()`,
		])
		expect(output).toBe('200 200 200 404 200\n')
		expect(mostOpen).toBe(2)
	})
})

describe('a partner that says when to come back', () => {
	/** Its first answer to each path of `/busy…` is this, all others 200. */
	function partner(status: number, retryAfter: string) {
		const asked: string[] = []
		const fetch = vi.fn(async (input: string) => {
			const first = !asked.includes(input)
			asked.push(input)
			const busy = first && input.includes('/busy')
			return new Response('text', {
				status: busy ? status : 200,
				headers: busy ? { 'Retry-After': retryAfter } : {},
			})
		})
		return { asked, fetch: fetch as unknown as typeof globalThis.fetch }
	}

	const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms)

	beforeEach(() => {
		vi.useFakeTimers()
	})

	afterEach(() => {
		vi.useRealTimers()
	})

	test.each([
		['429, in seconds', 429, () => '3'],
		['503, a date', 503, () => new Date(Date.now() + 3_000).toUTCString()],
	])(
		'%s: calls to its origin are made then, and hold their permits',
		async (_name, status, value) => {
			vi.setSystemTime(1_800_000_000_000)
			const { asked, fetch } = partner(status, value())
			const limitedFetch = limitFetch(2, { fetch, maxRetryAfter: 10_000 })
			const busy = await limitedFetch('http://a/busy')
			expect([busy.status, await busy.text()]).toEqual([status, 'text'])
			const later = limitedFetch('http://a/1').then((response) => response.text())
			const other = await limitedFetch('http://b/2')
			await other.text()
			await pass(2_990)
			expect(asked).toEqual(['http://a/busy', 'http://b/2'])
			expect(limitedFetch.limiter.active).toBe(1)
			await pass(20)
			expect(await later).toBe('text')
			expect(asked.at(-1)).toBe('http://a/1')
			expect(limitedFetch.limiter.active).toBe(0)
		},
	)

	test('it is obeyed for maxRetryAfter at most, and not at all without it', async () => {
		const { asked, fetch } = partner(429, '86400')
		const bounded = limitFetch(1, { fetch, maxRetryAfter: 1_000 })
		await (await bounded('http://a/busy')).text()
		const later = bounded('http://a/1')
		await pass(1_010)
		await (await later).text()
		const free = limitFetch(1, { fetch })
		await (await free('http://a/busy-too')).text()
		await (await free('http://a/2')).text()
		expect(asked).toEqual(['http://a/busy', 'http://a/1', 'http://a/busy-too', 'http://a/2'])
	})

	test.each(['', 'soon', '0', '-1', '1e9'])('%o is no time', async (value) => {
		const { asked, fetch } = partner(429, value)
		const limitedFetch = limitFetch(1, { fetch, maxRetryAfter: 1_000 })
		await (await limitedFetch('http://a/busy')).text()
		await (await limitedFetch('http://a/1')).text()
		expect(asked.length).toBe(2)
	})

	test('a call that is aborted meanwhile is not made, and gives its permit back', async () => {
		const { asked, fetch } = partner(429, '3')
		const limitedFetch = limitFetch(1, { fetch, maxRetryAfter: 10_000 })
		await (await limitedFetch('http://a/busy')).text()
		const controller = new AbortController()
		const later = limitedFetch('http://a/1', { signal: controller.signal })
		const failed = expect(later).rejects.toThrow('enough')
		await pass(1_000)
		controller.abort(new Error('enough'))
		await failed
		expect([asked.length, limitedFetch.limiter.active]).toEqual([1, 0])
		expect(vi.getTimerCount()).toBe(0)
	})

	test('a wrong bound is an error', () => {
		expect(() => limitFetch(1, { maxRetryAfter: -1 })).toThrow(RangeError)
	})
})
