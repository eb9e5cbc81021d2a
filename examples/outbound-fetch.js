// Twelve pages have to be fetched, and the partner allows three connections. The permit must be
// held until the body has been read: a semaphore around `fetch` alone gives it back when the
// headers are there.
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Semaphore } from 'inflight-limit'
import { limitFetch } from 'inflight-limit/fetch'

const LIMIT = 3

// The partner: sends its headers at once and its body in 50 ms, and counts the responses that are
// open.
let open = 0
let highest = 0
const partner = http.createServer(async (_req, res) => {
	highest = Math.max(highest, ++open)
	res.flushHeaders()
	await sleep(50)
	open--
	res.end('a page')
})
await new Promise((resolve) => partner.listen(0, '127.0.0.1', () => resolve(undefined)))
const { port } = /** @type {import('node:net').AddressInfo} */ (partner.address())
const urls = Array.from({ length: 12 }, (_, i) => `http://127.0.0.1:${port}/${i}`)

const connections = new Semaphore(LIMIT)
const limitedFetch = limitFetch(LIMIT)

for (const [name, get] of /** @type {[string, (url: string) => Promise<Response>][]} */ ([
	['semaphore around fetch', (url) => connections.run(() => fetch(url))],
	['limitFetch', (url) => limitedFetch(url)],
])) {
	highest = 0
	await Promise.all(urls.map(async (url) => (await get(url)).text()))
	console.log(`${name}: highest ${highest} of ${LIMIT}`)
}

partner.close()
partner.closeAllConnections()
