// `npm start`: ten requests at once on three permits, in Express and in Koa; then a round past the
// bounds of waiting. The exit code is 0 if all promises were kept, and 1 if not.
// `npm start -- --serve` serves instead, until it is stopped.
import { send } from './clients.js'
import { drawLegend, drawPromise, drawRound, drawTitle } from './draw.js'
import { startExpress, startKoa } from './servers.js'

let broken = 0

/** @param {boolean} kept @param {string} text */
function promise(kept, text) {
	if (!kept) broken++
	drawPromise(kept, text)
}

/** @param {number} ms */
function pause(ms) {
	return new Promise((resolve) => setTimeout(resolve, ms))
}

/**
 * @param {string} name
 * @param {number} start
 * @param {import('./clients.js').Answer} answer
 * @param {import('./servers.js').Work} work
 * @returns {import('./draw.js').Story}
 */
function story(name, start, answer, work) {
	const { begun, done } = work.log.get(name) ?? {}
	const since = (/** @type {number | undefined} */ at) =>
		at === undefined ? undefined : at - start
	let outcome = 'left'
	if (answer.status !== undefined) {
		outcome =
			answer.reason === undefined ? String(answer.status) : `${answer.status} ${answer.reason}`
	}
	return {
		name,
		sent: answer.sent - start,
		...withoutUndefined({
			begun: since(begun),
			done: since(done),
			left: since(answer.left),
			answered: since(answer.answered),
		}),
		outcome,
	}
}

/** @param {Record<string, number | undefined>} times */
function withoutUndefined(times) {
	return Object.fromEntries(Object.entries(times).filter(([, at]) => at !== undefined))
}

/**
 * Whether as many new requests as there are permits are admitted at once.
 *
 * @param {import('./servers.js').Running} server
 */
async function allPermitsAreBack(server) {
	const { capacity } = server.limiter
	const fresh = Array.from({ length: capacity }, (_, i) =>
		send(server.port, { name: `fresh${i}`, ms: 20 }),
	)
	await until(() => server.work.atWork === capacity || server.limiter.queued > 0)
	const allIn = server.work.atWork === capacity
	const answers = await Promise.all(fresh)
	await until(() => server.limiter.active === 0)
	return allIn && answers.every(({ status }) => status === 200)
}

/** @param {() => boolean} what */
async function until(what) {
	for (let i = 0; i < 1000 && !what(); i++) await pause(1)
}

/** @param {string} title @param {typeof startExpress} startServer */
async function tenRequests(title, startServer) {
	drawTitle(title)
	const server = await startServer(3)
	const { limiter, work } = server
	const start = performance.now()
	const names = Array.from({ length: 10 }, (_, i) => String(i + 1))
	const sending = []
	for (const [i, name] of names.entries()) {
		sending.push(send(server.port, { name, ms: 250 + 20 * (i % 3) }))
		// All arrive before the first has ended, but in a known order.
		await until(() => limiter.active + limiter.queued === i + 1)
	}
	const answers = await Promise.all(sending)
	await until(() => limiter.active === 0)
	const stories = names.map((name, i) => story(name, start, /** @type {any} */ (answers[i]), work))
	drawRound(stories)
	const { completed, waits } = limiter.stats()
	const longest = Math.round(waits.max)
	console.log(
		`\n    most at work ${work.highest}; completed ${completed}; longest wait ${longest} ms\n`,
	)
	promise(work.highest === 3, 'three were at work at once, and never more')
	promise(
		answers.every(({ status }) => status === 200),
		'all ten were answered',
	)
	promise([...work.log.keys()].join() === names.join(), 'first come, first served')
	promise(await allPermitsAreBack(server), 'all three permits are back')
	await server.stop()
}

/** @param {string} title @param {typeof startExpress} startServer */
async function pastTheBounds(title, startServer) {
	drawTitle(title)
	const server = await startServer({ capacity: 2, maxQueue: 3, maxWait: 700 })
	const { limiter, work } = server
	const start = performance.now()
	/** @type {{ name: string, ms: number, patience?: number }[]} */
	const orders = [
		{ name: 'a', ms: 500 },
		{ name: 'b', ms: 500, patience: 150 },
		{ name: 'c', ms: 500, patience: 150 },
		{ name: 'd', ms: 500 },
		{ name: 'e', ms: 500 },
		{ name: 'f', ms: 500 },
	]
	const sending = []
	for (const order of orders) {
		const before = limiter.active + limiter.queued + limiter.stats().rejected['queue-full']
		sending.push(send(server.port, order))
		await until(
			() => limiter.active + limiter.queued + limiter.stats().rejected['queue-full'] > before,
		)
	}
	// When the client of c has left, its place in the queue is free again.
	await until(() => limiter.stats().rejected.aborted === 1)
	orders.push({ name: 'g', ms: 500 })
	sending.push(send(server.port, { name: 'g', ms: 500 }))
	const answers = await Promise.all(sending)
	await until(() => limiter.active === 0)
	drawRound(orders.map(({ name }, i) => story(name, start, /** @type {any} */ (answers[i]), work)))
	const { rejected, completed, abandoned } = limiter.stats()
	const { 'queue-full': full, timeout, aborted } = rejected
	console.log(
		`\n    most at work ${work.highest}; completed ${completed}, abandoned ${abandoned}, ` +
			`queue-full ${full}, timeout ${timeout}, aborted ${aborted}\n`,
	)
	const [a, b, c, d, e, f, g] = answers
	promise(work.highest === 2, 'two were at work at once, and never more, the work for b included')
	promise(
		!work.log.has('c') && c?.left !== undefined,
		'c, whose client left while it waited, never reached the handler',
	)
	promise(
		b?.left !== undefined && abandoned === 1,
		'b, whose client left while it was at work, held its permit until its end',
	)
	promise(
		f?.status === 503 && f.reason === 'queue-full',
		'with a full queue, the next request was rejected at once (f)',
	)
	promise(g?.status === 503 && g.reason === 'timeout', 'no request waited longer than 700 ms (g)')
	promise(
		Number(f?.retryAfter) >= 1 && Number(g?.retryAfter) >= 1,
		'rejected clients were told when to try again',
	)
	promise(
		[a, d, e].every((answer) => answer?.status === 200),
		'the others were served (a, d, e)',
	)
	promise(await allPermitsAreBack(server), 'both permits are back')
	await server.stop()
}

async function show() {
	drawLegend()
	await tenRequests("Express: app.get('/report', limit(3), …), ten requests at once", startExpress)
	await tenRequests('Koa: app.use(limit(3)), ten requests at once', startKoa)
	await pastTheBounds(
		'Express: limit({ capacity: 2, maxQueue: 3, maxWait: 700 }), past its bounds',
		startExpress,
	)
	await pastTheBounds(
		'Koa: limit({ capacity: 2, maxQueue: 3, maxWait: 700 }), past its bounds',
		startKoa,
	)
	console.log(
		broken === 0 ? '\n    Every promise was kept.\n' : `\n    ${broken} promises were broken.\n`,
	)
	process.exitCode = broken === 0 ? 0 : 1
}

if (process.argv.includes('--serve')) {
	const { serve } = await import('./serve.js')
	serve(Number(process.env.PORT ?? 3000))
} else {
	await show()
}
