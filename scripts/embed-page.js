// Writes the files of the dashboard's page, and uPlot, into a module: adapters/dashboard/assets.ts.
// A module is found in every environment (ES modules, CommonJS, Jest, bundles); a file beside it is
// not.
import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'

const page = 'adapters/dashboard/page'
const uPlot = 'node_modules/uplot'

/** @param {string} path */
function read(path) {
	return readFileSync(path, 'utf8')
}

/** @param {string} body */
function hashOf(body) {
	return createHash('sha256').update(body).digest('base64url').slice(0, 16)
}

export function embedPage() {
	const { version } = JSON.parse(read(`${uPlot}/package.json`))
	const licence = `/*!\nuPlot ${version}, https://github.com/leeoniya/uPlot\n\n${read(`${uPlot}/LICENSE`).trim()}\n*/\n`
	/** @type {Record<string, { type: string, body: string }>} */
	const files = {
		'uplot.js': {
			type: 'text/javascript; charset=utf-8',
			// The only small build of uPlot is not a module.
			body: `${licence}${read(`${uPlot}/dist/uPlot.iife.min.js`).trim()}\nexport default uPlot\n`,
		},
		'page.css': {
			type: 'text/css; charset=utf-8',
			body: `${licence}${read(`${uPlot}/dist/uPlot.min.css`).trim()}\n\n${read(`${page}/page.css`)}`,
		},
		'icon.svg': { type: 'image/svg+xml', body: read(`${page}/icon.svg`) },
	}
	/** Names each file by its content, so that it can be cached for ever. @param {string} name */
	const address = (name) => `${name}?v=${hashOf(files[name]?.body ?? '')}`
	files['page.js'] = {
		type: 'text/javascript; charset=utf-8',
		body: read(`${page}/page.js`).replace("from 'uplot'", `from './${address('uplot.js')}'`),
	}
	files['index.html'] = {
		type: 'text/html; charset=utf-8',
		body: read(`${page}/index.html`).replace(/(?<=(?:src|href)=")[\w.]+(?=")/g, address),
	}
	const assets = Object.fromEntries(
		Object.entries(files).map(([name, file]) => [name, { ...file, hash: hashOf(file.body) }]),
	)
	writeFileSync(
		'adapters/dashboard/assets.ts',
		`// Written by scripts/embed-page.js at each build: change the files in page/ instead.
export const assets: Record<string, { type: string; body: string; hash: string }> = ${JSON.stringify(assets, null, '\t')}
`,
	)
}
