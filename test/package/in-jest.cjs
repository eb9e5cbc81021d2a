// @ts-nocheck - as in by-require.cjs; and Jest's globals are Jest's.
// A user's test, for Jest in its ordinary CommonJS mode.
const express = require('express')
const root = require('inflight-limit')
const adaptive = require('inflight-limit/adaptive')
const forExpress = require('inflight-limit/express')
const forKoa = require('inflight-limit/koa')
const Koa = require('koa')
const { use } = require('./use.cjs')

test('the package works under Jest', async () => {
	const { inExpress, inKoa, found } = await use({
		root,
		forExpress,
		forKoa,
		adaptive,
		express,
		Koa,
	})
	expect(inExpress).toEqual({ most: 2, statuses: [200, 200, 200, 200, 200] })
	expect(inKoa).toEqual({ most: 2, statuses: [200, 200, 200, 200, 200] })
	expect(found).toEqual({ most: 2, statuses: [200, 200, 200, 200, 200] })
})

test('a misuse is told with an error of this realm', () => {
	expect(() => forExpress.limit(0)).toThrow(RangeError)
	expect(() => forKoa.limit({ capacity: 3, maxQueu: 1 })).toThrow(TypeError)
})

describe.each([
	['modern', {}],
	[
		'modern, with the clock left alone',
		{ doNotFake: ['performance', 'Date', 'nextTick', 'setImmediate'] },
	],
	['legacy', { legacyFakeTimers: true }],
])('under the fake timers of Jest (%s)', (_name, options) => {
	afterEach(() => jest.useRealTimers())

	test('a wait ends when its time has passed, not before', async () => {
		jest.useFakeTimers(options)
		const semaphore = new root.Semaphore(1)
		const held = await semaphore.acquire()
		let reason = 'none'
		const wait = semaphore.acquire({ maxWait: 3_600_000 }).catch((error) => {
			reason = error.reason
		})
		jest.advanceTimersByTime(3_599_999)
		for (let i = 0; i < 10; i++) await null
		expect(reason).toBe('none')
		jest.advanceTimersByTime(1)
		await wait
		expect(reason).toBe('timeout')
		held.release()
	})

	test('switching them off during a wait rejects nobody', async () => {
		jest.useFakeTimers(options)
		const semaphore = new root.Semaphore(1)
		const held = await semaphore.acquire()
		jest.advanceTimersByTime(3_600_000)
		const wait = semaphore.acquire({ maxWait: 1_000 })
		jest.useRealTimers()
		held.release()
		const { waited } = await wait
		expect(waited).toBeLessThan(1_000)
	})

	test('switching them on during a wait rejects nobody', async () => {
		const semaphore = new root.Semaphore(1)
		const held = await semaphore.acquire()
		const wait = semaphore.acquire({ maxWait: 1_000 })
		jest.useFakeTimers(options)
		jest.advanceTimersByTime(3_600_000)
		held.release()
		const { waited } = await wait
		expect(waited).toBeLessThan(1_000)
	})
})
