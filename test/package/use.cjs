const http = require('node:http')

/**
 * Uses the whole package as a user would: the semaphore, `limit(2)` in an app of each framework,
 * and an adaptive capacity.
 *
 * @param {any} entries - the four entries of the package, and the two frameworks.
 * @returns what each entry exports, and what came of it.
 */
exports.use = async function use({ root, forExpress, forKoa, adaptive, express, Koa }) {
	const semaphore = new root.Semaphore(1)
	const ran = await Promise.all(['a', 'b'].map((name) => semaphore.run(() => name)))
	const names = [root, forExpress, forKoa, adaptive].map((entry) => Object.keys(entry).sort())

	/** @param {unknown} options */
	const fiveInExpress = (options) =>
		five((work) =>
			express().use(
				forExpress.limit(options),
				async (/** @type {unknown} */ _req, /** @type {http.ServerResponse} */ res) => {
					await work()
					res.end('done')
				},
			),
		)
	const inExpress = await fiveInExpress(2)
	const inKoa = await five((/** @type {() => Promise<void>} */ work) =>
		new Koa()
			.use(forKoa.limit(2))
			.use(async (/** @type {any} */ ctx) => {
				await work()
				ctx.body = 'done'
			})
			.callback(),
	)
	const found = await fiveInExpress({ capacity: adaptive.adaptive({ max: 2 }), maxQueue: 5 })
	return { names, ran, inExpress, inKoa, found }
}

/**
 * Sends five requests at once to an app.
 *
 * @param {(work: () => Promise<void>) => http.RequestListener} create - makes the app, with what
 * its handler does.
 * @returns how many were at work at most, and how they were answered.
 */
async function five(create) {
	let atWork = 0
	let most = 0
	const server = http.createServer(
		create(async () => {
			most = Math.max(most, ++atWork)
			// Long enough for the others to come, and to be let in if nothing stops them.
			await new Promise((resolve) => setTimeout(resolve, 100))
			atWork--
		}),
	)
	await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
	const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
	const asked = Array.from({ length: 5 }, () => fetch(`http://127.0.0.1:${port}/`))
	const answers = await Promise.all(asked)
	server.closeAllConnections()
	await new Promise((resolve) => server.close(resolve))
	return { most, statuses: answers.map((answer) => answer.status) }
}
