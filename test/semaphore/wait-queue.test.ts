import { expect, test } from 'vitest'
import { type Linked, WaitQueue } from '../../src/semaphore/wait-queue.js'

interface Member extends Linked<Member> {
	id: number
}

function member(id: number): Member {
	return { id, previous: undefined, next: undefined }
}

function ids(queue: WaitQueue<Member>): number[] {
	const found: number[] = []
	for (let at = queue.head; at !== undefined; at = at.next) found.push(at.id)
	return found
}

test('members stand in the order in which they came', () => {
	const queue = new WaitQueue<Member>()
	for (const id of [1, 2, 3]) queue.push(member(id))
	expect(ids(queue)).toEqual([1, 2, 3])
	expect(queue.size).toBe(3)
})

test.each([
	[0, [2, 3]],
	[1, [1, 3]],
	[2, [1, 2]],
])('a member can leave from place %i, and the next one to come stands last', (place, left) => {
	const queue = new WaitQueue<Member>()
	const members = [1, 2, 3].map(member)
	for (const each of members) queue.push(each)
	queue.remove(members[place] as Member)
	expect(ids(queue)).toEqual(left)
	queue.push(member(4))
	expect(ids(queue)).toEqual([...left, 4])
	expect(queue.size).toBe(3)
})

test('the head can be taken, until nobody is left', () => {
	const queue = new WaitQueue<Member>()
	const members = [1, 2].map(member) as [Member, Member]
	for (const each of members) queue.push(each)
	queue.take(members[0])
	expect(ids(queue)).toEqual([2])
	expect(queue.tail).toBe(members[1])
	expect([members[0].next, members[1].previous]).toEqual([undefined, undefined])
	queue.take(members[1])
	expect([queue.head, queue.tail, queue.size]).toEqual([undefined, undefined, 0])
})

test('a queue that was emptied can be filled again', () => {
	const queue = new WaitQueue<Member>()
	const only = member(1)
	queue.push(only)
	queue.remove(only)
	expect(queue.head).toBeUndefined()
	expect(queue.size).toBe(0)
	queue.push(only)
	expect(ids(queue)).toEqual([1])
})

test('a member that has left keeps no neighbour in memory', () => {
	const queue = new WaitQueue<Member>()
	const members = [1, 2, 3].map(member)
	for (const each of members) queue.push(each)
	const middle = members[1] as Member
	queue.remove(middle)
	expect(middle.previous).toBeUndefined()
	expect(middle.next).toBeUndefined()
})
