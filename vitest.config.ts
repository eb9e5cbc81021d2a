import { defineConfig } from 'vitest/config'

/**
 * The long suites, by name: `npx vitest run --project fleet` runs one of them alone. `npm test`
 * runs all.
 */
const LONG = {
	// Each test has processes of its own, and a Redis or a cluster.
	fleet: ['test/adapters/redis/**/*.test.ts', 'test/adapters/cluster/processes.test.ts'],
	// In Chromium.
	page: ['test/adapters/dashboard/page.test.ts'],
	// The packed package, with a registry and compilers.
	package: [
		'test/bundlers.test.ts',
		'test/frameworks.test.ts',
		'test/package.test.ts',
		'test/types.test.ts',
		'test/scripts.test.ts',
	],
}

const projects = [
	{ name: 'unit', include: ['test/**/*.test.ts'], exclude: Object.values(LONG).flat() },
	// The fleet comes last and alone: its leases are shorter than a busy machine can pause.
	...Object.entries(LONG).map(([name, include]) => ({
		name,
		include,
		sequence: { groupOrder: name === 'fleet' ? 1 : 0 },
		// Tests of one file at a time, where they are concurrent: those of the fleet mostly wait.
		maxConcurrency: name === 'fleet' ? 16 : 5,
		globalSetup: name === 'package' ? 'test/support/tarball.ts' : [],
	})),
]

export default defineConfig({
	test: {
		projects: projects.map((test) => ({ extends: true as const, test })),
		// The tests wait more than they compute. By default, one core would be left idle.
		maxWorkers: '100%',
		// Some tests are large; a slow machine must not make them fail.
		testTimeout: 60_000,
		hookTimeout: 60_000,
		coverage: {
			include: ['src/**/*.ts', 'adapters/**/*.ts'],
			// The page runs in a browser, and is tested in one; the assets are its files. What is built
			// is tested from the package.
			exclude: ['dist/**', 'adapters/dashboard/page/**', 'adapters/dashboard/assets.ts'],
			reporter: ['text', 'json-summary'],
			thresholds: { lines: 98, branches: 95 },
		},
	},
})
