// What must compile of a limited `fetch`, and what must not, with the global one and one of other
// classes.
import { Limiter } from 'inflight-limit'
import { type FetchContext, type LimitedFetch, limitFetch } from 'inflight-limit/fetch'
import { type Equal, holds } from './equal.js'

const limited = limitFetch(3)
holds<Equal<typeof limited, LimitedFetch<typeof fetch>>>()
holds<Equal<ReturnType<typeof limited>, Promise<Response>>>()
holds<Equal<typeof limited.limiter, Limiter>>()
export const asFetch: typeof fetch = limited
export const page: Promise<Response> = limited(new URL('http://localhost/'), {
	method: 'POST',
	signal: null,
})

limitFetch(new Limiter(3), { unreadTimeout: 5_000 })
limitFetch({
	capacity: 3,
	maxQueue: 10,
	maxWait: 1_000,
	name: 'partner',
	key: ({ url }) => url.origin,
	weight: ({ init }) => (init?.method === 'POST' ? 2 : 1),
	priority(call) {
		holds<Equal<typeof call, FetchContext>>()
		holds<Equal<typeof call.url, URL>>()
		return 1
	},
})

// As that of undici, which has classes of its own.
declare class TheirRequest {
	url: string
}
declare class TheirResponse {
	status: number
	body: unknown
	theirs: true
}
declare function theirFetch(
	input: string | TheirRequest,
	init?: { dispatcher?: object },
): Promise<TheirResponse>

const theirs = limitFetch(
	{ capacity: 3, key: ({ input }) => (input as TheirRequest).url },
	{ fetch: theirFetch },
)
holds<Equal<ReturnType<typeof theirs>, Promise<TheirResponse>>>()
holds<Equal<typeof theirs, LimitedFetch<typeof theirFetch>>>()

const own = limitFetch(1, { fetch: async (path: string) => new Response(path) })
holds<Equal<Parameters<typeof own>, [path: string]>>()

// @ts-expect-error - an answer is nothing that `fetch` gives
limitFetch({ capacity: 3, statusCode: 503 })
// @ts-expect-error
limitFetch({ maxQueue: 3 })
// @ts-expect-error
limitFetch(3, { timeout: 1 })
// @ts-expect-error
limitFetch(3, { fetch: (path: string) => path })
// @ts-expect-error
limited(3)
// @ts-expect-error
limitFetch({ capacity: 3, key: ({ path }) => path })
