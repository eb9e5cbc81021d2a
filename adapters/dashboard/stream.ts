import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { hostname } from 'node:os'
import { performance } from 'node:perf_hooks'
import type { SharedLimiter } from '../../src/http/setup.js'
import { version } from './assets.js'
import { FIELDS, INTERVAL, KEPT, Samples } from './samples.js'

/** Samples that a new page is sent first, so that it shows something soon: those of a minute. */
const FIRST = 61

/**
 * A page that has not read this many messages in a row is cut off. The browser then connects again.
 */
const PATIENCE = 10

/** An open page: its stream of events, and how many messages it has not read in time. */
interface Reader {
	res: ServerResponse
	behind: number
}

export interface Stream {
	/** Answers with a stream of events. */
	open(res: ServerResponse, headers: Record<string, string>): void
	close(): void
}

/** Takes a sample of each limiter once a second, and sends them to all open pages. */
export function createStream(
	limiters: readonly SharedLimiter[],
	keys: boolean,
	maxPages: number,
): Stream {
	const samples = limiters.map((limiter) => new Samples(limiter, keys))
	const readers = new Set<Reader>()
	/**
	 * Of all samples that are kept: their times, and how busy the event loop was since the one
	 * before.
	 */
	const times: number[] = []
	const busy: number[] = []
	let loop = performance.eventLoopUtilization()
	let closed = false
	// A page tells by this whether it is still the same process that answers.
	const identity = JSON.stringify({
		id: randomUUID(),
		host: hostname(),
		pid: process.pid,
		node: process.version,
		version,
		since: Math.round(Date.now() - process.uptime() * 1000),
	})

	/** Takes a sample of each limiter. @returns them as JSON. */
	function takeSamples(): string {
		const time = Date.now()
		const now = performance.eventLoopUtilization()
		const { utilization } = performance.eventLoopUtilization(now, loop)
		loop = now
		times.push(time)
		busy.push(Math.round(utilization * 1000) / 1000)
		if (times.length > KEPT) {
			times.shift()
			busy.shift()
		}
		return `{"time":${time},"busy":${busy.at(-1)},"limiters":[${samples.map((each) => each.take()).join()}]}`
	}

	/** Samples that are kept, for a page that was just opened. */
	function history(from: number, to: number, head: boolean): string {
		const rows = samples.map(
			(each) => `{${head ? `${each.head},` : ''}"rows":${each.rows(from, to)}}`,
		)
		return `"times":${JSON.stringify(times.slice(from, to))},"busy":${JSON.stringify(busy.slice(from, to))},"limiters":[${rows.join()}]`
	}

	takeSamples()
	// One timer for all pages. It also runs while no page is open, as a page is usually opened after
	// something went wrong.
	const timer = setInterval(() => {
		const message = Buffer.from(`data: ${takeSamples()}\n\n`)
		for (const reader of readers) {
			if (!reader.res.write(message)) reader.behind++
			if (reader.behind > PATIENCE) {
				readers.delete(reader)
				reader.res.destroy()
			}
		}
		// The server is being shut down, and would wait for the pages.
		if (over()) end()
	}, INTERVAL).unref()

	/** With another status than 200, `EventSource` would hide the reason from the page. */
	function rejection(reason: string): string {
		return `retry: 10000\nevent: rejected\ndata: ${JSON.stringify({ reason })}\n\n`
	}

	/** Whether all limiters are closed. */
	function over(): boolean {
		return samples.length > 0 && samples.every((each) => each.closed)
	}

	/** Why no page may be opened now. */
	function reasonToReject(): string | undefined {
		if (closed) return 'The page is closed.'
		if (over()) return 'All limiters are closed.'
		return readers.size >= maxPages ? `${maxPages} pages are open, which is the most.` : undefined
	}

	function end(): void {
		const ended = Array.from(readers, ({ res }) => res)
		if (ended.length === 0) return
		readers.clear()
		for (const res of ended) res.end(rejection(reasonToReject() as string))
		// A page that does not read would never be at its end, and the server would wait for it.
		setTimeout(() => {
			for (const res of ended) res.destroy()
		}, INTERVAL).unref()
	}

	function open(res: ServerResponse, headers: Record<string, string>): void {
		// Else a server that is being closed would wait until the connection has been idle for long.
		res.shouldKeepAlive = false
		res.writeHead(200, {
			...headers,
			'Content-Type': 'text/event-stream',
			'Cache-Control': 'no-store, no-transform',
			'X-Accel-Buffering': 'no',
		})
		const reason = reasonToReject()
		if (reason !== undefined) {
			res.end(rejection(reason))
			return
		}
		const reader = { res, behind: 0 }
		readers.add(reader)
		res.on('close', () => readers.delete(reader))
		res.on('drain', () => {
			reader.behind = 0
		})
		// The client can leave during a write.
		res.on('error', () => readers.delete(reader))
		const first = Math.max(0, times.length - FIRST)
		const begin = `{"process":${identity},"fields":${JSON.stringify(FIELDS)},"keys":${keys},${history(first, times.length, true)}}`
		res.write(`retry: 2000\nevent: begin\ndata: ${begin}\n\n`)
		// It is long. What is now goes out first, which happens at the end of this turn.
		if (first > 0) {
			setImmediate(() => {
				if (readers.has(reader))
					res.write(`event: earlier\ndata: {${history(0, first, false)}}\n\n`)
			})
		}
	}

	function close(): void {
		closed = true
		clearInterval(timer)
		for (const each of samples) each.close()
		end()
	}
	return { open, close }
}
