import { expect, test } from 'vitest'
import { loopIsLate } from '../src/event-loop.js'

function compute(ms: number): void {
	const end = performance.now() + ms
	while (performance.now() < end);
}

test('who comes late in a turn of a busy loop is refused, until the next turn', async () => {
	loopIsLate()
	await new Promise(setImmediate)
	await new Promise(setImmediate)
	expect(loopIsLate()).toBe(false)
	compute(80)
	expect(loopIsLate()).toBe(true)
	await new Promise(setImmediate)
	await new Promise(setImmediate)
	expect(loopIsLate()).toBe(false)
})

test('a loop that waited for events is not late', async () => {
	loopIsLate()
	await new Promise(setImmediate)
	await new Promise((resolve) => setTimeout(resolve, 100))
	expect(loopIsLate()).toBe(false)
})
