import http, { type RequestListener, type ServerResponse } from 'node:http'
import { type AddressInfo, Socket } from 'node:net'
import express from 'express'
import express4 from 'express4'
import Koa from 'koa'
import Koa2 from 'koa2'
import { afterEach, describe, expect, test, vi } from 'vitest'
import * as forExpress from '../../adapters/express.js'
import * as forKoa from '../../adapters/koa.js'
import { REJECTION_REASONS, RejectedError, type RejectionReason } from '../../src/errors.js'
import { answerTo, type Rejection, rejectionBy } from '../../src/http/rejection.js'
import { Semaphore } from '../../src/semaphore/semaphore.js'

/*
 * A rejection that is handed to the framework's own error handling, in production. How busy the
 * server is, is not the client's to know; when to come back is.
 */

const FULL = 'Rejected (queue-full): try again in 1 s'

afterEach(() => {
	vi.restoreAllMocks()
	vi.unstubAllEnvs()
})

async function ask(
	listener: RequestListener,
): Promise<{ status: number; retryAfter: unknown; body: string }> {
	const server = http.createServer(listener)
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	try {
		const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
		return {
			status: answer.status,
			retryAfter: answer.headers.get('retry-after'),
			body: await answer.text(),
		}
	} finally {
		server.closeAllConnections()
		server.close()
	}
}

function responseOf(httpVersionMajor = 1): ServerResponse {
	const req = Object.assign(new http.IncomingMessage(new Socket()), { httpVersionMajor })
	return new http.ServerResponse(req)
}

/** A semaphore with its only permit held, and no room to wait. */
function full(): Semaphore {
	const semaphore = new Semaphore(1, { maxQueue: 0 })
	semaphore.tryAcquire()
	return semaphore
}

describe('429 is answered only where the client sent too much', () => {
	const DETAIL = {
		closed: 'The server is shutting down. Try again in 7 s.',
		overloaded: 'The server is overloaded. Try again in 7 s.',
		unavailable: 'The server cannot tell whether there is room. Try again in 7 s.',
	}

	function rejectedFor(reason: RejectionReason, statusCode: number): Rejection {
		const { limiter } = forExpress.limit({ capacity: 1, key: () => 'a', statusCode })
		const res = responseOf()
		return rejectionBy(limiter, new RejectedError(reason, 7, new Semaphore(1)), res)
	}

	test.each(REJECTION_REASONS)('%s', (reason) => {
		const own = reason in DETAIL
		const rejection = rejectedFor(reason, 429)
		expect([rejection.status, rejection.statusCode]).toEqual(own ? [503, 503] : [429, 429])
		const { type, detail } = JSON.parse(answerTo(rejection).body)
		expect(type).toMatch(own ? /#temporary-reduced-capacity$/ : /#quota-exceeded$/)
		expect(detail).toBe(
			DETAIL[reason as keyof typeof DETAIL] ??
				'Too many requests are being worked on. Try again in 7 s.',
		)
		expect(rejectedFor(reason, 520).status).toBe(520)
	})

	test.each([1, 2])(
		'closed ends a connection of HTTP/%d if the protocol has a field for it',
		(version) => {
			const { limiter } = forExpress.limit(1)
			const res = responseOf(version)
			const { headers } = rejectionBy(limiter, new RejectedError('closed', 7, limiter), res)
			expect(headers).toEqual({
				'Retry-After': '7',
				...(version === 1 ? { Connection: 'close' } : {}),
			})
		},
	)
})

test('a client that asks again and again on one connection does not keep a closed server', async () => {
	const guard = forExpress.limit(1)
	// What comes before the limit has the request when the server closes, so its connection is not
	// idle.
	const server = http.createServer((req, res) =>
		setImmediate(() => guard(req, res, () => res.end())),
	)
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const { port } = server.address() as AddressInfo
	const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
	const closed = new Promise<void>((resolve) => server.once('close', resolve))
	const askAgain = (): void => {
		const req = http.get({ host: '127.0.0.1', port, agent }, (res) =>
			res.resume().once('end', askAgain),
		)
		req.once('error', () => agent.destroy())
	}
	askAgain()
	await new Promise<void>((resolve) => server.once('request', () => resolve()))
	guard.limiter.close()
	server.close()
	await closed
})

describe.each([
	['Koa 3', Koa],
	['Koa 2', Koa2 as unknown as typeof Koa],
])('%s', (_name, Application) => {
	test('a rejection that onReject throws answers without figures, and is not logged', async () => {
		const logged = vi.spyOn(console, 'error').mockImplementation(() => {})
		const options: forKoa.LimitOptions = {
			capacity: 1,
			key: () => 'a',
			onReject: (rejection) => {
				throw rejection
			},
		}
		const guard = forKoa.limit(options)
		guard.limiter.close()
		const app = new Application({ env: 'production' }).use(guard)
		expect(await ask(app.callback())).toEqual({
			status: 503,
			retryAfter: '1',
			body: 'Rejected (closed): try again in 1 s',
		})
		expect(logged).not.toHaveBeenCalled()
	})

	test('so does that of a semaphore, thrown by a handler', async () => {
		const semaphore = full()
		const app = new Application({ env: 'production' }).use(() => semaphore.run(() => {}))
		expect(await ask(app.callback())).toEqual({ status: 503, retryAfter: '1', body: FULL })
	})
})

describe.each([
	['Express 5', express],
	['Express 4', express4 as unknown as typeof express],
])('%s', (_name, create) => {
	const next = forExpress.limit({
		capacity: 1,
		onReject: (rejection, _req, _res, next) => next(rejection),
	})
	next.limiter.close()

	test('a rejection given to next answers by the framework alone', async () => {
		vi.stubEnv('NODE_ENV', 'production')
		vi.spyOn(console, 'error').mockImplementation(() => {})
		const { status, retryAfter, body } = await ask(create().use(next))
		expect([status, retryAfter]).toEqual([503, '1'])
		expect(body).toContain('<pre>Service Unavailable</pre>')
	})

	test('an error handler can send all that it enumerates, and no figure is among it', async () => {
		const app = create()
			.use(next)
			.use(((error, _req, res, _next) => {
				res
					.status(error.statusCode)
					.set(error.headers)
					.json({ ...error, message: error.message })
			}) as express.ErrorRequestHandler)
		const { status, body } = await ask(app)
		expect(status).toBe(503)
		expect(JSON.parse(body)).toEqual({
			name: 'RejectedError',
			code: 'ERR_INFLIGHT_REJECTED',
			message: 'Rejected (closed): try again in 1 s',
			reason: 'closed',
			retryAfter: 1,
			status: 503,
			statusCode: 503,
			expose: true,
			headers: { 'Retry-After': '1', Connection: 'close' },
		})
	})

	test('onReject keeps its this', async () => {
		class Options {
			capacity = 1
			readonly #text = 'mine'
			onReject(_rejection: unknown, _req: unknown, res: ServerResponse): void {
				res.end(this.#text)
			}
		}
		const guard = forExpress.limit(new Options())
		guard.limiter.close()
		expect((await ask(create().use(guard))).body).toBe('mine')
	})

	test('the rejection of a semaphore, too', async () => {
		vi.stubEnv('NODE_ENV', 'production')
		vi.spyOn(console, 'error').mockImplementation(() => {})
		const app = create().use((_req, _res, next) => {
			full()
				.run(() => {})
				.catch(next)
		})
		expect(await ask(app)).toMatchObject({ status: 503, retryAfter: '1' })
	})
})

test('the figures at the moment of the rejection are properties', async () => {
	const semaphore = new Semaphore(2, { maxQueue: 1 })
	const held = [semaphore.tryAcquire(), semaphore.tryAcquire()]
	const waiting = semaphore.acquire()
	const error = await semaphore.acquire().catch((error: RejectedError) => error)
	for (const permit of held) permit?.release()
	await waiting
	expect(error).toBeInstanceOf(RejectedError)
	const { active, capacity, queued } = error as RejectedError
	expect({ active, capacity, queued }).toEqual({ active: 2, capacity: 2, queued: 1 })
})
