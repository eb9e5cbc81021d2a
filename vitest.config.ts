import { defineConfig } from 'vitest/config'

export default defineConfig({
	test: {
		include: ['test/**/*.test.ts'],
		// Some tests are large; a slow machine must not make them fail.
		testTimeout: 60_000,
		coverage: {
			include: ['src/**', 'adapters/**'],
			// The page runs in a browser, and is tested in one; the assets are its files.
			exclude: ['adapters/dashboard/page/**', 'adapters/dashboard/assets.ts'],
			reporter: ['text', 'json-summary'],
			thresholds: { lines: 98, branches: 98 },
		},
	},
})
