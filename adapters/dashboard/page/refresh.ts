// Draws the page again, at most once for each frame, and not while it is hidden.

let draw: () => void = () => {}
let asked = 0

export function onRefresh(run: () => void): void {
	draw = run
}

export function refresh(): void {
	if (asked !== 0) return
	asked = requestAnimationFrame(() => {
		asked = 0
		draw()
	})
}
