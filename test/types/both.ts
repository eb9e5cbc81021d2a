// One limiter in an Express and a Koa app.
import express from 'express'
import { type admission, Limiter } from 'inflight-limit'
import * as forExpress from 'inflight-limit/express'
import * as forKoa from 'inflight-limit/koa'
import Koa from 'koa'
import { type Equal, holds } from './equal.js'

const limiter = new Limiter(3)
express().use(forExpress.limit(limiter))
new Koa().use(forKoa.limit(limiter))
express().use(forExpress.limit(forKoa.limit(3).limiter))
new Koa().use(forKoa.limit(forExpress.limit(3).limiter))

// The entries name the same things.
holds<Equal<Limiter, forExpress.Limiter>>()
holds<Equal<Limiter, forKoa.Limiter>>()
holds<Equal<typeof admission, typeof forExpress.admission>>()
holds<Equal<typeof admission, typeof forKoa.admission>>()

// @ts-expect-error - Koa's middleware is not Express's
express().use(forKoa.limit(3))
// @ts-expect-error - Express's middleware is not Koa's
new Koa().use(forExpress.limit(3))
