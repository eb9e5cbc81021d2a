import http from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import Koa from 'koa'
import { expect, test } from 'vitest'
import { addressKey, limit } from '../../adapters/express.js'
import * as forKoa from '../../adapters/koa.js'

test.each([
	['192.0.2.7', '192.0.2.7'],
	['::ffff:192.0.2.7', '192.0.2.7'],
	['::FFFF:C000:0207', '192.0.2.7'],
	['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
	['2001:0DB8:1:2::', '2001:db8:1:2::/64'],
	['2001:db8::1:2:3:4', '2001:db8:0:0::/64'],
	['::1', '0:0:0:0::/64'],
	['::', '0:0:0:0::/64'],
	['64:ff9b::192.0.2.7', '64:ff9b:0:0::/64'],
	['fe80::1%eth0', 'fe80:0:0:0::/64'],
	['not an address', 'unknown'],
	['192.0.2.7:8080', 'unknown'],
	[undefined, 'unknown'],
])('the key of %o is %o', (ip, key) => {
	expect(addressKey()({ ip })).toBe(key)
})

test.each([
	[128, '2001:db8:1:2ff:3:4:5:6/128'],
	[64, '2001:db8:1:2ff::/64'],
	[60, '2001:db8:1:2f0::/60'],
	[56, '2001:db8:1:200::/56'],
	[48, '2001:db8:1::/48'],
	[1, '0::/1'],
])('a subnet of %i bits', (ipv6Subnet, key) => {
	expect(addressKey({ ipv6Subnet })({ ip: '2001:db8:1:2ff:3:4:5:6' })).toBe(key)
})

test.each([0, 129, 64.5, Number.NaN])('a subnet of %o bits is an error', (ipv6Subnet) => {
	expect(() => addressKey({ ipv6Subnet })).toThrow(
		`ipv6Subnet must be an integer from 1 to 128; got ${ipv6Subnet}`,
	)
})

test.each([['64'], [null]])('so is %o', (ipv6Subnet) => {
	expect(() => addressKey({ ipv6Subnet: ipv6Subnet as never })).toThrow(
		/^ipv6Subnet must be an integer/,
	)
	expect(() => addressKey({ subnet: 64 } as never)).toThrow('unknown option "subnet"')
	expect(() => addressKey(64 as never)).toThrow('options must be an object; got 64')
	expect(() => addressKey(null as never)).toThrow('options must be an object; got null')
})

const guard = (): ReturnType<typeof limit> => limit({ capacity: 1, key: addressKey() })
const koaGuard = forKoa.limit({ capacity: 1, key: forKoa.addressKey() })
const koa = new Koa().use(koaGuard).use((ctx) => {
	ctx.body = 'ok'
})
koa.proxy = true
const inExpress = guard()
const trusting = guard()
const plain = guard()

test.each([
	['Express', inExpress, express().use(inExpress, (_req, res) => res.end()), '127.0.0.1'],
	[
		'Express that trusts its proxy',
		trusting,
		express()
			.set('trust proxy', 1)
			.use(trusting, (_req, res) => res.end()),
		'2001:db8:1:2::/64',
	],
	['Koa that trusts its proxy', koaGuard, koa.callback(), '2001:db8:1:2::/64'],
	[
		'node:http',
		plain,
		((req, res) => plain(req, res, () => res.end())) as http.RequestListener,
		'127.0.0.1',
	],
])('it finds the address of a request in %s', async (_name, { limiter }, listener, key) => {
	const keys: unknown[] = []
	limiter.observe({ admitted: (facts) => keys.push(facts.key) })
	const server = http.createServer(listener)
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	const headers = { 'X-Forwarded-For': '2001:db8:1:2:3:4:5:6' }
	await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, { headers })
	server.closeAllConnections()
	server.close()
	expect(keys).toEqual([key])
})
