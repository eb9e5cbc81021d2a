import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Heap, Place } from '../../src/queue/heap.js'

test('the lowest is that of a sorted list, and of equal ones the one that has been so the longest', () => {
	const step = fc.record({
		which: fc.nat({ max: 9 }),
		// `undefined`: it is deleted.
		key: fc.constantFrom(undefined, -1, 0, 0.1, 0.30000000000000004, 7, 7, Number.MAX_VALUE),
	})
	fc.assert(
		fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (history) => {
			const heap = new Heap<number>()
			const places = Array.from({ length: 10 }, (_, i) => new Place(i))
			let sorted: { which: number; key: number }[] = []
			for (const { which, key } of history) {
				const place = places[which] as Place<number>
				const known = sorted.find((each) => each.which === which)
				if (key === undefined) heap.delete(place)
				else heap.set(place, key)
				if (known?.key !== key) sorted = sorted.filter((each) => each !== known)
				if (key !== undefined && known?.key !== key) sorted.push({ which, key })
				sorted.sort((a, b) => a.key - b.key)
				expect([heap.first?.owner, heap.size]).toEqual([sorted[0]?.which, sorted.length])
			}
		}),
		{ numRuns: 300 },
	)
})
