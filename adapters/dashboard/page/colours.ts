// The colours of the style sheet, for what is drawn on a canvas.

const colours = new Map<string, string>()

/** Grows when the colours change. */
let palette = 0

/** The value of a variable of the style sheet. */
export function colour(name: string): string {
	let found = colours.get(name)
	if (found === undefined) {
		found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
		colours.set(name, found)
	}
	return found
}

/** What is drawn with another palette than this has old colours. */
export function currentPalette(): number {
	return palette
}

export function forgetColours(): void {
	colours.clear()
	palette++
}
