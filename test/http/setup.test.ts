import http, { type RequestListener } from 'node:http'
import express from 'express'
import express4 from 'express4'
import Koa from 'koa'
import request from 'supertest'
import { expect, test, vi } from 'vitest'
import * as forExpress from '../../adapters/express.js'
import * as forKoa from '../../adapters/koa.js'

/*
 * Mistakes that only show when a request comes: each answer is an error that says what to write.
 * They are in JavaScript, or in the imports that an editor adds.
 */

/** @returns what the framework is given, for the first request. */
async function failure(use: (report: (error: Error) => void) => RequestListener): Promise<string> {
	let message = ''
	const listener = use((error) => {
		message = error.message
	})
	await request(http.createServer(listener)).get('/').expect(500)
	return message
}

function inExpress(create: typeof express, middleware: unknown): Promise<string> {
	return failure((report) => {
		const app = create().use(middleware as express.RequestHandler)
		return app.use(((error, _req, res, _next) => {
			report(error)
			res.sendStatus(500)
		}) as express.ErrorRequestHandler)
	})
}

function inKoa(middleware: unknown): Promise<string> {
	return failure((report) => {
		const app = new Koa().use(middleware as Koa.Middleware)
		app.on('error', report)
		return app.callback()
	})
}

const NOT_CALLED = 'limit was called with a request: write app.use(limit(3)), not app.use(limit)'
const FOR_EXPRESS = 'this middleware is for Express: import limit from inflight-limit/koa'
const FOR_KOA = 'this middleware is for Koa: import limit from inflight-limit/express'

test.each([
	['Express 5', express],
	['Express 4', express4 as unknown as typeof express],
])('%s: the function in place of the middleware', async (_name, create) => {
	expect(await inExpress(create, forExpress.limit)).toBe(NOT_CALLED)
})

test('Koa: the function in place of the middleware', async () => {
	vi.spyOn(console, 'error').mockImplementation(() => {})
	expect(await inKoa(forKoa.limit)).toBe(NOT_CALLED)
})

test.each([
	['Express', forExpress.limit],
	['Koa', forKoa.limit],
])('%s: options in a second argument', (_name, limit) => {
	const mistaken = limit as (...args: unknown[]) => unknown
	const message = 'limit takes one argument: write limit({ capacity: 3, maxQueue: 10 })'
	expect(() => mistaken(3, { maxQueue: 2 })).toThrow(message)
	expect(() => mistaken(new forExpress.Limiter(3), { maxQueue: 2 })).toThrow(message)
	expect([2, 3].map(mistaken)).toHaveLength(2)
})

test('the function in place of the key function', async () => {
	const message =
		'addressKey was called with a request: write key: addressKey(), not key: addressKey'
	const key = forExpress.addressKey as unknown as () => string
	expect(await inExpress(express, forExpress.limit({ capacity: 3, key }))).toBe(message)
	expect(await inKoa(forKoa.limit({ capacity: 3, key }))).toBe(message)
})

test('the middleware of the other framework', async () => {
	expect(await inExpress(express, forKoa.limit(3))).toBe(FOR_KOA)
	expect(await inKoa(forExpress.limit(3))).toBe(FOR_EXPRESS)
})

test.each([undefined, null, 3])('the admission of %s', (request) => {
	expect(() => forExpress.admission(request as never)).toThrow(
		'request must be a request, or the context of Koa',
	)
})
