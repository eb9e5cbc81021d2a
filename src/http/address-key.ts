import { isIP, isIPv4 } from 'node:net'
import { checkNoRequest, checkOptions, checkPrefix } from '../checks.js'

export interface AddressKeyOptions {
	/**
	 * How many bits of an IPv6 address tell clients apart: an integer from 1 to 128. A provider gives
	 * each customer a /64 subnet or a larger one, in which the customer can use any address. Default:
	 * `64`.
	 */
	ipv6Subnet?: number | undefined
}

/** The part that is used of a request of Express or `node:http`, or of the context of Koa. */
export interface AddressedRequest {
	readonly ip?: string | undefined
	readonly socket?: { readonly remoteAddress?: string | undefined } | undefined
}

const OPTIONS = ['ipv6Subnet']

/**
 * The key of all requests whose address is not known: they share one limit, so that none is without
 * a limit.
 */
const UNKNOWN = 'unknown'

/**
 * A function for the option `key` that gives each client address a limit of its own. An IPv4
 * address is its own key; IPv6 addresses of the same subnet share one.
 *
 * ```ts
 * app.set('trust proxy', 1)
 * app.use(limit({ capacity: 5, key: addressKey() }))
 * ```
 *
 * Behind a proxy, all requests come from the address of the proxy, and would share one limit. Tell
 * the framework which proxies to trust, so that it reads the address of the client from
 * `X-Forwarded-For`: in Express `app.set('trust proxy', 1)`, with the number of proxies in front of
 * the server; in Koa `app.proxy = true` and `app.maxIpsCount = 1`. Do not trust more proxies than
 * there are (no `true` in Express): otherwise a client can write any address into the field, and
 * another one for each request.
 *
 * Requests whose address is not known (a Unix socket, a proxy that adds a port to the address)
 * share one key.
 *
 * @throws TypeError, RangeError - `ipv6Subnet` is not an integer from 1 to 128, or there is an
 * unknown option.
 */
export function addressKey(options: AddressKeyOptions = {}): (request: AddressedRequest) => string {
	checkNoRequest('addressKey', options, 'key: addressKey()', 'key: addressKey')
	checkOptions(options, OPTIONS)
	const { ipv6Subnet = 64 } = options
	const bits = checkPrefix('ipv6Subnet', ipv6Subnet)
	return (request) => {
		const address = request.ip ?? request.socket?.remoteAddress ?? ''
		const version = isIP(address)
		if (version === 0) return UNKNOWN
		return version === 4 ? address : subnetOf(address, bits)
	}
}

/** The subnet of an IPv6 address; the IPv4 address, if it is one mapped into IPv6. */
function subnetOf(address: string, bits: number): string {
	const groups = groupsOf(address)
	const [, , , , , mark, high = 0, low = 0] = groups
	if (mark === 0xffff && groups.slice(0, 5).every((group) => group === 0)) {
		return [high >> 8, high & 255, low >> 8, low & 255].join('.')
	}
	const kept = groups.slice(0, Math.ceil(bits / 16))
	const beyond = kept.length * 16 - bits
	kept.push(((kept.pop() ?? 0) >> beyond) << beyond)
	const rest = kept.length < 8 ? '::' : ''
	return `${kept.map((group) => group.toString(16)).join(':')}${rest}/${bits}`
}

/** The eight groups of 16 bits of a valid IPv6 address: RFC 4291, section 2.2. */
function groupsOf(address: string): number[] {
	const [before = [], after] = address.replace(/%.*$/s, '').split('::').map(parse)
	if (after === undefined) return before
	const zeros = Array<number>(8 - before.length - after.length).fill(0)
	return [...before, ...zeros, ...after]
}

function parse(groups: string): number[] {
	if (groups === '') return []
	return groups.split(':').flatMap((group) => {
		if (!isIPv4(group)) return Number.parseInt(group, 16)
		const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number)
		return [a * 256 + b, c * 256 + d]
	})
}
