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

const NOT_CALLED =
	'options must be a capacity or an object of options; got an object: write app.use(limit(3)), not app.use(limit)'
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

test('the middleware of the other framework', async () => {
	expect(await inExpress(express, forKoa.limit(3))).toBe(FOR_KOA)
	expect(await inKoa(forExpress.limit(3))).toBe(FOR_EXPRESS)
})
