import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

function run(folder: string): Promise<{ status: number; output: string }> {
	return new Promise((resolve) => {
		execFile(
			process.execPath,
			['demo/index.js'],
			{ cwd: folder, timeout: 30_000 },
			(error, output) => {
				resolve({ status: error === null ? 0 : Number(error.code), output })
			},
		)
	})
}

test('the demo draws what happened, keeps every promise, and ends with status 0', {
	timeout: 40_000,
}, async () => {
	const { status, output } = await run(root)
	expect(output).not.toContain('BROKEN')
	expect(output).toContain('Every promise was kept.')
	expect(status).toBe(0)
	expect(output.match(/^ {1,2}\d{1,2} [ ·█]+ +\d+ +\d+ {2}200$/gm)?.length).toBe(20)
	expect(output.match(/503 queue-full$/gm)?.length).toBe(2)
	expect(output.match(/503 timeout$/gm)?.length).toBe(2)
	expect(output.match(/×░+/g)?.length).toBe(2)
	// Without a terminal there is no colour; and it fits the width of one.
	expect(output).not.toContain('\u001b')
	expect(Math.max(...output.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(80)
})

test('the demo says which promise was broken, and ends with status 1', {
	timeout: 40_000,
}, async () => {
	const folder = mkdtempSync(join(tmpdir(), 'inflight-limit-demo-'))
	try {
		cpSync(join(root, 'demo'), join(folder, 'demo'), { recursive: true })
		writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
		const broken = join(folder, 'node_modules', 'inflight-limit')
		mkdirSync(broken, { recursive: true })
		for (const name of ['express', 'koa'])
			symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name))
		// A limiter that limits nothing.
		const exports = { './express': './express.js', './koa': './koa.js' }
		writeFileSync(
			join(broken, 'package.json'),
			JSON.stringify({ name: 'inflight-limit', type: 'module', exports }),
		)
		for (const name of ['express', 'koa']) {
			const real = JSON.stringify(new URL(`../dist/esm/adapters/${name}.js`, import.meta.url).href)
			const text = `import * as real from ${real}\nexport const limit = () => real.limit(100)\n`
			writeFileSync(join(broken, `${name}.js`), text)
		}
		const { status, output } = await run(folder)
		expect(output).toContain('✗ BROKEN: three were at work at once, and never more')
		expect(output).toContain('✗ BROKEN: no request waited longer than 700 ms (g)')
		expect(status).toBe(1)
	} finally {
		rmSync(folder, { recursive: true })
	}
})
