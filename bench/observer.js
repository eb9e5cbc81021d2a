// `npm run bench:observer [path]`: what the seam for observers costs the way of a request that
// finds room. `path`: the dist/esm of a build to compare with, such as one of the commit before the
// seam.
import { pathToFileURL } from 'node:url'
import { compare, printMachine } from './harness.js'

const OPERATIONS = 200_000
const signal = { aborted: false, addEventListener() {}, removeEventListener() {} }
const enter = Symbol.for('inflight-limit.enter')

/** @param {string | undefined} path */
async function load(path) {
	const url = path === undefined ? 'inflight-limit' : pathToFileURL(`${path}/src/index.js`).href
	return (await import(url)).Limiter
}

/** Admissions and releases, nothing else. @param {string} name @param {any} limiter */
function alternative(name, limiter) {
	return {
		name,
		run() {
			for (let i = 0; i < OPERATIONS; i++) limiter[enter](signal, signal).leave('ok')
		},
	}
}

printMachine()
const other = process.argv[2]
const Limiter = await load(undefined)
const observed = new Limiter(10)
observed.observe({ admitted() {}, released() {} })
const first = other === undefined ? [] : [alternative('that build', new (await load(other))(10))]
await compare(
	'an admission and its release, with room',
	[
		...first,
		alternative('without an observer', new Limiter(10)),
		alternative('again (the noise)', new Limiter(10)),
		alternative('with one that does nothing', observed),
	],
	{ rounds: 41, operations: OPERATIONS },
)
