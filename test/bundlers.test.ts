import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest'
import { ENTRIES, install, node, scratch } from './support/packed.js'

/*
 * The packed package, with all its entries in one bundle, as each bundler makes it for Node.
 */

// A registry takes its time, and so does a bundler on a busy machine.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 })

const { folder, remove } = scratch()
const users = join(folder, 'users')

const FILES = {
	'in.mjs': `
		${ENTRIES.map((entry, i) => `import * as entry${i} from 'inflight-limit${entry}'`).join('\n')}
		const entries = [${ENTRIES.map((_, i) => `entry${i}`)}]
		console.log(entries.filter((entry) => Object.keys(entry).length > 0).length)
	`,
	'webpack.config.cjs': `
		const output = { path: __dirname + '/webpack', filename: 'out.cjs' }
		const run = (error, stats) => { if (error || stats.hasErrors() || stats.hasWarnings()) throw error ?? stats.toString() }
		require('webpack')({ mode: 'production', target: 'node', entry: './in.mjs', output }, run)
	`,
	'vite.config.mjs': `
		export default { ssr: { noExternal: true }, build: { ssr: './in.mjs', outDir: 'vite' } }
	`,
}

/** What each is run with, and where its bundle is then. */
const BUNDLERS: Record<string, [args: string[], bundle: string]> = {
	esbuild: [
		['esbuild/bin/esbuild', 'in.mjs', '--bundle', '--platform=node', '--outfile=esbuild/out.cjs'],
		'esbuild/out.cjs',
	],
	webpack: [['../webpack.config.cjs'], 'webpack/out.cjs'],
	Rollup: [
		['rollup/dist/bin/rollup', 'in.mjs', '-p', 'node-resolve,commonjs', '-o', 'rollup/out.mjs'],
		'rollup/out.mjs',
	],
	Vite: [['vite/bin/vite.js', 'build'], 'vite/in.mjs'],
}

beforeAll(async () => {
	mkdirSync(users)
	await install(users, [
		inject('tarball'),
		...['prom-client@15', '@opentelemetry/api@1', 'esbuild@0.28', 'webpack@5', 'vite@7'],
		...['rollup@4', '@rollup/plugin-node-resolve', '@rollup/plugin-commonjs'],
	])
	for (const [name, text] of Object.entries(FILES)) writeFileSync(join(users, name), text)
})

afterAll(remove)

test.each(Object.entries(BUNDLERS))(
	'%s bundles each entry, and the bundle runs',
	async (_name, [[program = '', ...args], bundle]) => {
		const { code, output } = await node(users, [join('node_modules', program), ...args])
		expect(code, output).toBe(0)
		expect(await node(users, [bundle])).toEqual({ code: 0, output: '10\n' })
	},
)
