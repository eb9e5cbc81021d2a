// What must compile with the page in `node:http`, and beside any framework, and what must not.
import http from 'node:http'
import { Limiter } from 'inflight-limit'
import {
	type Dashboard,
	type DashboardOptions,
	dashboard,
	dashboardKoa,
	type KoaDashboard,
} from 'inflight-limit/dashboard'
import { limit } from 'inflight-limit/express'
import { type Equal, holds } from './equal.js'

const limiters = [new Limiter(3), limit(3).limiter]
const page = dashboard({ limiters, path: '/limits', keys: true, maxPages: 3 })
holds<Equal<typeof page, Dashboard>>()
http.createServer((req, res) => page(req, res, () => res.end()))
http.createServer(page)
page.close()
const options: DashboardOptions = {
	limiters,
	path: undefined,
	keys: undefined,
	maxPages: undefined,
}
holds<Equal<ReturnType<typeof dashboardKoa>, KoaDashboard>>()
dashboardKoa(options).close()

// @ts-expect-error - limiters are required
dashboard({})
// @ts-expect-error - the limiter of a middleware is its .limiter
dashboard({ limiters: [limit(3)] })
// @ts-expect-error - misspelt
dashboard({ limiters, key: true })
// @ts-expect-error - a path is a string
dashboard({ limiters, path: /limits/ })
