/** A member of a {@link WaitQueue} has links to its neighbours while it is in the queue. */
export interface Linked<T> {
	previous: T | undefined
	next: T | undefined
}

/**
 * A first-in, first-out queue whose links are in the members themselves.
 *
 * Push, take and removal from the middle are O(1), and allocate nothing. A member can be in one
 * queue at a time.
 */
export class WaitQueue<T extends Linked<T>> {
	head: T | undefined = undefined
	tail: T | undefined = undefined
	size = 0

	push(member: T): void {
		const tail = this.tail
		member.previous = tail
		if (tail === undefined) this.head = member
		else tail.next = member
		this.tail = member
		this.size++
	}

	/** Removes the head. */
	take(head: T): void {
		const { next } = head
		this.head = next
		if (next === undefined) this.tail = undefined
		else next.previous = undefined
		head.next = undefined
		this.size--
	}

	/** Removes any member. It must be in this queue. */
	remove(member: T): void {
		const { previous, next } = member
		if (previous === undefined) this.head = next
		else previous.next = next
		if (next === undefined) this.tail = previous
		else next.previous = previous
		// A removed member must not keep its former neighbours in memory.
		member.previous = undefined
		member.next = undefined
		this.size--
	}
}
