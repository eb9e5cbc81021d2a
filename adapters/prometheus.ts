import {
	Counter,
	Gauge,
	Histogram,
	type OpenMetricsContentType,
	type PrometheusContentType,
	type Registry,
	register,
} from 'prom-client'
import { checkMethod, checkOptions } from '../src/checks.js'
import type { SharedLimiter } from '../src/http/setup.js'
import type { LimiterStats } from '../src/limiter/limiter.js'
import { claimNames, once } from './limiters.js'

export interface PrometheusOptions {
	/** The limiters to show, each with a name of its own. */
	limiters: readonly SharedLimiter[]
	/** Where the metrics go. Default: the global registry of `prom-client`. */
	registry?: Registry<PrometheusContentType> | Registry<OpenMetricsContentType> | undefined
}

/** The upper bounds of the histograms' buckets, in seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

/** The metrics that are read from `stats()` at a scrape; `undefined`: the limiter has none. */
const GAUGES: [name: string, help: string, read: (stats: LimiterStats) => number | undefined][] = [
	[
		'inflight_limit_capacity',
		'Permits there are; with a key, for each key.',
		(stats) => stats.capacity ?? Number.POSITIVE_INFINITY,
	],
	['inflight_limit_active', 'Permits held now.', (stats) => stats.active],
	['inflight_limit_queued', 'Requests waiting now.', (stats) => stats.queued],
	['inflight_limit_keys', 'Keys with a request at work or waiting now.', (stats) => stats.keys],
	[
		'inflight_limit_event_loop_delay_seconds',
		'For how long the event loop has worked without waiting for events.',
		({ eventLoop }) => eventLoop && eventLoop.delay / 1000,
	],
	[
		'inflight_limit_event_loop_utilization_ratio',
		'The part of the last second in which the event loop was at work.',
		({ eventLoop }) => eventLoop?.utilization,
	],
	[
		'inflight_limit_overloaded',
		'1: in the last second, requests were rejected as the event loop was late.',
		({ eventLoop }) => eventLoop && Number(eventLoop.overloaded),
	],
]

const COUNTERS: [name: string, help: string, read: (stats: LimiterStats) => number][] = [
	['inflight_limit_admitted_total', 'Requests given a permit.', (stats) => stats.admitted],
	[
		'inflight_limit_completed_total',
		'Requests that have ended, and whose client stayed until then.',
		(stats) => stats.completed,
	],
	[
		'inflight_limit_abandoned_total',
		'Requests that have ended, and whose client left while their handler was at work.',
		(stats) => stats.abandoned,
	],
]

/**
 * Shows limiters as metrics for Prometheus. All have the label `limiter`; none has a label for a
 * key:
 *
 * - gauges `inflight_limit_capacity`, `_active`, `_queued`, `_keys`; with the option `eventLoop`
 *   also `_event_loop_delay_seconds`, `_event_loop_utilization_ratio` and `_overloaded` (0 or 1);
 * - counters `inflight_limit_admitted_total`, `_completed_total`, `_abandoned_total`,
 *   `_rejected_total` (by `reason`);
 * - histograms `inflight_limit_wait_seconds` (of the admitted) and `inflight_limit_hold_seconds`.
 *
 * ```ts
 * prometheusMetrics({ limiters: [guard.limiter] })
 * app.get('/metrics', async (req, res) => {
 * 	res.type(register.contentType).send(await register.metrics())
 * })
 * ```
 *
 * Gauges and counters are those of `stats()` at the moment of the scrape. The histograms count from
 * this call on.
 *
 * @returns a function that removes the limiters again. A registry that is cleared removes them too.
 * @throws TypeError - an option is of the wrong type, missing, or unknown.
 * @throws Error - a limiter of the same name is in the registry already.
 */
export function prometheusMetrics(options: PrometheusOptions): () => void {
	checkOptions(options, ['limiters', 'registry'])
	const { limiters, registry = register } = options
	checkMethod('registry', 'a Registry of prom-client', registry, 'getSingleMetric')
	const metrics = metricsOf(registry as Registry)
	/** Whether the registry was cleared, or has other metrics by now. */
	const isCleared = (): boolean => knownTo(registry as Registry) !== metrics
	const free = claimNames(metrics.limiters, limiters)
	const observers = limiters.map((limiter) => {
		const labels = { limiter: limiter.name }
		metrics.wait.zero(labels)
		metrics.hold.zero(labels)
		const wait = metrics.wait.labels(labels)
		const hold = metrics.hold.labels(labels)
		metrics.limiters.add(limiter)
		return limiter.observe({
			admitted: ({ waited }) => (isCleared() ? end() : wait.observe(waited / 1000)),
			released: ({ held }) => (isCleared() ? end() : hold.observe(held / 1000)),
		})
	})
	const end = once(() => {
		free()
		for (const endOne of observers) endOne()
		for (const limiter of limiters) {
			metrics.limiters.delete(limiter)
			metrics.wait.remove({ limiter: limiter.name })
			metrics.hold.remove({ limiter: limiter.name })
		}
	})
	return end
}

/** The metrics of this package in one registry. */
interface Metrics {
	limiters: Set<SharedLimiter>
	wait: Histogram<'limiter'>
	hold: Histogram<'limiter'>
}

/**
 * The metrics are stored on one of them: so they are created anew in a registry that was cleared.
 */
const METRICS: unique symbol = Symbol.for('inflight-limit.prometheus') as never

function metricsOf(registry: Registry): Metrics {
	return knownTo(registry) ?? createMetrics(registry)
}

function knownTo(registry: Registry): Metrics | undefined {
	const known = registry.getSingleMetric('inflight_limit_capacity') as
		| { [METRICS]?: Metrics }
		| undefined
	return known?.[METRICS]
}

function createMetrics(registry: Registry): Metrics {
	const limiters = new Set<SharedLimiter>()
	const registers = [registry]
	const labelNames = ['limiter'] as const
	const gauges = GAUGES.map(
		([name, help, read]) =>
			new Gauge({
				name,
				help,
				labelNames,
				registers,
				collect() {
					this.reset()
					for (const limiter of limiters) {
						const value = read(limiter.stats())
						if (value !== undefined) this.set({ limiter: limiter.name }, value)
					}
				},
			}),
	)
	for (const [name, help, read] of COUNTERS) {
		new Counter({
			name,
			help,
			labelNames,
			registers,
			collect() {
				this.reset()
				for (const limiter of limiters) this.inc({ limiter: limiter.name }, read(limiter.stats()))
			},
		})
	}
	new Counter({
		name: 'inflight_limit_rejected_total',
		help: 'Requests rejected, by reason.',
		labelNames: ['limiter', 'reason'] as const,
		registers,
		collect() {
			this.reset()
			for (const limiter of limiters) {
				for (const [reason, count] of Object.entries(limiter.stats().rejected)) {
					this.inc({ limiter: limiter.name, reason }, count)
				}
			}
		},
	})
	const wait = new Histogram({
		name: 'inflight_limit_wait_seconds',
		help: 'How long the admitted waited.',
		labelNames,
		buckets: BUCKETS,
		registers,
	})
	const hold = new Histogram({
		name: 'inflight_limit_hold_seconds',
		help: 'How long permits were held.',
		labelNames,
		buckets: BUCKETS,
		registers,
	})
	const metrics = { limiters, wait, hold }
	return Object.assign(gauges[0] as object, { [METRICS]: metrics })[METRICS]
}
