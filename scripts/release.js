// Prepares a release: node scripts/release.js 1.2.3. It sets the version, renames the section
// `Unreleased` of the changelog to the version and the date, runs all checks, commits, tags and
// packs. The owner pushes and publishes.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'

const version = process.argv[2] ?? ''

/** @param {string} command @param {string[]} args */
function run(command, ...args) {
	console.log(`\n$ ${command} ${args.join(' ')}`)
	execFileSync(command, args, { stdio: 'inherit' })
}

/** @param {string} reason @returns {never} */
function stop(reason) {
	console.error(`No release: ${reason}`)
	process.exit(1)
}

if (!/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(version))
	stop('give its version, like npm run release 1.2.3')
if (execFileSync('git', ['status', '--porcelain'], { encoding: 'utf8' }) !== '') {
	stop('there are changes that are not committed')
}
if (readFileSync('package.json', 'utf8').includes('OWNER')) {
	stop(
		'OWNER in package.json stands for the account that owns the repository: write its name there',
	)
}
const changelog = readFileSync('CHANGELOG.md', 'utf8')
const [, unreleased = ''] = /^## Unreleased\n(.*?)(?=^## |$(?![\s\S]))/ms.exec(changelog) ?? []
if (unreleased.trim() === '') stop('the section Unreleased of CHANGELOG.md is empty')

run('npm', 'version', version, '--no-git-tag-version')
const date = new Date().toISOString().slice(0, 10)
writeFileSync(
	'CHANGELOG.md',
	changelog.replace('## Unreleased\n', `## Unreleased\n\n## ${version} (${date})\n`),
)
run('npm', 'run', 'check')
run('git', 'commit', '--all', '--message', `Release ${version}`)
run('git', 'tag', '--annotate', `v${version}`, '--message', `Release ${version}`)
run('npm', 'pack')
console.log(
	`\nReady. Look at the commit, then: git push --follow-tags && npm publish inflight-limit-${version}.tgz`,
)
