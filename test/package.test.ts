import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest'
import { ENTRIES, install, node, scratch } from './support/packed.js'

/*
 * The tarball, as users meet it: installed in an empty folder, and used from there by `import`, by
 * `require`, from Jest and by both at once. `test/package` has what they write.
 */

// A registry takes its time, and so does Jest on a busy machine.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 })

const root = join(import.meta.dirname, '..')
const { folder, remove } = scratch()
/** Where the package is installed alone, and where it is with all that its users have. */
const alone = join(folder, 'alone')
const users = join(folder, 'users')
/** Where it is with tools that don't know `exports`. */
const old = join(folder, 'old')
const installed = join(alone, 'node_modules/inflight-limit')

beforeAll(async () => {
	mkdirSync(alone)
	cpSync(join(import.meta.dirname, 'package'), users, { recursive: true })
	const tarball = inject('tarball')
	await install(alone, [tarball])
	const peers = ['prom-client@15', '@opentelemetry/api@1']
	await install(users, [tarball, 'express@5', 'koa@3', 'jest@30', 'esbuild@0.28', ...peers])
	mkdirSync(old)
	await install(old, [tarball, 'jest@27', ...peers])
})

afterAll(remove)

/** The files of a folder and of those in it, as paths from it. */
function filesIn(path: string): string[] {
	return readdirSync(path, { recursive: true, withFileTypes: true })
		.filter((entry) => entry.isFile())
		.map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))
		.sort()
}

/** What a module of ours imports or requires, with what its imports do, and so on. */
function importsOf(module: string, found = new Set<string>()): Set<string> {
	const source = readFileSync(module, 'utf8')
	// The files of the page, which a browser imports, and the script of Redis: the CommonJS build has
	// them.
	if (/\/(dashboard\/assets|redis\/script)\.js$/.test(module)) return found
	for (const [, name = ''] of source.matchAll(
		/(?:\bfrom |\bimport |\bimport\(|\brequire\()["']([^"']+)["']/g,
	)) {
		const target = name.startsWith('.') ? join(module, '..', name) : name
		if (found.has(target)) continue
		found.add(target)
		if (name.startsWith('.')) importsOf(target, found)
	}
	return found
}

/** The declarations that a file of declarations leads to, with itself. */
function declarationsOf(path: string, found: Set<string>): void {
	if (found.has(path)) return
	found.add(path)
	for (const [, name = ''] of readFileSync(path, 'utf8').matchAll(
		/(?:\bfrom |\bimport |\bimport\()["'](\.[^"']+)["']/g,
	)) {
		declarationsOf(join(path, '..', name.replace(/\.js$/, '.d.ts')), found)
	}
}

describe('the tarball', () => {
	test('has both builds of each source, the declarations that its entries lead to, a folder for each entry, and nothing else', () => {
		const sources = ['src', 'adapters']
			.flatMap((name) => filesIn(join(root, name)).map((file) => `${name}/${file}`))
			.filter((source) => source.endsWith('.ts') && !source.startsWith('adapters/dashboard/page/'))
		const built = sources.flatMap((source) => {
			const name = source.replace(/\.ts$/, '')
			return [`dist/esm/${name}.js`, `dist/cjs/${name}.js`]
		})
		const { exports } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'))
		const declarations = new Set<string>()
		for (const entry of Object.values(exports as Record<string, string | { import: string }>)) {
			if (typeof entry === 'string') continue
			declarationsOf(join(installed, entry.import.replace(/\.js$/, '.d.ts')), declarations)
		}
		const others = [
			'package.json',
			'README.md',
			'CHANGELOG.md',
			'LICENSE',
			'dist/esm/package.json',
			'dist/cjs/package.json',
			...ENTRIES.filter((entry) => entry !== '').map((entry) => `${entry.slice(1)}/package.json`),
		]
		const declared = Array.from(declarations, (path) => path.slice(installed.length + 1))
		expect(filesIn(installed)).toEqual([...built, ...declared, ...others].sort())
	})

	test('takes at most 700 kB', () => {
		const sizes = filesIn(installed).map((file) => statSync(join(installed, file)).size)
		expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(700_000)
	})

	test('brings nothing along and runs nothing at its installation', () => {
		const { dependencies, peerDependencies, peerDependenciesMeta, optionalDependencies, scripts } =
			JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'))
		expect({ dependencies, optionalDependencies }).toEqual({})
		// Each is for one entry only.
		for (const name of Object.keys(peerDependencies)) {
			expect([name, peerDependenciesMeta[name]]).toEqual([name, { optional: true }])
		}
		expect(Object.keys(scripts).filter((name) => /^(pre|post)?install$/.test(name))).toEqual([])
		expect(
			readdirSync(join(alone, 'node_modules')).filter((name) => !name.startsWith('.')),
		).toEqual(['inflight-limit'])
	})

	const entries = ['src/index.js', 'adapters/express.js', 'adapters/koa.js']
	test.each(entries)('%s loads nothing but its own and what Node has, in both builds', (entry) => {
		for (const build of ['esm', 'cjs']) {
			const dist = join(installed, 'dist', build)
			const imports = [...importsOf(join(dist, entry))]
			expect(
				imports.filter((name) => !name.startsWith('node:') && !name.startsWith(`${dist}/src/`)),
			).toEqual([])
			expect(imports).toContain(join(dist, 'src/limiter/limiter.js'))
		}
	})

	test.each([
		['adapters/prometheus.js', 'prom-client'],
		['adapters/opentelemetry.js', '@opentelemetry/api'],
		['adapters/dashboard/index.js'],
		['adapters/redis/index.js'],
		['adapters/cluster/index.js'],
		['src/adaptive/index.js'],
	])('%s loads nothing else but %s', (entry, ...peers) => {
		for (const build of ['esm', 'cjs']) {
			const dist = join(installed, 'dist', build)
			const imports = [...importsOf(join(dist, entry))]
			const others = imports.filter(
				(name) => !name.startsWith('node:') && !name.startsWith(`${dist}/`),
			)
			expect(others).toEqual(peers)
		}
	})

	test('works with no client of Redis installed, by import and by require', async () => {
		for (const program of [
			"import('inflight-limit/redis').then((found) => console.log(Object.keys(found).sort().join()))",
			"console.log(Object.keys(require('inflight-limit/redis')).sort().join())",
		]) {
			expect(await node(alone, ['-e', program])).toEqual({
				code: 0,
				output: 'LeaseLostError,redisLimiter\n',
			})
		}
	})

	test('works with no framework installed, each entry without the others', async () => {
		for (const [entry, name] of [
			['', 'admission'],
			['/express', 'admission'],
			['/koa', 'admission'],
			['/adaptive', 'adaptive'],
		]) {
			const byImport = `import('inflight-limit${entry}').then((found) => console.log(typeof found.${name}))`
			const byRequire = `console.log(typeof require('inflight-limit${entry}').${name})`
			for (const program of [byImport, byRequire]) {
				expect(await node(alone, ['-e', program])).toEqual({ code: 0, output: 'function\n' })
			}
		}
	})
})

describe('users', () => {
	const served = { most: 2, statuses: [200, 200, 200, 200, 200] }
	const used = {
		names: [
			[
				'Limiter',
				'RejectedError',
				'Semaphore',
				'addressKey',
				'admission',
				'requestDeadline',
				'requestStart',
			],
			['Limiter', 'RejectedError', 'addressKey', 'admission', 'limit'],
			['Limiter', 'RejectedError', 'addressKey', 'admission', 'limit'],
			['adaptive', 'aimd'],
		],
		ran: ['a', 'b'],
		inExpress: served,
		inKoa: served,
		found: served,
	}

	test.each(['by-import.mjs', 'by-require.cjs'])(
		'have all of it, with no warning: %s',
		async (program) => {
			const { code, output } = await node(users, [program])
			expect(code, output).toBe(0)
			expect(JSON.parse(output)).toEqual(used)
		},
	)

	test('load of the metrics only what they import, and can import it in both ways', async () => {
		const loaded = `console.log(Object.keys(require.cache).filter((path) => /prom-client|opentelemetry|dashboard/.test(path)).length)`
		for (const entry of ['', '/express', '/koa']) {
			expect(await node(users, ['-e', `require('inflight-limit${entry}'); ${loaded}`])).toEqual({
				code: 0,
				output: '0\n',
			})
		}
		for (const [entry, name] of [
			['prometheus', 'prometheusMetrics'],
			['opentelemetry', 'openTelemetryMetrics'],
			['dashboard', 'dashboard,dashboardKoa'],
		]) {
			const byImport = `import('inflight-limit/${entry}').then((found) => console.log(Object.keys(found).join()))`
			const byRequire = `console.log(Object.keys(require('inflight-limit/${entry}')).join())`
			for (const program of [byImport, byRequire]) {
				const { code, output } = await node(users, ['-e', program])
				expect([code, output.replace(/,?module\.exports|,?default/g, '')]).toEqual([0, `${name}\n`])
			}
		}
	})

	test('have it under Jest in CommonJS mode', async () => {
		cpSync(join(users, 'in-jest.cjs'), join(users, 'in-jest.test.cjs'))
		const { code, output } = await node(users, [
			'node_modules/jest/bin/jest.js',
			'--ci',
			'--watchman=false',
		])
		expect(code, output).toBe(0)
		expect(output).toMatch(/Tests: +11 passed, 11 total/)
	})

	test('have each entry under Jest 27', async () => {
		const program = ENTRIES.map((entry) => `require('inflight-limit${entry}')`).join(', ')
		writeFileSync(
			join(old, 'entries.test.js'),
			`test('loads', () => { for (const it of [${program}]) expect(Object.keys(it)).not.toEqual([]) })\n`,
		)
		const { code, output } = await node(old, [
			'node_modules/jest/bin/jest.js',
			'--ci',
			'--watchman=false',
		])
		expect(code, output).toBe(0)
		expect(output).toMatch(/Tests: +1 passed, 1 total/)
	})

	/** Bundles a program for Node, as an ES module. @returns the path of the bundle. */
	async function bundle(name: string, program: string): Promise<string> {
		writeFileSync(join(users, `${name}.in.mjs`), program)
		const to = `${name}.out.mjs`
		const options = ['--bundle', '--minify', '--platform=node', '--format=esm', `--outfile=${to}`]
		const { code, output } = await node(users, [
			'node_modules/esbuild/bin/esbuild',
			`${name}.in.mjs`,
			...options,
		])
		expect(code, output).toBe(0)
		return join(users, to)
	}

	test('bundle nothing with a semaphore but what it needs: 12 kB', async () => {
		const program =
			"import { Semaphore } from 'inflight-limit'\nconsole.log(await new Semaphore(1).run(() => 'ran'))"
		const path = await bundle('semaphore', program)
		expect(statSync(path).size).toBeLessThanOrEqual(12_000)
		expect(await node(users, [path])).toEqual({ code: 0, output: 'ran\n' })
	})

	test('bundle the dashboard with its page', async () => {
		const path = await bundle(
			'dashboard',
			"import { dashboard } from 'inflight-limit/dashboard'\nconsole.log(typeof dashboard)",
		)
		expect(readFileSync(path, 'utf8')).toContain('page.js')
		expect(await node(users, [path])).toEqual({ code: 0, output: 'function\n' })
	})

	test('can mix both builds in one server', async () => {
		const { code, output } = await node(users, ['mixed.mjs'])
		expect(code, output).toBe(0)
		const admitted = { status: 200, body: { active: 1, queued: 0, same: true } }
		const expected = {
			admitted: [admitted, admitted],
			rejected: [
				[503, 'closed'],
				[503, 'closed'],
			],
			completed: 2,
			closed: 2,
		}
		// Not one build under two names, which would make all of this true of itself.
		expect(JSON.parse(output)).toEqual({ twoBuilds: true, results: [expected, expected] })
	})
})
