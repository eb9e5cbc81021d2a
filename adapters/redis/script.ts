import { createHash } from 'node:crypto'

/*
 * The protocol between the processes of a fleet and Redis: one script with all operations, each atomic, each one command.
 *
 * What Redis keeps of a limiter, all in one hash slot by the tag {name}, all with an expiry that renewals push on:
 *
 *   inflight:{name}            a hash: `head` → capacity, active, queued, token and grace, packed into one field, as
 *                              each field that is looked at has its price; `<process>` → the number of its present session;
 *                              `<process>:<session>:<id>` → the weight of a permit; `run`, `gen`, …: of this generation
 *   inflight:{name}:queue      a sorted set of those who wait: `<process>:<session>:<id>:<weight>` by ticket
 *   inflight:{name}:leases     a sorted set: process → when its lease ends, by the clock of Redis
 *   inflight:{name}:<process>  a channel: `<session>:<id>:<token>` tells a process that its waiter was given a permit. How
 *                              is in the first letter of what the process is called, see `Listening`
 *
 * A lease is a process's, not a permit's. It renews it each quarter of a lease; the same command takes back what belongs to
 * processes whose leases have ended. It is also how a process learns of permits whose message was lost.
 *
 * What can cross, and what then holds:
 *
 * - An answer and the end of patience. A process that got no answer in time does not know what became of its commands. It
 *   ends its *session*: it joins again with the next number, and with the permits that it holds. That drops whatever Redis had
 *   of it; commands of an older session that arrive late are answered `rejoin` and change nothing.
 * - A cancel and a grant. To cancel is to release: it frees the permit if there is one, else takes the waiter out of the
 *   queue. It is sent only once the acquire was answered, so that no redirect can let it arrive first.
 * - A command that the client sends twice, after a reconnection. Each is known by process, session and id, and done once.
 * - A message and a lost subscription. Who publishes sees that nobody listens, and passes over that waiter (in a cluster
 *   only with channels of its shard; else that can't be seen there). One that lives finds out when it subscribes again, or
 *   renews, and returns with its old ticket.
 * - A dead holder, or one that was paused. Its lease ends, its permits go to others, and its session is gone: its late release
 *   changes nothing.
 * - A Redis that lost its memory, by a restart or by a failover. It has another `run` id, nothing, or not even the script; in
 *   each case the next command starts a new *generation*. Processes join again with what they hold. For one lease, while some
 *   may be missing, room counts as taken: permits only pass from who releases to who waits (`grace`), and all
 *   of the capacity is said to be taken: a share of what only seems free would be one too many, should Redis go away again.
 * - A Redis that was away, with all its memory. Nobody could renew, so nobody is taken for dead: all leases begin again.
 */

/** Milliseconds in which all clients have noticed that Redis is back: their longest pause between two attempts is 2 s. */
const RECONNECTED = 3_000

export const SCRIPT: string = `
local S, op, P, n = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local capacity, active, queued, token, grace

-- The two that matter come first, as short as can be: all is well, and nobody waits. Not even the functions below are made
-- for them: that would be a fifth of their time.
local field, weight, s
if op == 'acquire' then
  field, weight = ARGV[4], tonumber(ARGV[5])
  s = call('HMGET', S, 'head', P, field)
  if s[2] ~= n then return {'rejoin'} end
  capacity, active, queued, token, grace = unpack('ddddd', s[1])
  if queued == 0 and active + weight <= capacity and grace == 0 and not s[3] then
    active, token = active + weight, token + 1
    call('HSET', S, 'head', pack('ddddd', capacity, active, 0, token, 0), field, ARGV[5])
    return {token, active}
  end
elseif op == 'release' then
  -- A field names its session: of one that has ended there is none.
  field, weight = ARGV[4], tonumber(ARGV[5])
  s = call('HDEL', S, field)
  local head = call('HGET', S, 'head')
  if not head then return {'rejoin'} end
  capacity, active, queued, token, grace = unpack('ddddd', head)
  if s == 1 then
    active = active - weight
    if queued == 0 and grace == 0 then
      call('HSET', S, 'head', pack('ddddd', capacity, active, 0, token, 0))
      return {'ok', active}
    end
  elseif call('HGET', S, P) ~= n then
    return {'rejoin'}
  end
else
  s = call('HMGET', S, 'head', P, 'run', 'gen', 'seen', 'configured')
  if s[1] then capacity, active, queued, token, grace = unpack('ddddd', s[1]) end
end

local Q, L = KEYS[2], KEYS[3]

-- What a process is told is held: while some may be missing, what seems free is nobody's, neither here nor in the shares
-- that are taken should Redis go away again.
local function taken()
  return grace > 0 and math.max(capacity, active) or active
end

local function save()
  call('HSET', S, 'head', pack('ddddd', capacity, active, queued, token, grace))
end

local clock
local function now()
  if not clock then
    local time = call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

-- How much may be held now, when \`freed\` has just come back.
local function limit(freed)
  if grace > 0 and now() >= grace then grace = 0 end
  if grace > 0 then return math.min(capacity, active + freed) end
  return capacity
end

-- A client that puts a prefix before its keys puts none before its channels.
local function channel(process)
  return string.match(S, 'inflight:{[^{]*$') .. ':' .. process
end

local function sharded(process)
  return string.sub(process, 1, 1) == 's'
end

-- Whether it listens to a channel of its shard.
local function listens(process)
  return call('PUBSUB', 'SHARDNUMSUB', channel(process))[2] > 0
end

-- Returns whether it listens, as far as can be seen. In a cluster, who is not counted may be told all the same, by a replica:
-- so it is asked first.
local function tell(process, message)
  if not sharded(process) then return call('PUBLISH', channel(process), message) > 0 or string.sub(process, 1, 1) == 'b' end
  if not listens(process) then return false end
  call('SPUBLISH', channel(process), message)
  return true
end

-- Hands what is free of \`most\` to the head of the queue, and to the next, until one must wait on.
local function grant(most)
  while queued > 0 do
    local head = call('ZRANGE', Q, 0, 0)[1]
    if not head then
      queued = 0
      return
    end
    local its, process, session, id, w = string.match(head, '^(([^:]+):([^:]+):([^:]+)):(%d+)$')
    w = tonumber(w)
    -- Who is too heavy for the whole capacity, since it was lowered, goes alone.
    if active + w > most and (grace > 0 or active > 0 or w <= capacity) then return end
    call('ZREM', Q, head)
    queued, token = queued - 1, token + 1
    local message = session .. ':' .. id .. ':' .. string.format('%.0f', token)
    if tell(process, message) then
      active = active + w
      call('HSET', S, its, w)
    end
  end
end

-- Forgets all that Redis has of a process. Returns what it held.
local function drop(process)
  local prefix, freed = process .. ':', 0
  local all = call('HGETALL', S)
  for k = 1, #all, 2 do
    if string.sub(all[k], 1, #prefix) == prefix then
      freed = freed + all[k + 1]
      call('HDEL', S, all[k])
    end
  end
  if queued > 0 then
    for _, member in ipairs(call('ZRANGE', Q, 0, -1)) do
      if string.sub(member, 1, #prefix) == prefix then queued = queued - call('ZREM', Q, member) end
    end
  end
  call('HDEL', S, process)
  call('ZREM', L, process)
  active = active - freed
  return freed
end

local function expire(lease)
  local longest = math.max(lease, tonumber(call('HGET', S, 'lease') or 0))
  call('HSET', S, 'lease', longest)
  for _, key in ipairs(KEYS) do call('PEXPIRE', key, 2 * longest) end
end

-- What a process must know of the fleet: where it stands in it, and in how many ms there is something to do.
local function fleet(answer)
  local leases, rank, soon = call('ZRANGE', L, 0, -1, 'WITHSCORES'), 0, -1
  for k = 1, #leases, 2 do
    local left = math.max(leases[k + 1] - now(), 0)
    if leases[k] < P then rank = rank + 1 end
    if leases[k] ~= P and (soon < 0 or left < soon) then soon = left end
  end
  if grace > 0 and (soon < 0 or grace - now() < soon) then soon = math.max(grace - now(), 0) end
  for _, value in ipairs({capacity, taken(), queued, #leases / 2, rank, soon}) do table.insert(answer, value) end
  return answer
end

local function server()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '', 86400 end
  return string.match(info, 'run_id:(%w+)') or '', tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or 86400)
end

if op == 'acquire' then
  -- longest queue, ttl of the queue, ticket of one who comes back or 0
  if s[3] then return {token, taken()} end
  local most = limit(0)
  if queued == 0 and active + weight <= most then
    active, token = active + weight, token + 1
    call('HSET', S, field, weight)
    save()
    return {token, active}
  end
  if queued >= tonumber(ARGV[6]) then return {'full', taken(), queued} end
  local last, ticket, ahead = tonumber(call('HGET', S, 'ticket')), tonumber(ARGV[8]), queued
  if ticket == 0 then ticket = last + 1 end
  if ticket > last then call('HSET', S, 'ticket', ticket) end
  queued = queued + call('ZADD', Q, 'NX', ticket, field .. ':' .. weight)
  if ahead == 0 then call('PEXPIRE', Q, ARGV[7]) end
  grant(most)
  save()
  return {'queued', taken(), ahead, ticket}
end

if op == 'release' then
  if s == 1 then
    grant(limit(weight))
  else
    -- It may have been the head, too heavy for the room there is, with lighter ones behind it.
    queued = queued - call('ZREM', Q, field .. ':' .. weight)
    grant(limit(0))
  end
  save()
  return {'ok', taken()}
end

if op == 'join' then
  -- lease, ttl, generation it was in or '', configured capacity, capacity to be from now on or '', highest token,
  -- last known capacity, then the permits that it holds: field, weight, …
  if sharded(P) and not listens(P) then return {'unheard'} end
  local lease, ttl, was, configured = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
  local run, uptime = server()
  local known, gen = s[2], s[4]
  if not gen or run ~= s[3] then
    call('DEL', S, Q, L)
    grace = 0
    -- The uptime is in whole seconds, and up to one too long.
    local young = math.min(lease, math.min(lease + 1000, ${RECONNECTED}) - uptime * 1000)
    if gen then grace = now() + ttl elseif young > 0 then grace = now() + young end
    if was ~= '' or not capacity then capacity = tonumber(ARGV[10]) end
    -- Not from 0: whoever compares tokens compares them across generations too.
    active, queued, token, known = 0, 0, math.max(now() * 1000, token or 0), false
    gen, configured = string.format('%.0f', now()), s[6] or configured
    -- The first field is the one that is found soonest.
    call('HSET', S, 'head', '', 'run', run, 'gen', gen, 'seen', now(), 'ticket', now() * 1000, 'configured', configured)
  elseif known and tonumber(known) >= tonumber(n) then
    return {'stale'}
  else
    configured = s[6]
  end
  -- It comes from before this generation, and others may too.
  if was ~= '' and was ~= gen then grace = math.max(grace, tonumber(gen) + ttl) end
  if was == '' and configured ~= ARGV[7] then
    capacity = tonumber(ARGV[7])
    call('HSET', S, 'configured', ARGV[7])
  end
  if ARGV[8] ~= '' then capacity = tonumber(ARGV[8]) end
  token = math.max(token, tonumber(ARGV[9]))
  if known then drop(P) end
  for k = 11, #ARGV, 2 do
    call('HSET', S, ARGV[k], ARGV[k + 1])
    active = active + ARGV[k + 1]
  end
  call('HSET', S, P, n)
  call('ZADD', L, now() + ttl, P)
  grant(limit(0))
  save()
  expire(lease)
  return fleet({'ok', gen})
end

if s[2] ~= n then return {'rejoin'} end

if op == 'renew' then
  -- lease, ttl, then some of those who wait, oldest first: field, weight, …
  local lease, ttl, freed = tonumber(ARGV[4]), tonumber(ARGV[5]), 0
  if server() ~= s[3] then return {'rejoin'} end
  local gap = now() - s[5]
  if gap < 0 or gap > 0.6 * lease then
    for _, process in ipairs(call('ZRANGE', L, 0, -1)) do call('ZADD', L, now() + ttl, process) end
  end
  call('ZADD', L, now() + ttl, P)
  for _, process in ipairs(call('ZRANGEBYSCORE', L, '-inf', now())) do freed = freed + drop(process) end
  grant(limit(freed))
  local given = {}
  for k = 6, #ARGV, 2 do
    if call('HEXISTS', S, ARGV[k]) == 1 then
      token = token + 1
      table.insert(given, ARGV[k])
      table.insert(given, token)
    else
      if not call('ZSCORE', Q, ARGV[k] .. ':' .. ARGV[k + 1]) then given = nil end
      break
    end
  end
  call('HSET', S, 'seen', now())
  save()
  expire(lease)
  if not given then return {'rejoin'} end
  local answer = fleet({'ok', s[4]})
  for _, value in ipairs(given) do table.insert(answer, value) end
  return answer
end

if op == 'resize' then
  capacity = tonumber(ARGV[4])
  grant(limit(0))
  save()
  for _, process in ipairs(call('ZRANGE', L, 0, -1)) do tell(process, 'capacity:' .. capacity) end
  return {'ok'}
end

-- leave
local freed = drop(P)
if call('ZCARD', L) == 0 then
  call('DEL', S, Q, L)
else
  grant(limit(freed))
  save()
end
return {'ok'}
`

export const SHA: string = createHash('sha1').update(SCRIPT).digest('hex')
