// What must compile of the entry for a cluster, and what must not.
import { type Limiter, type Permit, RejectedError } from 'inflight-limit'
import {
	type ClusterLimiter,
	type ClusterLimiterOptions,
	clusterLimiter,
} from 'inflight-limit/cluster'
import { dashboard } from 'inflight-limit/dashboard'
import { limit } from 'inflight-limit/express'
import { limitFetch } from 'inflight-limit/fetch'
import { limit as limitKoa } from 'inflight-limit/koa'
import { type Equal, holds } from './equal.js'

const options: ClusterLimiterOptions<{ path: string }> = {
	name: 'renders',
	capacity: 10,
	maxQueue: 500,
	maxWait: undefined,
	primaryTimeout: 500,
	skip: (req) => req.path === '/health',
}
const renders = clusterLimiter(options)
holds<Equal<typeof renders, ClusterLimiter>>()
renders satisfies Pick<Limiter, keyof Limiter>
limit(renders)
limitKoa(renders)
limitFetch(renders)
dashboard({ limiters: [renders] })
export async function use(): Promise<void> {
	const text = await renders.run(async ({ waited }) => `${waited}`, { path: '/' }, {})
	holds<Equal<typeof text, string>>()
	using permit = await renders.acquire({ path: '/' }, { signal: AbortSignal.timeout(1_000) })
	holds<Equal<typeof permit, Permit>>()
	holds<Equal<typeof renders.available, boolean>>()
	renders.resize(3)
	renders.close()
	await renders.onIdle()
	// @ts-expect-error - read-only
	renders.available = true
}
RejectedError.name satisfies string

// @ts-expect-error - no name
clusterLimiter({ capacity: 10 })
// @ts-expect-error - no capacity
clusterLimiter({ name: 'renders' })
// @ts-expect-error - misspelt
clusterLimiter({ name: 'renders', capacity: 10, maxQueu: 3 })
// @ts-expect-error - a capacity is a number
clusterLimiter({ name: 'renders', capacity: () => 3 })
