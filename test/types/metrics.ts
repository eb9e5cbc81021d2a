// What must compile beside prom-client and the API of OpenTelemetry, and what must not.
import { metrics } from '@opentelemetry/api'
import { Limiter } from 'inflight-limit'
import { limit } from 'inflight-limit/express'
import { type OpenTelemetryOptions, openTelemetryMetrics } from 'inflight-limit/opentelemetry'
import { type PrometheusOptions, prometheusMetrics } from 'inflight-limit/prometheus'
import { type OpenMetricsContentType, Registry, register } from 'prom-client'
import { type Equal, holds } from './equal.js'

const limiters = [new Limiter(3), limit(3).limiter]
const end = prometheusMetrics({ limiters })
holds<Equal<typeof end, () => void>>()
prometheusMetrics({ limiters, registry: register })
prometheusMetrics({ limiters, registry: new Registry<OpenMetricsContentType>() })
const options: PrometheusOptions = { limiters, registry: undefined }
prometheusMetrics(options)
openTelemetryMetrics({ limiters })
openTelemetryMetrics({ limiters, meterProvider: metrics.getMeterProvider() })
const others: OpenTelemetryOptions = { limiters, meterProvider: undefined }
openTelemetryMetrics(others)

// @ts-expect-error - limiters are required
prometheusMetrics()
// @ts-expect-error - limiters are required
prometheusMetrics({})
// @ts-expect-error - the limiter of a middleware is its .limiter
prometheusMetrics({ limiters: [limit(3)] })
// @ts-expect-error - not a registry
prometheusMetrics({ limiters, registry: new Map() })
// @ts-expect-error - misspelt
openTelemetryMetrics({ limiters, meter: undefined })
// @ts-expect-error - not a provider
openTelemetryMetrics({ limiters, meterProvider: {} })
