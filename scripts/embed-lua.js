// Writes the parts of the script for Redis into a module: adapters/redis/script.ts. A module is
// found in every environment (ES modules, CommonJS, Jest, bundles); a file beside it is not.
import { readFileSync, writeFileSync } from 'node:fs'

const folder = 'adapters/redis/lua'

/** In this order: each part uses what those before it define. */
const PARTS = [
	'fast',
	'contended',
	'books',
	'acquire',
	'release',
	'fleet',
	'join',
	'member',
	'renew',
	'vouch',
	'resize',
	'leave',
]

export function embedLua() {
	const script = PARTS.map((name) => readFileSync(`${folder}/${name}.lua`, 'utf8'))
		.join('')
		// Without comments, empty lines and indentation, as it is sent with each join.
		.replace(/^\s*(--.*)?\n/gm, '')
		.replace(/^\s+/gm, '')
	writeFileSync(
		'adapters/redis/script.ts',
		`// Written by scripts/embed-lua.js at each build: change the files in lua/ instead.
export const SCRIPT: string = ${JSON.stringify(script)}
`,
	)
}
