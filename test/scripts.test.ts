import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { node, scratch } from './support/packed.js'

/*
 * What `npm run check` and `npm run release` do, in a small package of the same form.
 */

const { folder, remove } = scratch()
afterAll(remove)

const CHANGELOG = '# Changelog\n\n## Unreleased\n\n- Something new.\n\n## 0.1.0\n\n- The first.\n'

/** A package in a repository of its own, whose scripts do nothing, but for those given. */
function repository(
	name: string,
	{ scripts = {}, changelog = CHANGELOG, repository = 'github:me/it' } = {},
): string {
	const home = join(folder, name)
	mkdirSync(home)
	const names = ['build', 'types', 'lint', 'test', 'package', 'unused', 'start', 'check']
	const nothing = Object.fromEntries(names.map((script) => [script, 'node --version']))
	const manifest = { name: 'it', version: '0.1.0', repository, scripts: { ...nothing, ...scripts } }
	writeFileSync(join(home, 'package.json'), JSON.stringify(manifest))
	writeFileSync(join(home, 'CHANGELOG.md'), changelog)
	writeFileSync(join(home, '.gitignore'), 'coverage/\n*.tgz\n')
	git(home, 'init', '--quiet')
	git(home, 'config', 'user.name', 'A')
	git(home, 'config', 'user.email', 'a@example.org')
	git(home, 'add', '--all')
	git(home, 'commit', '--quiet', '--message', 'Begin')
	return home
}

function git(cwd: string, ...args: string[]): string {
	return execFileSync('git', args, { cwd, encoding: 'utf8' }).trim()
}

const script = (name: string): string => join(import.meta.dirname, '../scripts', name)

describe('release', () => {
	test('sets the version, tags and packs', async () => {
		const home = repository('ready')
		const { code, output } = await node(home, [script('release.js'), '1.2.3'])
		expect(code, output).toBe(0)
		const changelog = readFileSync(join(home, 'CHANGELOG.md'), 'utf8')
		expect(changelog).toMatch(
			/\n## Unreleased\n\n## 1\.2\.3 \(\d{4}-\d\d-\d\d\)\n\n- Something new\.\n\n## 0\.1\.0\n/,
		)
		expect(git(home, 'show', 'v1.2.3:package.json')).toContain('"version":"1.2.3"')
		expect(git(home, 'status', '--porcelain')).toBe('')
		expect(existsSync(join(home, 'it-1.2.3.tgz'))).toBe(true)
	})

	test('tags nothing where a check fails', async () => {
		const home = repository('failing', { scripts: { check: 'node -e process.exit(1)' } })
		expect((await node(home, [script('release.js'), '1.2.3'])).code).not.toBe(0)
		expect(git(home, 'tag')).toBe('')
	})

	test.each([
		['no version', [], {}, 'give its version'],
		['no version of three numbers', ['1.2'], {}, 'give its version'],
		[
			'nothing to release',
			['1.2.3'],
			{ changelog: '## Unreleased\n\n## 0.1.0\n\n- x\n' },
			'is empty',
		],
		['no owner', ['1.2.3'], { repository: 'github:OWNER/it' }, 'OWNER in package.json'],
	])('does nothing with %s', async (name, args, options, reason) => {
		const home = repository(name.replaceAll(' ', '-'), options)
		const { code, output } = await node(home, [script('release.js'), ...args])
		expect([code, output]).toEqual([1, expect.stringContaining(reason)])
		expect(git(home, 'status', '--porcelain')).toBe('')
	})
})

describe('check', () => {
	const results = (passed: number, failed: number): string =>
		`node -e "fs.mkdirSync('coverage');fs.writeFileSync('coverage/tests.json','{\\"numPassedTests\\":${passed},\\"numFailedTests\\":${failed}}');process.exit(${failed})" --`

	test('counts steps and tests, and those it is given', async () => {
		const home = repository('good', { scripts: { test: results(40, 0) } })
		const { code, output } = await node(home, [script('check.js'), '2'])
		expect(code, output).toBe(0)
		expect(output).toMatch(/\n49 passed, 0 failed\n$/)
	})

	test('goes on after a failure, and fails', async () => {
		const home = repository('bad', {
			scripts: { types: 'node -e process.exit(1)', test: results(40, 1) },
		})
		const { code, output } = await node(home, [script('check.js')])
		expect(code).toBe(1)
		expect(output).toMatch(/^45 passed, 3 failed$/m)
		expect(output).toContain('FAILED: npm run types')
	})
})
