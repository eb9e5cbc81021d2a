// The site: the README and docs/ as they are, and nothing else. `npm run site` builds it in
// site/.vitepress/dist. It has a package.json of its own, so that who works on the package does not
// install it.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '../..')
const { repository } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const code = repository.url.replace(/^git\+|\.git$/g, '')

/** The pages in the order of the README. */
const sidebar = Array.from(
	readme.matchAll(/\[([^\]]+)\]\((docs\/[\w-]+)\.md\)/g),
	([, text, link]) => ({ text: text[0].toUpperCase() + text.slice(1), link: `/${link}` }),
).filter(({ link }, i, all) => all.findIndex((one) => one.link === link) === i)

/** What is in no page of the site, like a source, is linked to in the repository. */
function linkToCode(md) {
	md.core.ruler.push('link-to-code', ({ tokens, env }) => {
		for (const token of tokens.flatMap(({ children }) => children ?? [])) {
			const href = token.type === 'link_open' ? token.attrGet('href') : ''
			if (/^(#|\w+:)/.test(href) || /\.md(#|$)/.test(href) || href === '') continue
			const path = join(env.relativePath, '..', href)
			if (existsSync(join(root, path))) token.attrSet('href', `${code}/blob/main/${path}`)
		}
	})
}

/** The pages are outside of this folder, from where Vue is not found when they are rendered. */
const vueOfThisFolder = {
	name: 'vue-of-this-folder',
	enforce: 'pre',
	resolveId: (id, _importer, { ssr }) =>
		ssr && /^vue(\/|$)/.test(id) ? { id, external: true } : undefined,
}

export default {
	title: 'inflight-limit',
	description: 'Limit how many requests an Express or Koa server works on at the same time.',
	srcDir: root,
	srcExclude: ['**/node_modules/**', '.github/**', 'coverage/**'],
	rewrites: { 'README.md': 'index.md' },
	markdown: { config: linkToCode },
	vite: { plugins: [vueOfThisFolder] },
	themeConfig: {
		search: { provider: 'local' },
		outline: 'deep',
		sidebar: [{ text: 'inflight-limit', link: '/' }, ...sidebar],
		socialLinks: [{ icon: 'github', link: code }],
	},
}
