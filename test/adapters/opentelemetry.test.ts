import { context, metrics, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import {
	AggregationTemporality,
	InMemoryMetricExporter,
	MeterProvider,
	PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import {
	BasicTracerProvider,
	InMemorySpanExporter,
	SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base'
import express from 'express'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { limit } from '../../adapters/express.js'
import { openTelemetryMetrics } from '../../adapters/opentelemetry.js'
import { eventLoop } from '../../src/adaptive/event-loop.js'
import { enter, type Stay } from '../../src/limiter/gate.js'
import { Limiter } from '../../src/limiter/limiter.js'
import { request, until, workshop } from '../support/clients.js'
import { listen } from '../support/frameworks.js'

const present = new AbortController().signal
const spans = new InMemorySpanExporter()
let exporter: InMemoryMetricExporter
let meterProvider: MeterProvider

beforeAll(() => {
	context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
	trace.setGlobalTracerProvider(
		new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] }),
	)
})

afterAll(() => {
	context.disable()
	trace.disable()
})

beforeEach(() => {
	exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
	const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 2 ** 31 - 1 })
	meterProvider = new MeterProvider({ readers: [reader] })
})

afterEach(async () => {
	spans.reset()
	metrics.disable()
	await meterProvider.shutdown()
})

/**
 * What the instruments say now: `name{attributes} unit` with the value, or with the count of a
 * histogram.
 */
async function exported(): Promise<Record<string, unknown>> {
	exporter.reset()
	await meterProvider.forceFlush()
	const found: Record<string, unknown> = {}
	for (const { scopeMetrics } of exporter.getMetrics()) {
		for (const { metrics: all } of scopeMetrics) {
			for (const { descriptor, dataPoints } of all) {
				for (const { attributes, value } of dataPoints) {
					const labels = Object.entries(attributes).map(([name, is]) => `${name}=${is}`)
					const figure = typeof value === 'object' ? (value as { count: number }).count : value
					found[`${descriptor.name} ${descriptor.unit} ${labels.join(' ')}`] = figure
				}
			}
		}
	}
	return found
}

test('a server shows its limiter through the global provider, by instruments of the right kind', async () => {
	metrics.setGlobalMeterProvider(meterProvider)
	const work = workshop()
	const guard = limit({ capacity: 1, maxQueue: 1, name: 'reports' })
	openTelemetryMetrics({ limiters: [guard.limiter] })
	const app = express().use(guard, (req, res) => void work.handler(req, res))
	const { server, port } = await listen(app)
	const requests = [request(port)]
	await until(() => work.begun.length === 1)
	requests.push(request(port))
	await until(() => guard.limiter.queued === 1)
	expect(await request(port)).toMatchObject({ status: 503 })

	const of = 'inflight_limit.limiter.name=reports'
	expect(await exported()).toEqual({
		[`inflight_limit.capacity {permit} ${of}`]: 1,
		[`inflight_limit.active {permit} ${of}`]: 1,
		[`inflight_limit.queued {request} ${of}`]: 1,
		[`inflight_limit.key.count {key} ${of}`]: 0,
		[`inflight_limit.admitted {request} ${of}`]: 1,
		[`inflight_limit.completed {request} ${of}`]: 0,
		[`inflight_limit.abandoned {request} ${of}`]: 0,
		[`inflight_limit.rejected {request} ${of} error.type=queue-full`]: 1,
		[`inflight_limit.rejected {request} ${of} error.type=timeout`]: 0,
		[`inflight_limit.rejected {request} ${of} error.type=evicted`]: 0,
		[`inflight_limit.rejected {request} ${of} error.type=closed`]: 0,
		[`inflight_limit.rejected {request} ${of} error.type=overloaded`]: 0,
		[`inflight_limit.rejected {request} ${of} error.type=aborted`]: 0,
		[`inflight_limit.rejected {request} ${of} error.type=unavailable`]: 0,
		[`inflight_limit.wait.duration s ${of}`]: 1,
	})

	work.finishAll()
	await Promise.all(requests)
	await until(() => guard.limiter.active === 0)
	expect(await exported()).toMatchObject({
		[`inflight_limit.active {permit} ${of}`]: 0,
		[`inflight_limit.completed {request} ${of}`]: 2,
		[`inflight_limit.hold.duration s ${of}`]: 2,
	})
	const { waits, holds } = guard.limiter.stats()
	for (const [name, ms] of [
		['wait', waits.mean * 2],
		['hold', holds.mean * 2],
	] as const) {
		const metric = exporter
			.getMetrics()
			.flatMap(({ scopeMetrics }) => scopeMetrics.flatMap((scope) => scope.metrics))
			.find(({ descriptor }) => descriptor.name === `inflight_limit.${name}.duration`)
		const value = metric?.dataPoints[0]?.value as { sum: number; buckets: { boundaries: number[] } }
		expect(value.sum * 1000).toBeCloseTo(ms, 3)
		expect([value.buckets.boundaries[0], value.buckets.boundaries.at(-1)]).toEqual([0.001, 60])
	}
	server.closeAllConnections()
	server.close()
})

test('with the option eventLoop, a limiter shows the event loop', async () => {
	const stats = { delay: 250, utilization: 0.75, overloaded: false }
	const spy = vi.spyOn(eventLoop, 'stats').mockReturnValue(stats)
	openTelemetryMetrics({ limiters: [new Limiter({ capacity: 1, eventLoop: true })], meterProvider })
	const of = 'inflight_limit.limiter.name=default'
	expect(await exported()).toMatchObject({
		[`inflight_limit.event_loop.delay s ${of}`]: 0.25,
		[`inflight_limit.event_loop.utilization 1 ${of}`]: 0.75,
		[`inflight_limit.overloaded 1 ${of}`]: 0,
	})
	spy.mockRestore()
})

test('the wait is an event on the active span, with its milliseconds', async () => {
	const tracer = trace.getTracer('test')
	const work = workshop()
	const guard = limit({ capacity: 1, maxQueue: 1, name: 'reports' })
	openTelemetryMetrics({ limiters: [guard.limiter], meterProvider })
	const waited: number[] = []
	guard.limiter.observe({ admitted: (facts) => waited.push(facts.waited) })
	const app = express()
	app.use((req, res, next) => {
		tracer.startActiveSpan(req.path, (span) => {
			res.once('finish', () => span.end())
			next()
		})
	})
	app.use(guard, (req, res) => void work.handler(req, res))
	const { server, port } = await listen(app)
	const requests = [request(port, { path: '/at-once' })]
	await until(() => work.begun.length === 1)
	requests.push(request(port, { path: '/waits' }))
	await until(() => guard.limiter.queued === 1)
	await request(port, { path: '/rejected' })
	work.finishAll()
	await Promise.all(requests)
	await until(() => spans.getFinishedSpans().length === 3)

	const events = Object.fromEntries(
		spans
			.getFinishedSpans()
			.map(({ name, events }) => [name, events.map((event) => [event.name, event.attributes])]),
	)
	const limiter = { 'inflight_limit.limiter.name': 'reports' }
	expect(events).toEqual({
		'/at-once': [],
		'/waits': [['inflight_limit.wait', { ...limiter, 'inflight_limit.wait.ms': waited[1] }]],
		'/rejected': [
			[
				'inflight_limit.wait',
				{ ...limiter, 'inflight_limit.wait.ms': expect.any(Number), 'error.type': 'queue-full' },
			],
		],
	})
	expect(waited[1]).toBeGreaterThan(0)
	server.closeAllConnections()
	server.close()
})

test('no span, no event; no bound, no capacity; a key is never an attribute', async () => {
	const limiter = new Limiter({ capacity: Number.POSITIVE_INFINITY, key: () => 'ada' })
	openTelemetryMetrics({ limiters: [limiter], meterProvider })
	;(limiter[enter]({}, present) as Stay).leave('ok')
	const found = JSON.stringify(await exported())
	expect(found).toContain('inflight_limit.admitted')
	expect(found).not.toContain('capacity')
	expect(found).not.toContain('ada')
})

test('registering twice is an error; what it returns takes the limiters out again', async () => {
	const limiter = new Limiter({ capacity: 1, name: 'reports' })
	const other = new Limiter({ capacity: 1, name: 'other' })
	const end = openTelemetryMetrics({ limiters: [limiter], meterProvider })
	openTelemetryMetrics({ limiters: [other], meterProvider })
	expect(() => openTelemetryMetrics({ limiters: [limiter], meterProvider })).toThrow(
		'limiter "reports" is registered already: do it once',
	)
	expect(Object.keys(await exported()).filter((name) => name.includes('capacity'))).toHaveLength(2)
	end()
	;(limiter[enter]({}, present) as Stay).leave('ok')
	const left = JSON.stringify(await exported())
	expect(left).toContain('other')
	expect(left).not.toContain(
		'"inflight_limit.wait.duration s inflight_limit.limiter.name=reports":1',
	)
	openTelemetryMetrics({ limiters: [limiter], meterProvider })
	// Only the first call counts: the limiter that was added again stays.
	end()
	expect(() => openTelemetryMetrics({ limiters: [limiter], meterProvider })).toThrow(
		'limiter "reports" is registered already: do it once',
	)
})

test('options that are wrong, misspelt or missing throw', () => {
	const limiters = [new Limiter(1)]
	const make = (options: unknown) => () => openTelemetryMetrics(options as never)
	expect(make(undefined)).toThrow('options must be an object; got undefined')
	expect(make({})).toThrow('limiters must be an array of limiters; got undefined')
	expect(make({ limiters, provider: meterProvider })).toThrow('unknown option "provider"')
	for (const wrong of [null, 1, {}]) {
		expect(make({ limiters, meterProvider: wrong })).toThrow(
			'meterProvider must be a MeterProvider of OpenTelemetry',
		)
	}
})

test('without an SDK it does nothing, as often as one likes', () => {
	const limiter = new Limiter(1)
	openTelemetryMetrics({ limiters: [limiter] })
	openTelemetryMetrics({ limiters: [limiter] })
	;(limiter[enter]({}, present) as Stay).leave('ok')
	expect(limiter.stats().completed).toBe(1)
})
