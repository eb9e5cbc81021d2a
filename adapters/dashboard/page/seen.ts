// Tells what is drawn on a canvas when it comes into view and when it leaves it: only what is in
// view is drawn.

const watched = new Map<Element, (seen: boolean) => void>()

const watcher = new IntersectionObserver((entries) => {
	for (const { target, isIntersecting } of entries) watched.get(target)?.(isIntersecting)
})

/** @returns a function that ends it. */
export function watchSeen(element: Element, tell: (seen: boolean) => void): () => void {
	watched.set(element, tell)
	watcher.observe(element)
	return () => {
		watcher.unobserve(element)
		watched.delete(element)
	}
}
