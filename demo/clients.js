import http from 'node:http'

/**
 * @typedef {object} Answer
 * @property {number} sent
 * @property {number} [answered]
 * @property {number} [left]
 * @property {number} [status]
 * @property {string} [reason] of a rejection
 * @property {string | undefined} [retryAfter]
 */

/**
 * Sends one request on a connection of its own.
 *
 * @param {number} port
 * @param {{ name: string, ms: number, patience?: number }} order - `patience`: after how many ms
 * the client leaves
 * @returns {Promise<Answer>}
 */
export function send(port, { name, ms, patience }) {
	const sent = performance.now()
	return new Promise((resolve, reject) => {
		const path = `/report?name=${name}&ms=${ms}`
		const request = http.get({ host: '127.0.0.1', port, path, agent: false }, async (response) => {
			let body = ''
			for await (const chunk of response) body += chunk
			const status = response.statusCode ?? 0
			const reason = status === 200 ? undefined : JSON.parse(body).reason
			resolve({
				sent,
				answered: performance.now(),
				status,
				reason,
				retryAfter: response.headers['retry-after'],
			})
		})
		let left = false
		request.on('error', (error) => {
			if (left) resolve({ sent, left: performance.now() })
			else reject(error)
		})
		if (patience !== undefined) {
			setTimeout(() => {
				left = true
				request.destroy()
			}, patience)
		}
	})
}
