/**
 * The servers of the benchmark on real sockets.
 *
 * @typedef {object} Kind
 * @property {string} title
 * @property {import('./downstream.js').Knee} downstream
 * @property {boolean} waits whether its handlers wait for the downstream
 * @property {number} cpu what each request computes, in ms
 * @property {number} rate what it can do at most, in requests a second
 * @property {boolean} kept whether its clients use their connections again, or open one for each request, as nginx does
 * unless told otherwise
 */

/** @type {import('./downstream.js').Knee} */
const database = { name: 'database', service: 40, knee: 20, slowdown: (ratio) => 1 + ratio ** 2 }

/** @type {Record<string, Kind>} */
export const kinds = {
	io: {
		title: 'waits for a downstream',
		downstream: database,
		waits: true,
		cpu: 0,
		rate: 250,
		kept: true,
	},
	cpu: {
		title: 'computes, each request on a connection of its own',
		downstream: database,
		waits: false,
		cpu: 10,
		rate: 95,
		kept: false,
	},
	'cpu, kept': {
		title: 'computes, connections kept alive',
		downstream: database,
		waits: false,
		cpu: 10,
		rate: 95,
		kept: true,
	},
	mixed: {
		title: 'computes, then waits',
		downstream: database,
		waits: true,
		cpu: 3,
		rate: 230,
		kept: true,
	},
}
