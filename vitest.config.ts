import { defineConfig } from 'vitest/config'

export default defineConfig({
	test: {
		include: ['test/**/*.test.ts'],
		coverage: {
			include: ['src/**', 'adapters/**'],
			reporter: ['text', 'json-summary'],
			thresholds: { lines: 98, branches: 98 },
		},
	},
})
