import { defineConfig } from 'vitest/config'

export default defineConfig({
	test: {
		include: ['test/**/*.test.ts'],
		// Some tests are large; a slow machine must not make them fail.
		testTimeout: 60_000,
		coverage: {
			include: ['src/**', 'adapters/**'],
			reporter: ['text', 'json-summary'],
			thresholds: { lines: 98, branches: 98 },
		},
	},
})
