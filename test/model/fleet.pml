/*
 * The protocol of adapters/redis, for spin: processes that take, give back and cancel permits,
 * sessions that are lost with commands and answers under way, late commands, lost messages, leases
 * that end, and books that are gone.
 *
 * What is checked: never more than CAPACITY at work; in no state a free permit and a waiter in the
 * queue at the same time; no permit that nobody uses; and (with -DLIVE) one that was given a permit
 * learns of it, though its message was lost.
 *
 * What is taken for granted, as time does it (see "What the bound rests on" in docs/redis.md):
 * - Redis ends the lease of a process only after the process has taken it to have ended.
 * - Some may be missing (`grace`) until each process has met these books: none speaks in a session
 *   that they don't know, or works under a permit that they don't have.
 *
 * Each process holds at most one permit, of weight 1. The order of the queue is not checked: so it
 * has no tickets, and one that comes back is the last.
 */

#ifndef PROCESSES
#define PROCESSES 2
#endif
#ifndef CAPACITY
#define CAPACITY 1
#endif
/* How often each may happen in one run. */
#ifndef SESSIONS
#define SESSIONS 2
#endif
#ifndef WAITS
#define WAITS 2
#endif
#ifndef LOSSES
#define LOSSES 1
#endif

mtype = { ACQUIRE, RELEASE, RENEW, JOIN, GRANTED, QUEUED, OK, REJOIN, JOINED }

/* operation, session, whether it holds a permit (join), the id of the waiter, or the generation
   that it was in (join) */
chan commands[PROCESSES] = [2] of { mtype, byte, bool, byte }
/* answer, session, generation (join) */
chan answers[PROCESSES] = [2] of { mtype, byte, byte }
/* session, id */
chan messages[PROCESSES] = [1] of { byte, byte }

/* The processes. */
bool joined[PROCESSES]
bool working[PROCESSES]
bool waiting[PROCESSES]
bool lapsed[PROCESSES]
byte session[PROCESSES]
byte seen[PROCESSES]   /* the generation that it was in; 0: none */
byte id[PROCESSES]     /* of its present waiter: none is used twice */
byte atWork

/* The books. */
bool books
byte generation
byte known[PROCESSES]  /* the session; 0: none */
bool has[PROCESSES]
byte waiter[PROCESSES] /* the id of the one in the queue */
bool grace
byte taken
chan queue = [PROCESSES] of { byte }
byte losses

/* Gives what is free of `most` to the head of the queue; its message may be lost. One that Redis
   does not see listen is passed over: it is out of the queue, without a permit. */
inline grant(most) {
	do
	:: taken < most && len(queue) > 0 ->
		queue?head;
		if
		:: len(messages[head]) == 0 ->
			has[head] = true; taken++;
			messages[head]!known[head], waiter[head]
		:: has[head] = true; taken++
		:: skip
		fi
	:: else -> break
	od;
	head = 0; limit = 0
}

inline outOfQueue(p) {
	if
	:: queue??[eval(p)] -> queue??eval(p)
	:: else -> skip
	fi
}

inline drop(p) {
	if
	:: has[p] -> has[p] = false; taken--
	:: else -> skip
	fi;
	outOfQueue(p);
	known[p] = 0
}

inline forgetAll() {
	books = false; grace = false; taken = 0;
	i = 0;
	do
	:: i < PROCESSES -> has[i] = false; known[i] = 0; outOfQueue(i); i++
	:: else -> break
	od;
	i = 0
}

/* While some may be missing, permits only pass from one that releases to one that waits. */
#define LIMIT(freed) (grace -> taken + freed : CAPACITY)

#define INVARIANT assert(!(books && !grace && taken < CAPACITY && len(queue) > 0))

#define KNOWN(p, its) (books && known[p] == its)

/* What Redis does for one process; each step is one command. Of two that are under way (of two
   sessions), either may come first. */
proctype Serve(byte p) {
	byte head, i, its, was, freed, limit;
	bool holds;
	do
	:: atomic { commands[p]??ACQUIRE(its, holds, was) ->
		if
		:: !KNOWN(p, its) -> answers[p]!REJOIN(its, 0)
		:: KNOWN(p, its) && has[p] -> answers[p]!GRANTED(its, 0)
		:: KNOWN(p, its) && !has[p] && len(queue) == 0 && taken < CAPACITY && !grace ->
			has[p] = true; taken++; answers[p]!GRANTED(its, 0)
		:: else -> outOfQueue(p); queue!p; waiter[p] = was; answers[p]!QUEUED(its, 0)
		fi;
		INVARIANT; its = 0; holds = false; was = 0
	}
	:: atomic { commands[p]??RELEASE(its, holds, was) ->
		if
		:: !KNOWN(p, its) -> answers[p]!REJOIN(its, 0)
		:: else ->
			freed = has[p];
			if
			:: has[p] -> has[p] = false; taken--
			:: else -> outOfQueue(p)
			fi;
			limit = LIMIT(freed); grant(limit);
			answers[p]!OK(its, 0)
		fi;
		INVARIANT; its = 0; holds = false; was = 0; freed = 0
	}
	:: atomic { commands[p]??RENEW(its, holds, was) ->
		if
		:: KNOWN(p, its) && has[p] -> answers[p]!GRANTED(its, 0)
		:: KNOWN(p, its) && !has[p] && queue??[eval(p)] -> answers[p]!QUEUED(its, 0)
		:: !KNOWN(p, its) || (!has[p] && !queue??[eval(p)]) -> answers[p]!REJOIN(its, 0)
		fi;
		its = 0; holds = false; was = 0
	}
	:: atomic { commands[p]??JOIN(its, holds, was) ->
		if
		:: known[p] >= its -> answers[p]!REJOIN(its, 0)
		:: else ->
			if
			:: !books -> books = true; generation++; grace = true
			:: else -> skip
			fi;
			if
			:: was != 0 && was != generation -> grace = true
			:: else -> skip
			fi;
			drop(p);
			if
			:: holds -> has[p] = true; taken++
			:: else -> skip
			fi;
			known[p] = its;
			limit = LIMIT(0); grant(limit);
			answers[p]!JOINED(its, generation)
		fi;
		INVARIANT; its = 0; holds = false; was = 0
	}
	/* Its lease ends. */
	:: atomic { lapsed[p] && known[p] != 0 ->
		freed = has[p];
		drop(p);
		limit = LIMIT(freed); grant(limit);
		INVARIANT; freed = 0
	}
	od
}

/* Time, and other programs that can write to Redis. */
active proctype World() {
	byte i, head, limit;
	do
	:: atomic { losses < LOSSES && books -> losses++; forgetAll() }
	:: atomic { books && grace ->
		/* Whether each has met these books. */
		i = 0;
		do
		:: i < PROCESSES && (!joined[i] || known[i] == session[i]) && (!working[i] || has[i]) -> i++
		:: else -> break
		od;
		if
		:: i == PROCESSES -> grace = false; limit = CAPACITY; grant(limit)
		:: else -> skip
		fi;
		INVARIANT; i = 0
	}
	od
}

inline lose(p) {
	joined[p] = false;
	do
	:: len(answers[p]) > 0 -> answers[p]?answer(its, its_generation)
	:: len(answers[p]) == 0 -> break
	od;
	answer = 0; its = 0; its_generation = 0
}

/* Ends a session, with whatever is under way. */
#define MORE(p) (session[p] < SESSIONS)

inline begin(p) {
	waiting[p] = false;
	working[p] = true;
	atWork++;
	assert(atWork <= CAPACITY)
}

proctype Process(byte p) {
	mtype answer;
	byte its, its_generation, its_id;
	bool asked;
	do
	/* It joins, with what it holds: that does not grow until Redis has answered. */
	:: atomic { !joined[p] && !asked && MORE(p) &&
	   len(commands[p]) < 2 ->
		session[p]++;
		commands[p]!JOIN(session[p], working[p], seen[p]);
		asked = true
	}
	:: atomic { joined[p] && !asked && !working[p] && !waiting[p] && id[p] < WAITS &&
	   len(commands[p]) < 2 ->
		waiting[p] = true;
		id[p]++;
		commands[p]!ACQUIRE(session[p], false, id[p]);
		asked = true
	}
	/* A renewal. */
	:: atomic { joined[p] && !asked && waiting[p] &&
	   len(commands[p]) < 2 ->
		commands[p]!RENEW(session[p], false, 0);
		asked = true
	}
	/* The end of its work; or a cancel, which is only sent when the acquire has been answered. */
	:: atomic { joined[p] && !asked && (working[p] || waiting[p]) &&
	   len(commands[p]) < 2 ->
		if
		:: working[p] -> working[p] = false; atWork--
		:: else -> waiting[p] = false
		fi;
		commands[p]!RELEASE(session[p], false, 0);
		asked = true
	}
	/* The end of its work, while it has no session: Redis learns of it when it joins. */
	:: atomic { !joined[p] && !asked && working[p] -> working[p] = false; atWork-- }
	:: atomic { answers[p]?answer(its, its_generation) ->
		if
		:: its != session[p] || !asked -> skip
		:: else ->
			asked = false;
			if
			:: answer == JOINED ->
				joined[p] = true; lapsed[p] = false; seen[p] = its_generation;
				if
				:: waiting[p] -> commands[p]!ACQUIRE(session[p], false, id[p]); asked = true
				:: else -> skip
				fi
			:: answer == REJOIN -> joined[p] = false
			:: answer == GRANTED && waiting[p] -> begin(p)
			:: else -> skip
			fi
		fi;
		/* Redis has no permit of its that is not in use. */
		assert(!(joined[p] && !asked && KNOWN(p, session[p]) && len(commands[p]) == 0 &&
			has[p] && !working[p] && !waiting[p]));
		its = 0; its_generation = 0; answer = 0
	}
	:: atomic { messages[p]?its, its_id ->
		if
		:: joined[p] && its == session[p] && waiting[p] && its_id == id[p] -> begin(p)
		:: else -> skip
		fi;
		its = 0; its_id = 0
	}
	/* No answer in time: the session is over. Its commands may still arrive. */
	:: atomic { (joined[p] || asked) && MORE(p) -> lose(p); asked = false }
	/* Its lease ends, by its own clock: work under it is over, and so is the session. */
	:: atomic { !lapsed[p] && seen[p] != 0 && MORE(p) ->
		lapsed[p] = true;
		if
		:: working[p] -> working[p] = false; atWork--
		:: else -> skip
		fi;
		lose(p);
		asked = false
	}
	od
}

init {
	byte n;
	atomic {
		do
		:: n < PROCESSES -> run Process(n); run Serve(n); n++
		:: else -> break
		od
	}
}

#ifdef LIVE
/* What Redis has given to one that waits, it works under, or it is taken back. */
ltl learns { [] ((has[0] && waiting[0] && joined[0]) -> <> !(has[0] && waiting[0] && joined[0])) }
#endif
