// `npm run bench:dashboard`: what the live page costs its server, in percent of a core: sixty
// limiters, twenty open pages. The server is this process; the pages are in another, which only
// reads. Each limiter admits requests all the time, so that each sample differs from the one
// before. In turn with it, the same process with no page open, and with no dashboard at all.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Limiter } from 'inflight-limit'
import { dashboard } from 'inflight-limit/dashboard'
import { median, printMachine } from './harness.js'

const LIMITERS = 60
const PAGES = 20
const ROUNDS = 5
const SECONDS = 10

/** Reads twenty pages, and says when all have begun. @param {number} port */
async function readPages(port) {
	let begun = 0
	for (let i = 0; i < PAGES; i++) {
		http.get({ host: '127.0.0.1', port, path: '/events', agent: false }, (res) => {
			res.once('data', () => {
				if (++begun === PAGES) process.send?.('all are open')
			})
			res.resume()
		})
	}
}

/** The CPU that this process uses in some seconds, in percent of a core. */
async function percent() {
	const before = process.cpuUsage()
	const start = performance.now()
	await sleep(SECONDS * 1000)
	const { user, system } = process.cpuUsage(before)
	return (user + system) / 10 / (performance.now() - start)
}

/** @param {string} what @param {number[]} values */
function print(what, values) {
	const all = values.map((value) => value.toFixed(2)).join('  ')
	console.log(`${what.padEnd(30)}${median(values).toFixed(2)} %   (${all})`)
}

async function measure() {
	printMachine()
	const limiters = Array.from(
		{ length: LIMITERS },
		(_, i) => new Limiter({ capacity: 10, name: `limiter ${i}` }),
	)
	const requests = setInterval(() => {
		for (const [i, limiter] of limiters.entries()) limiter.run(() => sleep(10 * i))
	}, 1000)
	/** @type {{ none: number[], closed: number[], open: number[] }} */
	const cost = { none: [], closed: [], open: [] }
	for (let round = 0; round < ROUNDS; round++) {
		cost.none.push(await percent())
		const page = dashboard({ limiters })
		const server = http.createServer(page).listen(0, '127.0.0.1')
		await once(server, 'listening')
		cost.closed.push(await percent())
		const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
		const child = fork(new URL(import.meta.url), [String(port)])
		await once(child, 'message')
		// The history that a page is sent at first, and the compiler, are not what an open one costs.
		await sleep(3000)
		cost.open.push(await percent())
		child.kill()
		await once(child, 'exit')
		page.close()
		server.close()
	}
	clearInterval(requests)
	print('no dashboard', cost.none)
	print(`${LIMITERS} limiters, no page open`, cost.closed)
	print(`${LIMITERS} limiters, ${PAGES} pages open`, cost.open)
	const pages = median(cost.open.map((open, i) => open - /** @type {number} */ (cost.none[i])))
	console.log(
		`Dashboard and pages cost ${pages.toFixed(2)} % of a core: ${pages < 1 ? 'under' : 'NOT under'} 1 %.`,
	)
}

if (process.argv[2] !== undefined) await readPages(Number(process.argv[2]))
else await measure()
