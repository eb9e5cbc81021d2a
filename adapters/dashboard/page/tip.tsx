import type { ComponentChildren } from 'preact'
import { GLOSSARY, type Word } from './glossary.js'

/** A word with its explanation: shown by pointer, by focus and by touch. */
export function Term({ word, children }: { word: Word; children: ComponentChildren }) {
	return (
		<button type="button" class="term" data-tip={word} aria-describedby={`tip-${word}`}>
			{children}
		</button>
	)
}

/** The explanations, as screen readers find them; and the one that is seen. */
export function Glossary() {
	return (
		<>
			<div hidden>
				{Object.entries(GLOSSARY).map(([word, text]) => (
					<p id={`tip-${word}`}>{text}</p>
				))}
			</div>
			<div id="tip" hidden />
		</>
	)
}

function show(term: HTMLElement): void {
	const tip = document.getElementById('tip') as HTMLElement
	tip.textContent = GLOSSARY[term.dataset.tip as Word]
	tip.hidden = false
	const { left, top, bottom } = term.getBoundingClientRect()
	const { offsetWidth, offsetHeight } = tip
	const below = bottom + 6 + offsetHeight < innerHeight
	tip.style.left = `${Math.max(8, Math.min(left, document.documentElement.clientWidth - offsetWidth - 8))}px`
	tip.style.top = `${below ? bottom + 6 : Math.max(8, top - 6 - offsetHeight)}px`
}

function hide(): void {
	const tip = document.getElementById('tip')
	if (tip !== null) tip.hidden = true
}

function termOf({ target }: Event): HTMLElement | null {
	return target instanceof Element ? target.closest<HTMLElement>('[data-tip]') : null
}

export function watchTips(): void {
	for (const type of ['pointerover', 'focusin', 'click']) {
		addEventListener(type, (event) => {
			const term = termOf(event)
			if (term !== null) show(term)
			else if (!(event.target instanceof Element && event.target.closest('#tip'))) hide()
		})
	}
	addEventListener('focusout', hide)
	addEventListener('scroll', hide, { passive: true })
	addEventListener('keydown', ({ key }) => {
		if (key === 'Escape') hide()
	})
}
