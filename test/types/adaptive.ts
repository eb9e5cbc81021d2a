// What must compile of adaptive capacity, and what must not, with no framework's types at hand.
import { type Controller, type ControllerFactory, Limiter, type Sample } from 'inflight-limit'
import { type AdaptiveOptions, type AimdOptions, adaptive, aimd } from 'inflight-limit/adaptive'
import { type Equal, holds } from './equal.js'

const options: AdaptiveOptions = { min: 1, max: 10, initial: undefined }
const bounds: AimdOptions = { latency: 100, errors: false }
holds<Equal<ReturnType<typeof adaptive>, ControllerFactory>>()

export const limiters: Limiter[] = [
	new Limiter({ capacity: adaptive(options) }),
	new Limiter({ capacity: aimd(bounds), key: () => 'a' }),
	new Limiter({
		capacity: { newController: () => ({ initial: 1, sample: ({ held }) => (held > 10 ? 1 : 2) }) },
	}),
	new Limiter({ capacity: (key) => key.length, key: () => 'a' }),
]

export const controller: Controller = {
	initial: 3,
	max: 5,
	eventLoop: true,
	sample: (_sample: Sample) => 4,
}

// @ts-expect-error - a controller, not what makes one
new Limiter({ capacity: controller })
// @ts-expect-error - it was not called
new Limiter({ capacity: adaptive, key: () => 'a' })
// @ts-expect-error - it has the key, not the request
new Limiter({ capacity: (request: { url: string }) => request.url.length, key: () => 'a' })
// @ts-expect-error
adaptive({ most: 3 })
// @ts-expect-error
aimd({ latency: '100' })
