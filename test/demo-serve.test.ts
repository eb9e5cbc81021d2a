import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test, vi } from 'vitest'
import { request, until } from './support/clients.js'

test('npm start -- --serve keeps a server running with the page, and a load that is turned up and down', async () => {
	const child = spawn(process.execPath, ['demo/index.js', '--serve'], {
		cwd: fileURLToPath(new URL('..', import.meta.url)),
		env: { ...process.env, PORT: '0' },
		stdio: ['ignore', 'pipe', 'inherit'],
	})
	try {
		let output = ''
		child.stdout.on('data', (chunk) => {
			output += chunk
		})
		await until(() => output.includes('Ctrl-C'))
		const [control, limits] = Array.from(output.matchAll(/http:\/\/\S+/g), ([url]) => new URL(url))
		const port = Number(control?.port)
		expect(limits?.pathname).toBe('/limits/')
		expect((await request(port, { path: '/limits/' })).body).toContain('<title>Limits</title>')
		const page = await request(port)
		expect(page.body).toContain('href="limits/"')
		for (const file of ['page.js', 'page.css', 'uplot.js', 'uplot.css']) {
			expect(page.body + (await request(port, { path: '/page.js' })).body).toContain(file)
			expect((await request(port, { path: `/${file}` })).status).toBe(200)
		}

		const post = async (path: string, body: object): Promise<{ status: number; body: string }> => {
			const headers = { 'content-type': 'application/json' }
			return request(port, { method: 'POST', path, headers, body: JSON.stringify(body) })
		}
		const set = async (load: object): Promise<object> =>
			JSON.parse((await post('/load', load)).body).load
		/** What the page shows next of each server. */
		const figures = async (): Promise<{
			playing: string | null
			lanes: Record<string, unknown>[]
		}> => {
			const answer = await fetch(`http://127.0.0.1:${port}/figures`)
			let text = ''
			for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
				text += Buffer.from(chunk)
				if (text.includes('\n\n')) break
			}
			return JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? '')
		}
		const soon = { timeout: 15_000 }
		const first = await figures()
		expect(first.lanes.map(({ name, capacity }) => [name, capacity === null])).toEqual([
			['without a limiter', true],
			['express-queue', true],
			['inflight-limit, fixed', false],
			['inflight-limit, adaptive', false],
		])

		expect(await set({ rate: 60, ms: 400, capacity: 2, patience: 9000 })).toEqual({
			rate: 60,
			ms: 400,
			capacity: 2,
			patience: 9000,
		})
		await vi.waitFor(async () => {
			const { lanes } = await figures()
			expect(lanes[2]).toMatchObject({ capacity: 2, atWork: 2, rejected: expect.any(Number) })
			expect(Number(lanes[2]?.rejected)).toBeGreaterThan(10)
			// Without a limit, the database has all of them.
			expect(Number(lanes[0]?.atWork)).toBeGreaterThan(20)
		}, soon)
		expect(await set({ rate: 0, ms: 1, capacity: 50, patience: -1 })).toMatchObject({
			rate: 0,
			patience: 9000,
		})

		expect((await post('/scenario/slow', {})).status).toBe(204)
		expect((await post('/scenario/other', {})).status).toBe(404)
		expect((await figures()).playing).toBe('slow')
		expect((await post('/scenario/restart', {})).status).toBe(204)
		await vi.waitFor(async () => {
			const { lanes } = await figures()
			expect(lanes.map(({ atWork }) => atWork)).toEqual([0, 0, 0, 0])
			expect(lanes[2]).toMatchObject({ capacity: 50, queued: 0 })
		}, soon)
		expect((await request(port, { path: '/limits/' })).status).toBe(200)
	} finally {
		child.kill('SIGKILL')
	}
})
