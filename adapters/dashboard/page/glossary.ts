// What the words and figures mean.

export const GLOSSARY = {
	limiter: 'A limit on how many requests are at work at the same time, by the name it was given.',
	state:
		'Rejecting: it rejected a request in the last 10 seconds. Near its bound: the queue, or the wait, is at 80 % of what is allowed. Full: all permits have been held most of the time. Abandoned work: a quarter or more of what is at work has no client any more. Would reject: a dry run, which admits all requests. Fine: none of these.',
	load: 'Requests at work (dark) and waiting (light), over the time that is chosen above. The dashed line is the capacity. Red marks: seconds in which requests were rejected.',
	active:
		'Permits held now, of the capacity. A request holds its permit from the start of its handler to the end of the response, or, if its client has left, to the end of the handler.',
	queued: 'Requests that wait for a permit now, of those that may (maxQueue).',
	wait: 'How long admitted requests had waited before their handlers began. p99: 99 of 100 waited no longer. In the table: the worst second of the last 10, of the longest wait that is allowed (maxWait).',
	rejected:
		'Requests that got no permit, by the server’s decision. In the table: in a second, the mean of the last 10 seconds.',
	done: 'Requests that have ended and given their permits back, in a second: the mean of the last 10 seconds.',
	admitted: 'Requests that were given a permit: their handlers began.',
	completed: 'Requests that have ended, and whose client stayed until then.',
	left: 'Requests whose client left while they waited. The server rejected nothing.',
	abandoned:
		'The client has left, and the handler is still at work. So the request still holds its permit, at most for abandonedTimeout.',
	hold: 'How long requests held their permits: the time of the handler and of the response. p50 is the median; p99: 99 of 100 held it no longer.',
	keys: 'Each key (a user, a tenant, an address) has a limit of its own. In use: keys with a request at work or waiting. At their limit: keys whose permits are all held.',
	capacity: 'How many requests may be at work at the same time.',
	decisions:
		'A controller finds the capacity from the requests that end. Its last changes, and why.',
	loop: 'How long the event loop of this process has been at work without waiting for events. When it is late, requests are rejected even if permits are free (reason: overloaded).',
	fleet: 'All processes that share this limit, as Redis last reported them.',
	shared: 'Requests at work in this process, of the permits that all processes share.',
	busy: 'The part of the last second in which the event loop of the process was at work. Near 100 %, everything is late.',
	'queue-full': 'The queue had no place left.',
	timeout: 'It waited for the longest time that is allowed, or its deadline could not be met.',
	evicted: 'It waited, and its place was given to a request with a better right to it.',
	overloaded: 'The event loop was late.',
	unavailable: 'Redis, which shares the limit between processes, did not answer.',
	closed: 'The limiter is closed: the server is shutting down.',
	busiest: 'The keys with most requests at work and waiting now.',
	longest:
		'The keys of the requests that waited longest, in the time that is chosen above: of each second, at most five.',
	mostRejected:
		'The keys of most rejections, in the time that is chosen above. Each second tells at most five, so the counts are the least there were.',
} as const

export type Word = keyof typeof GLOSSARY
