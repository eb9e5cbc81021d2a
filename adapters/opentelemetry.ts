import {
	type Attributes,
	type BatchObservableCallback,
	createNoopMeter,
	type MeterProvider,
	metrics,
	trace,
} from '@opentelemetry/api'
import { checkMethod, checkOptions } from '../src/checks.js'
import type { SharedLimiter } from '../src/http/setup.js'
import { claimNames, once } from './limiters.js'

export interface OpenTelemetryOptions {
	/** The limiters to show, each with a name of its own. */
	limiters: readonly SharedLimiter[]
	/**
	 * Creates the instruments. Default: the global one of `@opentelemetry/api`; start the SDK first.
	 */
	meterProvider?: MeterProvider | undefined
}

/** The upper bounds of the histograms' buckets, in seconds. */
const BOUNDARIES = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

/*
 * The semantic conventions (version 1.37) have no instruments for a limit of concurrency. So names
 * and units follow their general rules (singular names in a namespace, units in braces, durations
 * in seconds) and their instruments for connection pools. The reason of a rejection is the
 * attribute `error.type`.
 */
const LIMITER = 'inflight_limit.limiter.name'
const ERROR_TYPE = 'error.type'

/**
 * Shows limiters as instruments of OpenTelemetry. All have the attribute
 * `inflight_limit.limiter.name`; none has one for a key:
 *
 * - up-down counters `inflight_limit.capacity` and `inflight_limit.active` in `{permit}`,
 *   `inflight_limit.queued` in `{request}`, `inflight_limit.key.count` in `{key}`;
 * - gauges, with the option `eventLoop`: `inflight_limit.event_loop.delay` in `s`,
 *   `inflight_limit.event_loop.utilization` and `inflight_limit.overloaded` (0 or 1) in `1`;
 * - counters `inflight_limit.admitted`, `.completed`, `.abandoned`, `.rejected` (by `error.type`,
 *   the reason) in `{request}`;
 * - histograms `inflight_limit.wait.duration` (of the admitted) and `inflight_limit.hold.duration`
 *   in `s`.
 *
 * If a span is active when a request is admitted after a wait, or rejected, the span gets the event
 * `inflight_limit.wait`, with `inflight_limit.wait.ms`; for a rejected request, with `error.type`
 * too.
 *
 * @returns a function that removes the limiters again.
 * @throws TypeError - an option is of the wrong type, missing, or unknown.
 * @throws Error - a limiter of the same name is shown by the same provider already.
 */
export function openTelemetryMetrics(options: OpenTelemetryOptions): () => void {
	checkOptions(options, ['limiters', 'meterProvider'])
	const { limiters, meterProvider = metrics.getMeterProvider() } = options
	checkMethod('meterProvider', 'a MeterProvider of OpenTelemetry', meterProvider, 'getMeter')
	const meter = meterProvider.getMeter('inflight-limit')
	// Without an SDK, all share one meter that reports nothing: there, a name may occur twice.
	const free = claimNames(meter === createNoopMeter() ? {} : meter, limiters)

	const capacity = meter.createObservableUpDownCounter('inflight_limit.capacity', {
		description:
			'Permits there are; with a key, for each key. Not reported where there is no bound.',
		unit: '{permit}',
	})
	const active = meter.createObservableUpDownCounter('inflight_limit.active', {
		description: 'Permits held now.',
		unit: '{permit}',
	})
	const queued = meter.createObservableUpDownCounter('inflight_limit.queued', {
		description: 'Requests waiting now.',
		unit: '{request}',
	})
	const keys = meter.createObservableUpDownCounter('inflight_limit.key.count', {
		description: 'Keys with a request at work or waiting now.',
		unit: '{key}',
	})
	const admitted = meter.createObservableCounter('inflight_limit.admitted', {
		description: 'Requests given a permit.',
		unit: '{request}',
	})
	const completed = meter.createObservableCounter('inflight_limit.completed', {
		description: 'Requests that have ended, and whose client stayed until then.',
		unit: '{request}',
	})
	const abandoned = meter.createObservableCounter('inflight_limit.abandoned', {
		description: 'Requests that have ended, and whose client left while their handler was at work.',
		unit: '{request}',
	})
	const rejected = meter.createObservableCounter('inflight_limit.rejected', {
		description: 'Requests rejected, by reason.',
		unit: '{request}',
	})
	const delay = meter.createObservableGauge('inflight_limit.event_loop.delay', {
		description: 'For how long the event loop has worked without waiting for events.',
		unit: 's',
	})
	const utilization = meter.createObservableGauge('inflight_limit.event_loop.utilization', {
		description: 'The part of the last second in which the event loop was at work.',
		unit: '1',
	})
	const overloaded = meter.createObservableGauge('inflight_limit.overloaded', {
		description: '1: in the last second, requests were rejected as the event loop was late.',
		unit: '1',
	})
	const advice = { explicitBucketBoundaries: BOUNDARIES }
	const wait = meter.createHistogram('inflight_limit.wait.duration', {
		description: 'How long the admitted waited.',
		unit: 's',
		advice,
	})
	const hold = meter.createHistogram('inflight_limit.hold.duration', {
		description: 'How long permits were held.',
		unit: 's',
		advice,
	})

	const ends = limiters.map((limiter) => {
		const attributes = { [LIMITER]: limiter.name }
		return limiter.observe({
			admitted({ waited }) {
				wait.record(waited / 1000, attributes)
				// A request that found room has not waited.
				if (waited > 0) tellSpan(waited, attributes)
			},
			released: ({ held }) => hold.record(held / 1000, attributes),
			rejected: ({ reason, waited }) => tellSpan(waited, { ...attributes, [ERROR_TYPE]: reason }),
		})
	})
	const observe: BatchObservableCallback = (result) => {
		for (const limiter of limiters) {
			const stats = limiter.stats()
			const attributes = { [LIMITER]: limiter.name }
			if (stats.capacity !== null) result.observe(capacity, stats.capacity, attributes)
			result.observe(active, stats.active, attributes)
			result.observe(queued, stats.queued, attributes)
			result.observe(keys, stats.keys, attributes)
			result.observe(admitted, stats.admitted, attributes)
			result.observe(completed, stats.completed, attributes)
			result.observe(abandoned, stats.abandoned, attributes)
			if (stats.eventLoop !== undefined) {
				result.observe(delay, stats.eventLoop.delay / 1000, attributes)
				result.observe(utilization, stats.eventLoop.utilization, attributes)
				result.observe(overloaded, Number(stats.eventLoop.overloaded), attributes)
			}
			for (const [reason, count] of Object.entries(stats.rejected)) {
				result.observe(rejected, count, { ...attributes, [ERROR_TYPE]: reason })
			}
		}
	}
	const observables = [
		...[capacity, active, queued, keys, admitted, completed, abandoned, rejected],
		...[delay, utilization, overloaded],
	]
	meter.addBatchObservableCallback(observe, observables)
	return once(() => {
		free()
		for (const end of ends) end()
		meter.removeBatchObservableCallback(observe, observables)
	})
}

function tellSpan(waited: number, attributes: Attributes): void {
	trace
		.getActiveSpan()
		?.addEvent('inflight_limit.wait', { ...attributes, 'inflight_limit.wait.ms': waited })
}
