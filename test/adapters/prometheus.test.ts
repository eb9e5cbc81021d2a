import express from 'express'
import { type OpenMetricsContentType, Registry, register } from 'prom-client'
import { afterEach, expect, test, vi } from 'vitest'
import { limit } from '../../adapters/express.js'
import { prometheusMetrics } from '../../adapters/prometheus.js'
import { eventLoop } from '../../src/adaptive/event-loop.js'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import { rawClient, request, until, workshop } from '../support/clients.js'
import { listen } from '../support/frameworks.js'

const present = new AbortController().signal

afterEach(() => register.clear())

/** The value of one series, or `undefined`. */
async function value(registry: Registry, series: string): Promise<number | undefined> {
	const line = (await registry.metrics()).split('\n').find((text) => text.startsWith(`${series} `))
	return line === undefined
		? undefined
		: Number(line.slice(series.length + 1).replace('+Inf', 'Infinity'))
}

test('a server shows its limiter to a scrape, as it is then', async () => {
	const work = workshop()
	const guard = limit({ capacity: 2, maxQueue: 1, name: 'reports' })
	prometheusMetrics({ limiters: [guard.limiter] })
	const app = express()
	app.get('/metrics', async (_req, res) => {
		res.type(register.contentType).send(await register.metrics())
	})
	let left = false
	app.use('/left', (req, _res, next) => {
		req.socket.once('close', () => {
			left = true
		})
		next()
	})
	app.use(guard, (req, res) => void work.handler(req, res))
	const { server, port } = await listen(app)
	const scrape = async (): Promise<string[]> =>
		(await request(port, { path: '/metrics' })).body
			.split('\n')
			.filter((line) => /_(?!bucket)/.test(line))

	const leaver = await rawClient(port, 'GET /left HTTP/1.1\r\nHost: localhost\r\n\r\n')
	await until(() => work.begun.length === 1)
	const stays = request(port, { path: '/stays' })
	await until(() => work.begun.length === 2)
	const waits = request(port, { path: '/waits' })
	await until(() => guard.limiter.queued === 1)
	expect(await request(port)).toMatchObject({ status: 503 })
	const busy = await scrape()
	expect(busy).toEqual(
		expect.arrayContaining([
			'# TYPE inflight_limit_capacity gauge',
			'inflight_limit_capacity{limiter="reports"} 2',
			'inflight_limit_active{limiter="reports"} 2',
			'inflight_limit_queued{limiter="reports"} 1',
			'inflight_limit_keys{limiter="reports"} 0',
			'# TYPE inflight_limit_admitted_total counter',
			'inflight_limit_admitted_total{limiter="reports"} 2',
			'inflight_limit_completed_total{limiter="reports"} 0',
			'inflight_limit_rejected_total{limiter="reports",reason="queue-full"} 1',
			'inflight_limit_rejected_total{limiter="reports",reason="timeout"} 0',
			'inflight_limit_rejected_total{limiter="reports",reason="evicted"} 0',
			'inflight_limit_rejected_total{limiter="reports",reason="closed"} 0',
			'inflight_limit_rejected_total{limiter="reports",reason="aborted"} 0',
			'# TYPE inflight_limit_wait_seconds histogram',
			'inflight_limit_wait_seconds_count{limiter="reports"} 2',
			'# TYPE inflight_limit_hold_seconds histogram',
			'inflight_limit_hold_seconds_count{limiter="reports"} 0',
		]),
	)

	leaver.socket.destroy()
	await until(() => left)
	work.finish('/left')
	await until(() => work.begun.length === 3)
	work.finishAll()
	await Promise.all([stays, waits])
	await until(() => guard.limiter.active === 0)
	guard.limiter.resize(5)
	const { admitted, completed, abandoned, waits: waited, holds } = guard.limiter.stats()
	expect([admitted, completed, abandoned]).toEqual([3, 2, 1])
	const idle = await scrape()
	expect(idle).toEqual(
		expect.arrayContaining([
			'inflight_limit_capacity{limiter="reports"} 5',
			'inflight_limit_active{limiter="reports"} 0',
			'inflight_limit_queued{limiter="reports"} 0',
			'inflight_limit_admitted_total{limiter="reports"} 3',
			'inflight_limit_completed_total{limiter="reports"} 2',
			'inflight_limit_abandoned_total{limiter="reports"} 1',
			'inflight_limit_wait_seconds_count{limiter="reports"} 3',
			'inflight_limit_hold_seconds_count{limiter="reports"} 3',
		]),
	)
	// The histograms are in seconds, the limiter's own figures in ms.
	const sum = (name: string): Promise<number | undefined> =>
		value(register, `inflight_limit_${name}_seconds_sum{limiter="reports"}`)
	expect(((await sum('wait')) as number) * 1000).toBeCloseTo(waited.mean * 3, 3)
	expect(((await sum('hold')) as number) * 1000).toBeCloseTo(holds.mean * 3, 3)
	server.closeAllConnections()
	server.close()
})

test('with the option eventLoop, a limiter shows the event loop; without it, not', async () => {
	const registry = new Registry()
	const stats = { delay: 250, utilization: 0.75, overloaded: true }
	const spy = vi.spyOn(eventLoop, 'stats').mockReturnValue(stats)
	const limiters = [new Limiter({ capacity: 1, eventLoop: true, name: 'watched' }), new Limiter(1)]
	prometheusMetrics({ limiters, registry })
	const lines = (await registry.metrics()).match(/^inflight_limit_(event_loop|overloaded).*/gm)
	expect(lines).toEqual([
		'inflight_limit_event_loop_delay_seconds{limiter="watched"} 0.25',
		'inflight_limit_event_loop_utilization_ratio{limiter="watched"} 0.75',
		'inflight_limit_overloaded{limiter="watched"} 1',
	])
	spy.mockRestore()
})

test('the buckets are fit for 1 ms to 60 s', async () => {
	const registry = new Registry()
	const limiter = new Limiter(1)
	prometheusMetrics({ limiters: [limiter], registry })
	;(limiter[enter]({}, present) as Stay).leave('ok')
	const bounds = Array.from(
		(await registry.metrics()).matchAll(/^inflight_limit_hold_seconds_bucket\{le="([^"]+)"/gm),
		([, bound]) => Number(bound?.replace('+Inf', 'Infinity')),
	)
	expect(bounds[0]).toBe(0.001)
	expect(bounds.at(-2)).toBe(60)
	expect(bounds.at(-1)).toBe(Number.POSITIVE_INFINITY)
	expect(bounds).toEqual(bounds.toSorted((a, b) => a - b))
})

test('several limiters, given at once or one after the other, each with its own series', async () => {
	const registry = new Registry()
	const limiters = ['a', 'b', 'c'].map((name) => new Limiter({ capacity: 1, name }))
	const [a, b, c] = limiters as [Limiter, Limiter, Limiter]
	prometheusMetrics({ limiters: [a, b], registry })
	prometheusMetrics({ limiters: [c], registry })
	const stay = b[enter]({}, present) as Stay
	for (const [name, active] of [
		['a', 0],
		['b', 1],
		['c', 0],
	]) {
		expect(await value(registry, `inflight_limit_active{limiter="${name}"}`)).toBe(active)
		expect(await value(registry, `inflight_limit_hold_seconds_count{limiter="${name}"}`)).toBe(0)
	}
	stay.leave('ok')
	expect(await value(registry, 'inflight_limit_hold_seconds_count{limiter="b"}')).toBe(1)
	expect(await value(registry, 'inflight_limit_hold_seconds_count{limiter="c"}')).toBe(0)
})

test('a key is never a label, and a capacity without bound is +Inf', async () => {
	const registry = new Registry()
	const limiter = new Limiter({ capacity: Number.POSITIVE_INFINITY, key: () => 'ada lovelace' })
	prometheusMetrics({ limiters: [limiter], registry })
	const stay = limiter[enter]({}, present) as Stay
	expect(await value(registry, 'inflight_limit_keys{limiter="default"}')).toBe(1)
	expect(await value(registry, 'inflight_limit_capacity{limiter="default"}')).toBe(
		Number.POSITIVE_INFINITY,
	)
	stay.leave('ok')
	expect(await registry.metrics()).not.toContain('ada')
})

test('an OpenMetrics registry is as good, and so is one with other metrics of the same process', async () => {
	const registry = new Registry<OpenMetricsContentType>()
	registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
	prometheusMetrics({ limiters: [new Limiter(3)], registry })
	const text = await registry.metrics()
	expect(text).toContain('inflight_limit_admitted_total{limiter="default"} 0')
	expect(text).toContain('# EOF')
})

test('options that are wrong, misspelt or missing throw, and leave nothing behind', async () => {
	const limiters = [new Limiter(1)]
	const make = (options: unknown) => () => prometheusMetrics(options as never)
	expect(make(undefined)).toThrow('options must be an object; got undefined')
	expect(make({})).toThrow('limiters must be an array of limiters; got undefined')
	expect(make({ limiters, registery: new Registry() })).toThrow('unknown option "registery"')
	for (const registry of [null, 1, {}]) {
		expect(make({ limiters, registry })).toThrow('registry must be a Registry of prom-client')
	}
	expect(await register.metrics()).not.toContain('limiter="default"')
})

test('registering twice is an error that says what to do', () => {
	const registry = new Registry()
	const limiter = new Limiter({ capacity: 1, name: 'reports' })
	prometheusMetrics({ limiters: [limiter], registry })
	expect(() => prometheusMetrics({ limiters: [limiter], registry })).toThrow(
		'limiter "reports" is registered already: do it once',
	)
	const other = new Limiter({ capacity: 1, name: 'reports' })
	const fresh = new Limiter({ capacity: 1, name: 'fresh' })
	expect(() => prometheusMetrics({ limiters: [fresh, other], registry })).toThrow(
		'another limiter named "reports" is registered already: give each a name of its own, by the option name',
	)
	expect(() => prometheusMetrics({ limiters: [fresh, fresh], registry })).toThrow('"fresh"')
	// What failed has left nothing behind, and another registry is another matter.
	prometheusMetrics({ limiters: [fresh], registry })
	prometheusMetrics({ limiters: [limiter] })
})

test('what it returns takes the limiters out again', async () => {
	const registry = new Registry()
	const limiter = new Limiter({ capacity: 1, name: 'reports' })
	const end = prometheusMetrics({ limiters: [limiter], registry })
	end()
	;(limiter[enter]({}, present) as Stay).leave('ok')
	expect(await registry.metrics()).not.toContain('reports')
	prometheusMetrics({ limiters: [limiter], registry })
	expect(await value(registry, 'inflight_limit_admitted_total{limiter="reports"}')).toBe(1)
	registry.clear()
	prometheusMetrics({ limiters: [limiter], registry })
	expect(await value(registry, 'inflight_limit_admitted_total{limiter="reports"}')).toBe(1)
})

test('what it returns does so once, and leaves later limiters of the same names alone', async () => {
	const registry = new Registry()
	const make = (): Limiter => new Limiter({ capacity: 1, name: 'reports' })
	const end = prometheusMetrics({ limiters: [make()], registry })
	end()
	const later = make()
	prometheusMetrics({ limiters: [later], registry })
	end()
	expect(() => prometheusMetrics({ limiters: [make()], registry })).toThrow(
		'another limiter named "reports" is registered already',
	)
	expect(await value(registry, 'inflight_limit_wait_seconds_count{limiter="reports"}')).toBe(0)
	expect(await value(registry, 'inflight_limit_capacity{limiter="reports"}')).toBe(1)
})

test.each([
	[undefined, 'limiters must be an array of limiters; got undefined'],
	[new Limiter(1), 'limiters must be an array of limiters; got an object'],
	[
		[limit(1)],
		'limiters[0] must be a Limiter; got a function: that of a middleware is its .limiter',
	],
	[[new Limiter(1), null], 'limiters[1] must be a Limiter; got null'],
])('what is no limiter throws', (limiters, message) => {
	const registry = new Registry()
	expect(() => prometheusMetrics({ limiters: limiters as Limiter[], registry })).toThrow(message)
	expect(() => prometheusMetrics({ limiters: limiters as Limiter[], registry })).toThrow(TypeError)
})

test('a registry that was cleared ends what observed for it', async () => {
	const registry = new Registry()
	const limiter = new Limiter({ capacity: 1, name: 'cleared' })
	const end = vi.fn()
	const { observe } = limiter
	vi.spyOn(limiter, 'observe').mockImplementation((observer) => {
		const endIt = observe.call(limiter, observer)
		return () => {
			end()
			endIt()
		}
	})
	prometheusMetrics({ limiters: [limiter], registry })
	await limiter.run(() => {})
	expect(end).not.toHaveBeenCalled()
	registry.clear()
	await limiter.run(() => {})
	expect(end).toHaveBeenCalledTimes(1)
	// Another registration has its own observer, which the end of the first one leaves alone.
	prometheusMetrics({ limiters: [limiter], registry })
	await limiter.run(() => {})
	expect(await registry.metrics()).toContain(
		'inflight_limit_wait_seconds_count{limiter="cleared"} 1',
	)
	expect(end).toHaveBeenCalledTimes(1)
})
