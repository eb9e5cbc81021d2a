/*
 * The timers of a limiter keep no process alive: a server that has closed can end. But while a
 * caller awaits a permit outside of requests, with a bound, this timer does: otherwise Node could
 * end the process during the wait.
 */

/** The longest delay of a timer, in ms. */
const LONGEST = 2 ** 31 - 1

let waits = 0
let timer: ReturnType<typeof setTimeout> | undefined

function arm(): void {
	timer = setTimeout(arm, LONGEST)
}

/** Keeps the process alive until `wait` settles. */
export async function awake<T>(wait: Promise<T>): Promise<T> {
	if (++waits === 1) arm()
	try {
		return await wait
	} finally {
		if (--waits === 0) clearTimeout(timer)
	}
}
