// Bundles the dashboard's page, with uPlot and Preact, and writes its files into a module:
// adapters/dashboard/assets.ts. A module is found in every environment (ES modules, CommonJS, Jest,
// bundles); a file beside it is not. They are compressed, as they would be a fifth of the package.
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { brotliCompressSync } from 'node:zlib'
import { buildSync } from 'esbuild'

const page = 'adapters/dashboard/page'

/** @param {string} path */
function read(path) {
	return readFileSync(path, 'utf8')
}

/** The licence of a package of which the page has a part. @param {string} name */
function licence(name) {
	const { version } = JSON.parse(read(`node_modules/${name}/package.json`))
	return `/*!\n${name} ${version}\n\n${read(`node_modules/${name}/LICENSE`).trim()}\n*/`
}

/** @param {string} entry @param {string} banner */
function bundle(entry, banner) {
	const { outputFiles } = buildSync({
		entryPoints: [`${page}/${entry}`],
		bundle: true,
		minify: true,
		write: false,
		format: 'esm',
		target: ['es2023', 'chrome120', 'firefox121', 'safari17.4'],
		jsx: 'automatic',
		jsxImportSource: 'preact',
		legalComments: 'none',
	})
	return `${banner}\n${outputFiles[0]?.text}`
}

export function embedPage() {
	/** @type {Record<string, { type: string, body: string }>} */
	const files = {
		'page.js': {
			type: 'text/javascript; charset=utf-8',
			body: bundle('main.tsx', `${licence('uplot')}\n${licence('preact')}`),
		},
		'page.css': { type: 'text/css; charset=utf-8', body: bundle('page.css', licence('uplot')) },
		'icon.svg': { type: 'image/svg+xml', body: read(`${page}/icon.svg`) },
	}
	/** @param {string} name */
	const hashOf = (name) =>
		createHash('sha256')
			.update(files[name]?.body ?? '')
			.digest('base64url')
			.slice(0, 16)
	files['index.html'] = {
		type: 'text/html; charset=utf-8',
		// Each file is named by its content, so that it can be cached for ever.
		body: read(`${page}/index.html`).replace(
			/(?<=(?:src|href)=")[\w.]+(?=")/g,
			(name) => `${name}?v=${hashOf(name)}`,
		),
	}
	const assets = Object.fromEntries(
		Object.entries(files).map(([name, { type, body }]) => [
			name,
			{ type, hash: hashOf(name), brotli: brotliCompressSync(body).toString('base64') },
		]),
	)
	const { version } = JSON.parse(read('package.json'))
	writeFileSync(
		'adapters/dashboard/assets.ts',
		`// Written by scripts/embed-page.js at each build: change the files in page/ instead.
export const version: string = ${JSON.stringify(version)}

/** The files of the page, compressed and in base64. */
export const assets: Record<string, { type: string; hash: string; brotli: string }> = ${JSON.stringify(assets, null, '\t')}
`,
	)
}
