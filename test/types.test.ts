import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest'
import { install, node, scratch } from './support/packed.js'

/*
 * The packed declarations, as users meet them: in an empty folder, with the types of their
 * framework only and `skipLibCheck` off, from ES modules and from CommonJS. `test/types` has what
 * they write.
 */

// A compiler takes its time on a busy machine, and so does a registry.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 300_000 })

const programs = join(import.meta.dirname, 'types')

/**
 * Each with the packages that it installs, the programs that it writes, and the modes in which it
 * compiles them.
 */
const users = {
	'Express 5': {
		packages: ['@types/express@5.0.6', '@types/node@20'],
		writes: ['core', 'express', 'connect'],
		modes: ['node16', 'nodenext', 'bundler'],
	},
	'Express 4': {
		packages: ['@types/express@4.17.25', '@types/node@22'],
		writes: ['express', 'connect'],
		modes: ['node16', 'node10'],
	},
	'Koa 3': {
		packages: ['@types/koa@3.0.3', '@types/node@24'],
		writes: ['koa'],
		modes: ['node16', 'bundler'],
	},
	'Koa 2': {
		packages: ['@types/koa@2.15.2', '@types/node@20'],
		writes: ['koa'],
		modes: ['node16', 'node10'],
	},
	'the optional peers': {
		packages: [
			'@types/node@20',
			'redis@6',
			'ioredis@6',
			'prom-client@15',
			'@opentelemetry/api@1.9.0',
		],
		writes: ['redis', 'metrics'],
		modes: ['nodenext', 'bundler', 'node10'],
	},
	Node: {
		packages: ['@types/node@26'],
		writes: ['core', 'node', 'dashboard', 'adaptive', 'fetch', 'cluster'],
		modes: ['nodenext', 'bundler', 'node10'],
	},
	'Express and Koa': {
		packages: ['@types/express@5.0.6', '@types/koa@3.0.3', '@types/node@22'],
		writes: ['express', 'koa', 'both'],
		modes: ['node16'],
	},
} as const

const STRICT = {
	target: 'es2022',
	types: ['node'],
	strict: true,
	exactOptionalPropertyTypes: true,
	noUncheckedIndexedAccess: true,
	isolatedModules: true,
	esModuleInterop: true,
	skipLibCheck: false,
	noEmit: true,
}

/** Compiler options, and from which module formats the same programs are compiled. */
const modes = {
	node16: { module: 'node16', include: ['esm', 'cjs'] },
	nodenext: { module: 'nodenext', include: ['esm', 'cjs'] },
	bundler: { module: 'esnext', moduleResolution: 'bundler', include: ['esm'] },
	/** The default with `module: commonjs` until TypeScript 6: it doesn't know `exports`. */
	node10: { module: 'commonjs', moduleResolution: 'node10', include: ['cjs'] },
}

/**
 * What @types/koa 3.0.3 says of itself beside the types of Express 5: nobody can use both with all
 * checks on. And what an old compiler says of the types of a new Node.
 */
const NOT_OURS =
	/^node_modules\/@types\/(koa\/index\.d\.ts\(\d+,\d+\): error TS2694: .*content-disposition|node\/)/

const { folder, remove } = scratch()

/** The versions before 7, which are slow. `npm run test:types` has all of them. */
const { TYPESCRIPT } = process.env
const older = (TYPESCRIPT ?? '5.9').split(',')

/** The path of each compiler. */
const compilers: Record<string, string> = {
	...Object.fromEntries(
		older.map((version) => [
			version,
			join(compilerHome(version), 'node_modules/typescript/bin/tsc'),
		]),
	),
	7: join(import.meta.dirname, '../node_modules/typescript/bin/tsc'),
}

function compilerHome(version: string): string {
	return join(folder, `typescript-${version}`)
}

/**
 * The modes of `own` in which this version compiles. 7 knows no resolution without `exports` any
 * more. An older one has only that here, unless `npm run test:types` asks for all.
 */
function modesOf<T extends string>(own: readonly T[], version: string): T[] {
	if (version === '7') return own.filter((mode) => mode !== 'node10')
	return TYPESCRIPT === undefined ? own.filter((mode) => mode === 'node10') : [...own]
}

function homeOf(user: string): string {
	return join(folder, user.replaceAll(/\W/g, '-'))
}

beforeAll(async () => {
	const tarball = inject('tarball')
	const homes = Object.entries(users).map(([user, { packages, writes }]) => {
		const home = homeOf(user)
		for (const [format, type] of [
			['esm', 'module'],
			['cjs', 'commonjs'],
		] as const) {
			mkdirSync(join(home, format), { recursive: true })
			writeFileSync(join(home, format, 'package.json'), JSON.stringify({ type }))
			for (const name of ['equal', ...writes]) {
				cpSync(join(programs, `${name}.ts`), join(home, format, `${name}.ts`))
			}
		}
		return { home, packages: [tarball, ...packages] }
	})
	for (const version of older) {
		mkdirSync(compilerHome(version))
		homes.push({ home: compilerHome(version), packages: [`typescript@${version}`] })
	}
	for (const { home, packages } of homes) await install(home, packages)
})

afterAll(remove)

/** Compiles a user's files. @returns the complaints of the compiler. */
async function compile(
	tsc: string,
	home: string,
	include: readonly string[],
	options: object,
): Promise<string[]> {
	writeFileSync(
		join(home, 'tsconfig.json'),
		JSON.stringify({ compilerOptions: { ...STRICT, ...options }, include }),
	)
	const { code, output } = await node(home, [tsc, '-p', home, '--pretty', 'false'])
	// What is indented goes on with the complaint before.
	const complaints = output.split(/\n(?! )/).filter((complaint) => complaint !== '')
	expect(code === 0).toBe(complaints.length === 0)
	return complaints.filter((complaint) => !NOT_OURS.test(complaint))
}

const runs = Object.keys(compilers).flatMap((version) =>
	Object.entries(users).flatMap(([user, { modes: own }]) =>
		modesOf(own, version).map((mode) => ({ version, user, mode })),
	),
)

test.each(runs)(
	'TypeScript $version, with the types of $user only, $mode: compiles what it must, and nothing else',
	async ({ version, user, mode }) => {
		const { include, ...options } = modes[mode]
		// Version 6 warns of what 7 does not know.
		const deprecations = version.startsWith('6') ? { ignoreDeprecations: '6.0' } : {}
		const complaints = await compile(compilers[version] as string, homeOf(user), include, {
			...options,
			...deprecations,
		})
		expect(complaints).toEqual([])
	},
)

describe('TypeScript 7', () => {
	const tsc = compilers[7] as string

	test('a limiter of either build can be handed to the other', async () => {
		const home = homeOf('Node')
		for (const [own, other] of [
			['esm', 'require'],
			['cjs', 'import'],
		] as const) {
			const program = `
				import type { Limiter as Other } from 'inflight-limit' with { 'resolution-mode': '${other}' }
				import { admission, Limiter } from 'inflight-limit'
				import { limit } from 'inflight-limit/express'
				import { limit as limitKoa } from 'inflight-limit/koa'
				declare const other: Other
				limit(other)
				limitKoa(other)
				export const same: Limiter = other
			`
			mkdirSync(join(home, 'mixed', own), { recursive: true })
			cpSync(join(home, own, 'package.json'), join(home, 'mixed', own, 'package.json'))
			writeFileSync(join(home, 'mixed', own, 'mixed.ts'), program)
		}
		expect(await compile(tsc, home, ['mixed'], { module: 'nodenext' })).toEqual([])
	})

	test('what is internal is not in the declarations', async () => {
		const home = homeOf('Node')
		const program = `
			import { Limiter, Semaphore } from 'inflight-limit'
			const semaphore = new Semaphore(3)
			// @ts-expect-error
			new Semaphore(3, {}, undefined)
			// @ts-expect-error
			semaphore.giveBack(1)
			// @ts-expect-error
			semaphore.drop
			type Members = 'name' | 'abandonedTimeout' | 'stallTimeout' | 'statusCode' | 'serverTiming' | 'rateLimitFields' | 'capacity' | 'active' | 'queued' | 'overloaded' | 'stats' | 'observe' | 'resize' | 'close' | 'onIdle' | 'acquire' | 'run'
			export const none: Exclude<keyof Limiter, Members> extends never ? true : false = true
			export const all: Exclude<Members, keyof Limiter> extends never ? true : false = true
		`
		mkdirSync(join(home, 'internal'), { recursive: true })
		writeFileSync(join(home, 'internal', 'internal.ts'), program)
		expect(await compile(tsc, home, ['internal'], { module: 'nodenext' })).toEqual([])
	})
})
