const COLOURS = ['#888888', '#b8860b', '#c05020', '#9050b0', '#2878c8', '#1a9850']

/**
 * The curves of goodput over load, readable on a light and on a dark page.
 *
 * @param {number[]} loads
 * @param {Map<string, { goodput: number }[]>} results
 */
export function drawing(loads, results) {
	const highest = Math.max(
		...Array.from(results.values(), (row) => row.map(({ goodput }) => goodput)).flat(),
	)
	const x = (/** @type {number} */ i) => 60 + (i * 420) / (loads.length - 1)
	const y = (/** @type {number} */ goodput) => 290 - (250 * goodput) / highest
	const lines = Array.from(results, ([name, row], n) => {
		const points = row
			.map(({ goodput }, i) => `${x(i).toFixed(0)},${y(goodput).toFixed(0)}`)
			.join(' ')
		const colour = COLOURS[n % COLOURS.length]
		const width = name === 'adaptive' ? 4 : 2
		return `<polyline points="${points}" fill="none" stroke="${colour}" stroke-width="${width}"/><text x="500" y="${60 + 22 * n}" fill="${colour}">${name}</text>`
	})
	const ticks = loads.map(
		(load, i) => `<text class="t" x="${x(i)}" y="310" text-anchor="middle">${load} ×</text>`,
	)
	return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 350" font-family="sans-serif" font-size="14" role="img" aria-label="Goodput over load">
<style>.t{fill:#57606a}.a{stroke:#8b949e}@media (prefers-color-scheme:dark){.t{fill:#adbac7}}</style>
<line class="a" x1="60" y1="290" x2="480" y2="290"/><line class="a" x1="60" y1="40" x2="60" y2="290"/>
<text class="t" x="60" y="24">right answers within the deadline, a second</text><text class="t" x="52" y="295" text-anchor="end">0</text><text class="t" x="52" y="45" text-anchor="end">${highest.toFixed(0)}</text>
<text class="t" x="270" y="335" text-anchor="middle">load, as a multiple of what the server can do</text>
${ticks.join('\n')}
${lines.join('\n')}
</svg>
`
}
