/** An answer as it came over the wire. */
export interface WireAnswer {
	status: number
	headers: Record<string, string>
	body: string
	/**
	 * All of it is there, by its own framing: its length, its last chunk, or the end of the
	 * connection.
	 */
	complete: boolean
	/** Nothing comes behind it on its connection. */
	last: boolean
}

/**
 * The answers in what a client of HTTP/1 was sent, in latin1; an unfinished head is none yet. No
 * answer to `HEAD`, and no 1xx.
 *
 * @param ended - the connection has ended, which completes a body without a length.
 * @throws Error - the bytes are no answers.
 */
export function answersIn(text: string, ended: boolean): WireAnswer[] {
	const answers: WireAnswer[] = []
	let at = 0
	while (at < text.length) {
		const headEnd = text.indexOf('\r\n\r\n', at)
		if (headEnd < 0) break
		const [first = '', ...lines] = text.slice(at, headEnd).split('\r\n')
		const [, minor, code] = /^HTTP\/1\.([01]) (\d{3}) /.exec(first) ?? []
		if (code === undefined)
			throw new Error(`not an answer: ${JSON.stringify(text.slice(at, at + 60))}`)
		const headers: Record<string, string> = {}
		for (const line of lines) {
			const colon = line.indexOf(':')
			headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
		}
		const status = Number(code)
		const { body, complete, next, framed } = bodyAt(text, headEnd + 4, status, headers, ended)
		const connection = headers.connection?.toLowerCase()
		const closes = minor === '1' ? connection === 'close' : connection !== 'keep-alive'
		answers.push({ status, headers, body, complete, last: closes || !framed })
		if (!complete) break
		at = next
	}
	return answers
}

function bodyAt(
	text: string,
	from: number,
	status: number,
	headers: Record<string, string>,
	ended: boolean,
): { body: string; complete: boolean; next: number; framed: boolean } {
	if (status === 204 || status === 304)
		return { body: '', complete: true, next: from, framed: true }
	if (headers['transfer-encoding'] === 'chunked') {
		let at = from
		let body = ''
		for (;;) {
			const lineEnd = text.indexOf('\r\n', at)
			const size = lineEnd < 0 ? Number.NaN : Number.parseInt(text.slice(at, lineEnd), 16)
			if (Number.isNaN(size) || text.length < lineEnd + 2 + size + 2) {
				return { body, complete: false, next: at, framed: true }
			}
			body += text.slice(lineEnd + 2, lineEnd + 2 + size)
			at = lineEnd + 2 + size + 2
			if (size === 0) return { body, complete: true, next: at, framed: true }
		}
	}
	const length = headers['content-length']
	if (length === undefined) {
		return { body: text.slice(from), complete: ended, next: text.length, framed: false }
	}
	const next = from + Number(length)
	return { body: text.slice(from, next), complete: text.length >= next, next, framed: true }
}
