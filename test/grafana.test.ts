import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { prometheusMetrics } from '../adapters/prometheus.js'
import { Limiter } from '../src/limiter/limiter.js'
import { programOrSkip } from './support/programs.js'

const folder = join(import.meta.dirname, '../examples/grafana')
const promtool = programOrSkip(['promtool'], 'prometheus')

test.each(['dashboard.json', 'alerts.yml'])('%s asks for metrics that there are', async (file) => {
	const registry = new Registry()
	prometheusMetrics({ limiters: [new Limiter(1)], registry })
	const there = await registry.metrics()
	const asked = new Set(readFileSync(join(folder, file), 'utf8').match(/inflight_limit_\w+/g))
	expect(asked.size).toBeGreaterThan(5)
	for (const name of asked) expect(there).toMatch(new RegExp(`\\n${name}(_bucket)?{`))
})

test('the dashboard is one: each panel has its place, its data source and its queries', () => {
	const { panels, templating } = JSON.parse(readFileSync(join(folder, 'dashboard.json'), 'utf8'))
	expect(panels).toHaveLength(7)
	for (const { datasource, targets, gridPos } of panels) {
		expect(datasource.uid).toBe(`\${${templating.list[0].name}}`)
		expect(targets.length).toBeGreaterThan(0)
		expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24)
	}
})

test('each alert says what to do', () => {
	const rules = readFileSync(join(folder, 'alerts.yml'), 'utf8').split('- alert:').slice(1)
	expect(rules).toHaveLength(5)
	for (const rule of rules) expect(rule).toMatch(/\n +action:\s+(['"])[^\n]{40,}/)
})

describe.skipIf(promtool === undefined)('promtool', () => {
	test.each([
		['check', 'alerts.yml'],
		['test', 'alerts.test.yml'],
	])('%s rules %s', async (command, file) => {
		const { stdout } = await promisify(execFile)(promtool as string, [command, 'rules', file], {
			cwd: folder,
		})
		expect(stdout).toContain('SUCCESS')
	})
})
