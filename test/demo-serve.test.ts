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
		for (const [, file] of page.body.matchAll(/(?:src|href)="(page\.\w+)"/g)) {
			expect((await request(port, { path: `/${file}` })).status).toBe(200)
		}

		const set = async (load: object): Promise<object> => {
			const headers = { 'content-type': 'application/json' }
			const body = JSON.stringify(load)
			return JSON.parse((await request(port, { method: 'POST', path: '/load', headers, body })).body)
		}
		/** What the page would show now, of the first limiter. */
		const stats = async (): Promise<{
			capacity: number
			active: number
			queued: number
			admitted: number
		}> => {
			const answer = await fetch(`http://127.0.0.1:${port}/limits/events`)
			let text = ''
			for await (const chunk of answer.body as unknown as AsyncIterable<Uint8Array>) {
				text += Buffer.from(chunk)
				if (text.split('\n\n').length > 2) break
			}
			return JSON.parse(/^data: (\{"limiters":\[\{"row".*)$/m.exec(text)?.[1] ?? '').limiters[0].stats
		}
		expect(await set({ rate: 100, ms: 400, capacity: 2, leave: 0 })).toEqual({
			rate: 100,
			ms: 400,
			capacity: 2,
			leave: 0,
		})
		await vi.waitFor(
			async () => expect(await stats()).toMatchObject({ capacity: 2, active: 2, queued: 40 }),
			{
				timeout: 10_000,
			},
		)
		expect(await set({ rate: 0, ms: 1, capacity: 50, leave: -1 })).toEqual({
			rate: 0,
			ms: 1,
			capacity: 50,
			leave: 0,
		})
		await vi.waitFor(
			async () => expect(await stats()).toMatchObject({ capacity: 50, active: 0, queued: 0 }),
			{
				timeout: 10_000,
			},
		)
	} finally {
		child.kill('SIGKILL')
	}
})
