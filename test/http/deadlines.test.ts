import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { requestDeadline, requestStart } from '../../src/http/deadlines.js'

/** 2023-11-14, 22:13:20 UTC. */
const NOW = 1_700_000_000_000

beforeEach(() => {
	vi.useFakeTimers({ now: NOW })
})

afterEach(() => {
	vi.useRealTimers()
})

function start(value: string): number {
	return NOW - requestStart({ headers: { 'x-request-start': value } })
}

function timeLeft(headers: Record<string, string>): number | undefined {
	const deadline = requestDeadline({ headers })
	return deadline === undefined ? undefined : deadline - NOW
}

describe('requestStart', () => {
	test.each([
		['nginx', 't=1699999999.500', 500],
		['Apache', 't=1699999999500000', 500],
		['Heroku', '1699999999500', 500],
		['seconds', '1699999999', 1_000],
		['seconds with a fraction', '1699999999.5', 500],
		['milliseconds', 't=1699999999000', 1_000],
		['nanoseconds', '1699999999500000000', 500],
		['spaces around it', ' t=1699999999.5 ', 500],
	])('reads what %s sends', (_name, value, ago) => {
		expect(start(value)).toBeCloseTo(ago, 3)
	})

	test.each([
		'',
		't=',
		'0',
		'0000000000',
		'-1699999999',
		'1e300',
		'0x6553f1007f',
		'Infinity',
		'NaN',
		't=1699999999.500, t=1699999998.500',
		`${'9'.repeat(20_000)}`,
		'1700000001000',
		'1699990000000',
		'2023-11-14T22:13:19Z',
		't=1699999999.',
	])('is now for %j', (value) => {
		expect(start(value)).toBe(0)
	})

	test('is now without the header, and reads X-Queue-Start too', () => {
		expect(requestStart({ headers: {} })).toBe(NOW)
		expect(requestStart({ headers: { 'x-queue-start': 't=1699999999000' } })).toBe(NOW - 1_000)
	})

	test.each(['x', '1700000001000', ''])(
		'reads X-Queue-Start where X-Request-Start is %j',
		(junk) => {
			const headers = { 'x-request-start': junk, 'x-queue-start': 't=1699999999000' }
			expect(requestStart({ headers })).toBe(NOW - 1_000)
		},
	)

	test('reads Koa’s context', () => {
		expect(requestStart({ req: { headers: { 'x-request-start': '1699999999000' } } })).toBe(
			NOW - 1_000,
		)
	})
})

describe('requestDeadline', () => {
	test.each([
		[{ 'grpc-timeout': '250m' }, 250],
		[{ 'grpc-timeout': '2S' }, 2_000],
		[{ 'grpc-timeout': '1M' }, 60_000],
		[{ 'grpc-timeout': '1H' }, 3_600_000],
		[{ 'grpc-timeout': '5000u' }, 5],
		[{ 'grpc-timeout': '7000000n' }, 7],
		[{ 'x-envoy-expected-rq-timeout-ms': '15000' }, 15_000],
		[{ prefer: 'wait=10' }, 10_000],
		[{ prefer: 'respond-async, WAIT = 3' }, 3_000],
		[{ prefer: 'wait="4"; x=1, return=minimal' }, 4_000],
		[{ prefer: 'wait=10', 'grpc-timeout': '250m', 'x-envoy-expected-rq-timeout-ms': '300' }, 250],
	])('%o', (headers, left) => {
		expect(timeLeft(headers as Record<string, string>)).toBe(left)
	})

	test('is counted from when the first proxy received the request', () => {
		expect(timeLeft({ 'grpc-timeout': '2S', 'x-request-start': 't=1699999999.5' })).toBe(1_500)
	})

	test.each([
		{},
		{ 'grpc-timeout': '0m' },
		{ 'grpc-timeout': '-5S' },
		{ 'grpc-timeout': '999999999S' },
		{ 'grpc-timeout': '5' },
		{ 'grpc-timeout': '5x' },
		{ 'x-envoy-expected-rq-timeout-ms': '0' },
		{ 'x-envoy-expected-rq-timeout-ms': '1.5' },
		{ 'x-envoy-expected-rq-timeout-ms': '9'.repeat(400) },
		{ prefer: 'wait' },
		{ prefer: 'wait=0' },
		{ prefer: 'wait=soon' },
		{ prefer: 'await=5' },
		{ prefer: `${', '.repeat(8_000)}wait` },
	])('is undefined for %o', (headers) => {
		expect(timeLeft(headers as Record<string, string>)).toBe(undefined)
	})
})
