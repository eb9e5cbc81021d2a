import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import http2, {
	type ClientHttp2Session,
	type ClientHttp2Stream,
	type Http2Server,
	type ServerHttp2Stream,
} from 'node:http2'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { describe, expect, test, vi } from 'vitest'
import { admission, type Limiter } from '../../adapters/express.js'
import { until, type Work, workshop } from '../support/clients.js'
import { frameworks, type Handler, type Options } from '../support/frameworks.js'

/** Express 4 and 5 put the prototypes of HTTP/1 on their requests, and so cannot serve HTTP/2's. */
const able = frameworks.filter(({ name }) => !name.startsWith('Express'))

const FILE = fileURLToPath(import.meta.url)

interface Running {
	server: Http2Server
	limiter: Limiter
	session: ClientHttp2Session
	open(path: string, headers?: http2.OutgoingHttpHeaders, upload?: boolean): ClientHttp2Stream
	[Symbol.asyncDispose](): Promise<void>
}

async function serve(
	framework: (typeof frameworks)[0],
	options: Options,
	handler: Handler,
): Promise<Running> {
	const { listener, limiter } = framework.app(options, handler)
	const server = http2.createServer(
		listener as unknown as Parameters<typeof http2.createServer>[1] & RequestListener,
	)
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const session = http2.connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
	session.on('error', () => {})
	return {
		server,
		limiter,
		session,
		open(path, headers = {}, upload = false) {
			const stream = session.request({ ':path': path, ...headers }, { endStream: !upload })
			stream.on('error', () => {})
			return stream
		},
		async [Symbol.asyncDispose]() {
			session.destroy()
			await new Promise((resolve) => server.close(resolve))
		},
	}
}

async function bodyOf(stream: ClientHttp2Stream): Promise<string> {
	let body = ''
	for await (const chunk of stream) body += chunk
	return body
}

async function expectNothingLost(running: Running, work: Work): Promise<void> {
	await until(() => running.limiter.active === 0 && running.limiter.queued === 0)
	const fresh = Array.from({ length: running.limiter.capacity }, (_, i) =>
		bodyOf(running.open(`/fresh/${i}`)),
	)
	await until(
		() =>
			work.begun.filter((path) => path.startsWith('/fresh/')).length === running.limiter.capacity,
	)
	work.finishAll()
	expect(await Promise.all(fresh)).toEqual(fresh.map((_, i) => `/fresh/${i}`))
	await until(() => running.limiter.active === 0)
	expect(work.highest()).toBeLessThanOrEqual(running.limiter.capacity)
}

describe.each(able)('$name over HTTP/2', (framework) => {
	test('streams are served, never more than the capacity at once', async () => {
		const work = workshop()
		await using running = await serve(framework, 3, work.handler)
		const answers = Array.from({ length: 10 }, (_, i) => bodyOf(running.open(`/${i}`)))
		await until(() => running.limiter.active === 3 && running.limiter.queued === 7)
		for (let i = 0; i < 10; i++) {
			await until(() => work.begun.length > i)
			work.finish(`/${i}`)
		}
		expect(await Promise.all(answers)).toEqual(answers.map((_, i) => `/${i}`))
		await expectNothingLost(running, work)
		expect(running.limiter.stats()).toMatchObject({ completed: 13, abandoned: 0 })
	})

	test('streams that the client resets while waiting never reach the handler', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, work.handler)
		const first = bodyOf(running.open('/first'))
		await until(() => work.begun.length === 1)
		const leavers = [running.open('/leaver'), running.open('/leaver', { ':method': 'POST' }, true)]
		await until(() => running.limiter.queued === 2)
		for (const stream of leavers) stream.close(http2.constants.NGHTTP2_CANCEL)
		await until(() => running.limiter.queued === 0)
		work.finish()
		await first
		await expectNothingLost(running, work)
		expect(work.begun).not.toContain('/leaver')
	})

	test('streams that the client resets while at work count until the handler is done', async () => {
		const work = workshop()
		const aborted: string[] = []
		await using running = await serve(framework, 1, (req, res) => {
			admission(req)?.signal.addEventListener('abort', () => aborted.push(req.url ?? ''))
			return work.handler(req, res)
		})
		const leaver = running.open('/leaver')
		await until(() => work.begun.length === 1)
		leaver.close(http2.constants.NGHTTP2_CANCEL)
		await until(() => aborted.length === 1)
		const next = bodyOf(running.open('/next'))
		await until(() => running.limiter.queued === 1)
		expect(running.limiter.active).toBe(1)
		work.finish()
		await until(() => work.begun.length === 2)
		work.finish()
		await next
		expect(running.limiter.stats()).toMatchObject({ abandoned: 1 })
		await expectNothingLost(running, work)
	})

	test('streams that the client resets in the middle of the response', async () => {
		const work = workshop((req, res) => {
			if (req.url !== '/stream') return res.end(req.url)
			new Readable({
				read() {
					this.push(Buffer.alloc(16_384))
				},
			}).pipe(res)
		})
		await using running = await serve(framework, 1, work.handler)
		const leaver = running.open('/stream')
		await until(() => work.begun.length === 1)
		work.finish()
		await new Promise((resolve) => leaver.once('data', resolve))
		leaver.close(http2.constants.NGHTTP2_CANCEL)
		await expectNothingLost(running, work)
	})

	test('an upload that is never read nor ended does not keep the permit of an answered request', async () => {
		const work = workshop()
		await using running = await serve(framework, 1, work.handler)
		const upload = running.open('/upload', { ':method': 'POST' }, true)
		upload.write('some')
		await until(() => work.begun.length === 1)
		work.finish()
		expect(await bodyOf(upload)).toBe('/upload')
		await expectNothingLost(running, work)
	})

	test('nor that of a request that was answered with a file', async () => {
		const work = workshop((_req, res) =>
			(res as unknown as { stream: ServerHttp2Stream }).stream.respondWithFile(FILE),
		)
		const options = { capacity: 1, abandonedTimeout: Number.POSITIVE_INFINITY }
		await using running = await serve(framework, options, work.handler)
		const upload = running.open('/upload', { ':method': 'POST' }, true)
		upload.write('some')
		await until(() => work.begun.length === 1)
		work.finish()
		expect(await bodyOf(upload)).toContain('import')
		expect(running.server.listening && upload.writable).toBe(true)
		await until(() => running.limiter.active === 0)
		expect(running.limiter.stats()).toMatchObject({ completed: 1, abandoned: 0 })
	})

	test('a file that its client has not taken yet keeps the permit', async () => {
		vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
		const work = workshop((_req, res) =>
			(res as unknown as { stream: ServerHttp2Stream }).stream.respondWithFile(process.execPath),
		)
		await using running = await serve(framework, 1, work.handler)
		const download = running.open('/download')
		await once(download, 'ready')
		while (work.begun.length === 0) await new Promise(setImmediate)
		work.finish()
		await once(download, 'response')
		for (let turn = 0; turn < 20; turn++) {
			vi.advanceTimersByTime(1_000)
			await new Promise(setImmediate)
		}
		expect(running.limiter.active).toBe(1)
		vi.useRealTimers()
		download.destroy()
		await until(() => running.limiter.active === 0)
	})

	test('a session that is cut off with all its streams, waiting and at work', async () => {
		const work = workshop()
		await using running = await serve(framework, 2, work.handler)
		for (let i = 0; i < 8; i++) running.open('/cut')
		await until(() => running.limiter.active === 2 && running.limiter.queued === 6)
		running.session.destroy()
		await until(() => running.limiter.queued === 0)
		expect(running.limiter.active).toBe(2)
		work.finish()
		work.finish()
		await until(() => running.limiter.active === 0)
		expect(work.begun).toEqual(['/cut', '/cut'])
	})
})
