import { createHash } from 'node:crypto'

/*
 * The protocol between the processes of a fleet and Redis: one script with all operations, each atomic, each one command.
 *
 * What Redis keeps of a limiter, all in one hash slot by the tag {name}, all with an expiry that renewals push on:
 *
 *   inflight:{name}          a hash: `capacity`, `active`, `queued`, `token`, … as below,
 *                            `n:<process>` → the number of its present session,
 *                            `<process>:<id>` → the weight of a permit that it holds
 *   inflight:{name}:queue    a sorted set of those who wait: `<process>:<id>:<weight>` by its ticket
 *   inflight:{name}:leases   a sorted set: process → when its lease ends, by the clock of Redis
 *   inflight:{name}:<process>  a channel: `<id>:<token>` tells a process that its waiter has been given a permit
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
 * - A message and a lost subscription. Who publishes sees that nobody listens, and passes over that waiter (not in a
 *   cluster, where it can't be seen). One that lives finds out when it subscribes again, and returns with its old ticket.
 * - A dead holder, or one that was paused. Its lease ends, its permits go to others, and its session is gone: its late release
 *   changes nothing.
 * - A Redis that lost its memory, by a restart or by a failover. It has another `run` id, nothing, or not even the script; in
 *   each case the next command starts a new *generation*. Processes join again with what they hold. For one lease, while some
 *   may be missing, room counts as taken: permits only pass from who releases to who waits (`grace`).
 * - A Redis that was away, with all its memory. Nobody could renew, so nobody is taken for dead: all leases begin again.
 */

/** Milliseconds in which all clients have noticed that Redis is back: their longest pause between two attempts is 2 s. */
const RECONNECTED = 3_000

export const SCRIPT: string = `
local S, Q, L = KEYS[1], KEYS[2], KEYS[3]
local op, P, n = ARGV[1], ARGV[2], ARGV[3]
local call = redis.call

-- The two that matter come first, as short as can be: all is well, and nobody waits.
local id, weight, s
if op == 'acquire' then
  id, weight = ARGV[4], tonumber(ARGV[5])
  s = call('HMGET', S, 'n:' .. P, 'capacity', 'active', 'queued', 'token', 'grace', 'blind', P .. ':' .. id)
  if s[1] ~= n then return {'rejoin'} end
  local active = s[3] + weight
  if s[4] == '0' and not s[6] and not s[8] and active <= tonumber(s[2]) then
    local token = s[5] + 1
    call('HSET', S, 'active', active, 'token', token, P .. ':' .. id, weight)
    return {token, active}
  end
elseif op == 'release' then
  id = ARGV[4]
  s = call('HMGET', S, 'n:' .. P, 'capacity', 'active', 'queued', 'token', 'grace', 'blind', P .. ':' .. id)
  if s[1] ~= n then return {'rejoin'} end
  if s[8] and s[4] == '0' then
    call('HDEL', S, P .. ':' .. id)
    call('HSET', S, 'active', s[3] - s[8])
    return {'ok'}
  end
else
  s = call('HMGET', S, 'n:' .. P, 'capacity', 'active', 'queued', 'token', 'grace', 'blind', 'run', 'gen', 'seen', 'configured')
end

local known, capacity, active = s[1], tonumber(s[2]), tonumber(s[3])
local queued, token, grace, blind = tonumber(s[4]), tonumber(s[5]), tonumber(s[6]), s[7]

local clock
local function now()
  if not clock then
    local time = call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

local function save()
  call('HSET', S, 'active', active, 'queued', queued, 'token', token)
end

-- Hands what is free of \`limit\` to the head of the queue, and to the next, until one must wait on.
local function grant(limit)
  if grace and limit > capacity then limit = capacity end
  while queued > 0 do
    local head = call('ZRANGE', Q, 0, 0)[1]
    if not head then
      queued = 0
      return
    end
    local p, i, w = string.match(head, '^([^:]+):([^:]+):(%d+)$')
    w = tonumber(w)
    -- Who is too heavy for the whole capacity, since it was lowered, goes alone.
    if active + w > limit and (grace or active > 0 or w <= capacity) then return end
    call('ZREM', Q, head)
    queued = queued - 1
    token = token + 1
    if call('PUBLISH', S .. ':' .. p, i .. ':' .. string.format('%.0f', token)) > 0 or blind == '1' then
      active = active + w
      call('HSET', S, p .. ':' .. i, w)
    end
  end
end

-- How much may be held now, when \`freed\` has just come back.
local function limit(freed)
  if grace and now() >= grace then
    call('HDEL', S, 'grace')
    grace = nil
  end
  if grace then return active + freed end
  return capacity
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
  call('HDEL', S, 'n:' .. process)
  call('ZREM', L, process)
  active = active - freed
  return freed
end

local function expire(lease)
  local longest = math.max(lease, tonumber(call('HGET', S, 'lease') or 0))
  call('HSET', S, 'lease', longest)
  call('PEXPIRE', S, 2 * longest)
  call('PEXPIRE', Q, 2 * longest)
  call('PEXPIRE', L, 2 * longest)
end

-- What a process must know of the fleet: where it stands in it, and in how many ms there is something to do.
local function fleet(answer)
  local leases, rank, soon = call('ZRANGE', L, 0, -1, 'WITHSCORES'), 0, -1
  for k = 1, #leases, 2 do
    local left = leases[k + 1] - now()
    if leases[k] < P then rank = rank + 1 end
    if leases[k] ~= P and (soon < 0 or left < soon) then soon = math.max(left, 0) end
  end
  if grace and (soon < 0 or grace - now() < soon) then soon = math.max(grace - now(), 0) end
  for _, value in ipairs({capacity, active, queued, #leases / 2, rank, soon}) do table.insert(answer, value) end
  return answer
end

local function server()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '', 86400 end
  return string.match(info, 'run_id:(%w+)') or '', tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or 86400)
end

if op == 'acquire' then
  -- maxQueue, ttl of the queue, the ticket of one who comes back
  if s[8] then return {token, active} end
  local room = limit(0)
  if queued == 0 and active + weight <= room then
    active, token = active + weight, token + 1
    call('HSET', S, P .. ':' .. id, weight)
    save()
    return {token, active}
  end
  if queued >= tonumber(ARGV[6]) then return {'full', active, queued} end
  local ticket = tonumber(call('HGET', S, 'seq') or 0)
  local own = tonumber(ARGV[8])
  if own == 0 then own = ticket + 1 end
  local ahead = queued
  if call('ZADD', Q, 'NX', own, P .. ':' .. id .. ':' .. weight) == 1 then queued = queued + 1 end
  if own > ticket then call('HSET', S, 'seq', own) end
  if ahead == 0 then call('PEXPIRE', Q, ARGV[7]) end
  grant(room)
  save()
  return {'queued', active, ahead, own}
end

if op == 'release' then
  if s[8] then
    call('HDEL', S, P .. ':' .. id)
    local freed = tonumber(s[8])
    active = active - freed
    grant(limit(freed))
  elseif call('ZREM', Q, P .. ':' .. id .. ':' .. ARGV[5]) == 1 then
    -- It may have been the head, too heavy for the room there is, with lighter ones behind it.
    queued = queued - 1
    grant(limit(0))
  else
    return {'ok'}
  end
  save()
  return {'ok'}
end

if op == 'renew' then
  -- lease, ttl, then some of those who wait, oldest first: id, weight, …
  local lease, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])
  if known ~= n or server() ~= s[8] then return {'rejoin'} end
  local gap = now() - s[10]
  if gap < 0 or gap > 0.6 * lease then
    for _, process in ipairs(call('ZRANGE', L, 0, -1)) do call('ZADD', L, now() + ttl, process) end
  end
  call('ZADD', L, now() + ttl, P)
  local freed = 0
  for _, process in ipairs(call('ZRANGEBYSCORE', L, '-inf', now())) do freed = freed + drop(process) end
  grant(limit(freed))
  call('HSET', S, 'seen', now())
  local given = {}
  for k = 6, #ARGV, 2 do
    if call('HEXISTS', S, P .. ':' .. ARGV[k]) == 1 then
      token = token + 1
      table.insert(given, ARGV[k])
      table.insert(given, token)
    else
      if not call('ZSCORE', Q, P .. ':' .. ARGV[k] .. ':' .. ARGV[k + 1]) then
        save()
        return {'rejoin'}
      end
      break
    end
  end
  save()
  expire(lease)
  local answer = fleet({'ok', s[9]})
  for _, value in ipairs(given) do table.insert(answer, value) end
  return answer
end

if op == 'join' then
  -- lease, ttl, generation it was in or '', blind, configured capacity, capacity to be from now on or '', highest token,
  -- last known capacity, then the permits that it holds: id, weight, …
  local lease, ttl, was = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
  local run, uptime = server()
  local gen = s[9]
  if not gen or run ~= s[8] then
    local lost = gen
    call('DEL', S, Q, L)
    gen = string.format('%.0f', now())
    if was ~= '' or not capacity then capacity = tonumber(ARGV[11]) end
    active, queued, grace, known = 0, 0, nil, false
    -- Not from 0: whoever compares tokens compares them across generations too.
    token = math.max(now() * 1000, token or 0)
    if lost then grace = now() + ttl end
    local young = math.min(lease, ${RECONNECTED}) - uptime * 1000
    if not lost and young > 0 then grace = now() + young end
    call('HSET', S, 'run', run, 'gen', gen, 'seen', now(), 'seq', now() * 1000, 'configured', s[11] or ARGV[8])
    s[11] = s[11] or ARGV[8]
  elseif known and tonumber(known) >= tonumber(n) then
    return {'stale'}
  end
  if was ~= '' and was ~= gen then
    -- It comes from before this generation, and others may too.
    local ends = tonumber(gen) + ttl
    if ends > now() and ends > (grace or 0) then grace = ends end
  end
  blind = ARGV[7]
  token = math.max(token, tonumber(ARGV[10]))
  if ARGV[9] ~= '' then
    capacity = tonumber(ARGV[9])
  elseif was == '' and s[11] ~= ARGV[8] then
    capacity = tonumber(ARGV[8])
  end
  if was == '' and s[11] ~= ARGV[8] then call('HSET', S, 'configured', ARGV[8]) end
  if known then drop(P) end
  for k = 12, #ARGV, 2 do
    call('HSET', S, P .. ':' .. ARGV[k], ARGV[k + 1])
    active = active + ARGV[k + 1]
  end
  call('HSET', S, 'n:' .. P, n, 'capacity', capacity, 'blind', blind)
  if grace then call('HSET', S, 'grace', grace) end
  call('ZADD', L, now() + ttl, P)
  grant(limit(0))
  save()
  expire(lease)
  return fleet({'ok', gen})
end

if known ~= n then return {'rejoin'} end

if op == 'resize' then
  capacity = tonumber(ARGV[4])
  call('HSET', S, 'capacity', capacity)
  grant(limit(0))
  save()
  for _, process in ipairs(call('ZRANGE', L, 0, -1)) do call('PUBLISH', S .. ':' .. process, 'capacity:' .. capacity) end
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
