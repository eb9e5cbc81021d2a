/**
 * The servers of the benchmark on real sockets. `tuned` is a fixed limit at the knee, chosen by hand.
 *
 * @typedef {object} Kind
 * @property {string} title
 * @property {import('./downstream.js').Knee} downstream
 * @property {boolean} waits whether its handlers wait for the downstream
 * @property {number} cpu what each request computes, in ms
 * @property {number} tuned
 * @property {number} rate what it can do at most, in requests a second
 */

/** @type {import('./downstream.js').Knee} */
const database = { name: 'database', service: 40, knee: 20, slowdown: (ratio) => 1 + ratio ** 2 }

/** @type {Record<string, Kind>} */
export const kinds = {
	io: { title: 'waits for a downstream', downstream: database, waits: true, cpu: 0, tuned: 20, rate: 250 },
	cpu: { title: 'computes', downstream: database, waits: false, cpu: 4, tuned: 4, rate: 220 },
	mixed: { title: 'computes, then waits', downstream: database, waits: true, cpu: 4, tuned: 20, rate: 200 },
}
