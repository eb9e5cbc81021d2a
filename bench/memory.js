// Prints how many bytes of heap one waiter of a package takes: node --expose-gc bench/memory.js
// <package> [signal]
import { packages } from './semaphores.js'

const WAITERS = 100_000
const [name, withSignal] = process.argv.slice(2)
const { wait } = packages.find((each) => each.name === name)?.make(1) ?? {}
if (wait === undefined || globalThis.gc === undefined)
	throw new Error(`nothing to measure for ${name}`)
const { gc } = globalThis

await wait()
// A few first, so that what is made once is not counted.
const promises = Array.from({ length: 1000 }, () => wait())
const aborters = withSignal ? Array.from({ length: WAITERS }, () => new AbortController()) : []
for (const { signal } of aborters) signal.addEventListener('abort', () => {})

async function used() {
	for (let i = 0; i < 5; i++) {
		await new Promise(setImmediate)
		gc()
	}
	return process.memoryUsage().heapUsed
}

const before = await used()
for (let i = 0; i < WAITERS; i++) promises.push(wait(aborters[i]?.signal))
const after = await used()
// An entry of the array that keeps the promises is not the package's.
console.log((after - before) / WAITERS - 8)
if (promises.length !== WAITERS + 1000) throw new Error('what was measured must be alive')
