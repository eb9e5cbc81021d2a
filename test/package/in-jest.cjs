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
	const { inExpress, inKoa, found } = await use({ root, forExpress, forKoa, adaptive, express, Koa })
	expect(inExpress).toEqual({ most: 2, statuses: [200, 200, 200, 200, 200] })
	expect(inKoa).toEqual({ most: 2, statuses: [200, 200, 200, 200, 200] })
	expect(found).toEqual({ most: 2, statuses: [200, 200, 200, 200, 200] })
})

test('a misuse is told with an error of this realm', () => {
	expect(() => forExpress.limit(0)).toThrow(RangeError)
	expect(() => forKoa.limit({ capacity: 3, maxQueu: 1 })).toThrow(TypeError)
})
