import { useState } from 'preact/hooks'

/** Longer keys are shown by their start and their end. */
const LONG = 36

/**
 * A key, as it is: its script may run from right to left. A long one is shown as a whole on demand.
 */
export function Key({ text }: { text: string }) {
	const [whole, setWhole] = useState(false)
	if (text.length <= LONG || whole) return <bdi class="key">{text === '' ? '(empty)' : text}</bdi>
	const letters = Array.from(text)
	return (
		<span class="key">
			<bdi>{letters.slice(0, 20).join('')}</bdi>
			<button
				type="button"
				class="more"
				aria-label="Show the whole key"
				onClick={() => setWhole(true)}
			>
				…
			</button>
			<bdi>{letters.slice(-12).join('')}</bdi>
		</span>
	)
}
