import type { IncomingMessage } from 'node:http'
import { describe, expect, test } from 'vitest'
import { requestDeadline } from '../../src/http/deadlines.js'
import { expectNothingLost, request, serve, until, workshop } from '../support/clients.js'
import { frameworks } from '../support/frameworks.js'

/** What the limiter's functions are given: `req`, or `ctx`. */
type Subject = IncomingMessage & { req?: IncomingMessage }

function header(subject: Subject, name: string): string {
	return String((subject.req ?? subject).headers[name] ?? '')
}

const priority = (subject: Subject): number => Number(header(subject, 'x-priority') || 0)
const fairBy = (subject: Subject): string => header(subject, 'x-user')

describe.each(frameworks)('$name', (framework) => {
	test('a request of a higher priority goes first, and has a place in a full queue', async () => {
		const work = workshop()
		await using running = await serve(
			framework,
			{ capacity: 1, maxQueue: 2, priority },
			work.handler,
		)
		const { limiter } = running
		const come = (path: string, value: number) =>
			request(running.port, { path, headers: { 'x-priority': String(value) } })
		const first = come('/first', 0)
		await until(() => limiter.active === 1)
		const low = come('/low', 0)
		await until(() => limiter.queued === 1)
		const lower = come('/lower', -1)
		await until(() => limiter.queued === 2)
		const high = come('/high', 1)
		const evicted = await lower
		expect(evicted.status).toBe(503)
		expect(evicted.headers['retry-after']).toMatch(/^\d+$/)
		expect(JSON.parse(evicted.body)).toMatchObject({
			type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity',
			reason: 'evicted',
		})
		expect(JSON.parse((await come('/lowest', -2)).body)).toMatchObject({ reason: 'queue-full' })
		work.finishAll()
		expect((await Promise.all([first, high, low])).map(({ status }) => status)).toEqual([
			200, 200, 200,
		])
		expect(work.begun).toEqual(['/first', '/high', '/low'])
		await until(() => running.limiter.active + running.limiter.queued === 0)
	})

	test('users have their turns, however many requests one of them sends', async () => {
		const work = workshop()
		await using running = await serve(framework, { capacity: 1, fairBy }, work.handler)
		const { limiter } = running
		const answers: Promise<unknown>[] = []
		for (const path of ['/a1', '/a2', '/a3', '/a4', '/b1', '/b2', '/c1']) {
			answers.push(request(running.port, { path, headers: { 'x-user': path[1] as string } }))
			await until(() => limiter.active + limiter.queued === answers.length)
		}
		work.finishAll()
		await Promise.all(answers)
		expect(work.begun).toEqual(['/a1', '/b1', '/c1', '/a2', '/b2', '/a3', '/a4'])
		await until(() => running.limiter.active + running.limiter.queued === 0)
	})

	test('a request that is late, or becomes so while it waits, is rejected', async () => {
		const work = workshop()
		await using running = await serve(
			framework,
			{ capacity: 1, deadline: requestDeadline as never },
			work.handler,
		)
		const late = { 'x-request-start': `t=${Date.now() / 1000 - 5}`, 'grpc-timeout': '4S' }
		const rejected = await request(running.port, { headers: late })
		expect(JSON.parse(rejected.body)).toMatchObject({ reason: 'timeout' })
		const first = request(running.port, { path: '/first' })
		await until(() => running.limiter.active === 1)
		const waiting = await request(running.port, { headers: { 'grpc-timeout': '30m' } })
		expect(JSON.parse(waiting.body)).toMatchObject({ reason: 'timeout' })
		work.finishAll()
		expect((await first).status).toBe(200)
		expect(work.begun).toEqual(['/first'])
		await until(() => running.limiter.active + running.limiter.queued === 0)
	})

	test.each([
		['priority', () => Number.NaN],
		['fairBy', () => ({})],
		['deadline', () => '12:00'],
	])(
		'%s that returns nonsense fails its own request, in the framework’s error handling',
		async (name, nonsense) => {
			const work = workshop()
			const option = {
				[name]: (subject: Subject) => (header(subject, 'x-bad') ? nonsense() : undefined),
			}
			const sane = name === 'deadline' ? undefined : name === 'priority' ? 0 : ''
			const wrapped = { [name]: (subject: Subject) => option[name]?.(subject) ?? sane }
			await using running = await serve(
				framework,
				{ capacity: 1, ...wrapped } as never,
				work.handler,
			)
			expect((await request(running.port, { headers: { 'x-bad': '1' } })).status).toBe(500)
			expect(work.begun).toEqual([])
			await expectNothingLost(running, work)
		},
	)
})
