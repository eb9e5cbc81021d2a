// Writes the parts of the script for Redis into a module: adapters/redis/script.ts. A module is
// found wherever the package is put, be it an ES module, CommonJS, under Jest or in a bundle; a
// file beside it is not.
import { readFileSync, writeFileSync } from 'node:fs'

const folder = 'adapters/redis/lua'

/** In this order: each part uses what those before it define. */
const PARTS = [
	'fast',
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
		// It is sent with each join: without comments, empty lines and indentation.
		.replace(/^\s*(--.*)?\n/gm, '')
		.replace(/^\s+/gm, '')
	writeFileSync(
		'adapters/redis/script.ts',
		`// Written by scripts/embed-lua.js at each build: change the files in lua/ instead.
export const SCRIPT: string = ${JSON.stringify(script)}
`,
	)
}
