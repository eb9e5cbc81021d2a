-- What the other parts share: reading the books, changing them, and giving permits to waiters.

local Q, L = KEYS[2], KEYS[3]
local match, can = string.match, redis.acl_check_cmd

-- A client that puts a prefix before its keys puts none before its channels.
local function channel(name)
  return match(S, 'inflight:{[^{]*$') .. ':' .. name
end

local function sharded(process)
  return string.sub(process, 1, 1) == 's'
end

-- The first command, of those that write or are used between two writes, that the user may not run.
-- The server says so before the first write: a script that fails later leaves half of its work.
local function forbidden()
  if not can then return end
  if not can('HSET', S, 'a', 'b') then return 'HSET' end
  if not can('HDEL', S, 'a') then return 'HDEL' end
  if not can('HGET', S, 'a') then return 'HGET' end
  if not can('ZADD', Q, '0', 'a') then return 'ZADD' end
  if not can('ZREM', Q, 'a') then return 'ZREM' end
  if not can('ZRANGE', Q, '0', '0') then return 'ZRANGE' end
  if not can('PEXPIRE', S, '1') then return 'PEXPIRE' end
  if not can('TIME') then return 'TIME' end
  if sharded(P) then
    if not can('SPUBLISH', channel(P), 'a') then return 'SPUBLISH' end
    if not can('PUBSUB', 'SHARDNUMSUB', channel(P)) then return 'PUBSUB' end
  elseif not can('PUBLISH', channel(P), 'a') then
    return 'PUBLISH'
  end
end

-- Those that only joining, renewing and leaving need.
local function forbiddenToMembers()
  if not can then return end
  if not can('HMGET', S, 'a') then return 'HMGET' end
  if not can('HSCAN', S, '0') then return 'HSCAN' end
  if not can('ZSCAN', Q, '0') then return 'ZSCAN' end
  if not can('ZCARD', L) then return 'ZCARD' end
  if not can('ZMSCORE', Q, 'a') then return 'ZMSCORE' end
  if not can('DEL', S) then return 'DEL' end
  if not can('TYPE', S) then return 'TYPE' end
  if not can('INFO', 'server') then return 'INFO' end
end

local function deny(command)
  return redis.error_reply('NOPERM the user of the client has no permission to run ' .. command)
end

-- What is at one of our keys and of another type is not ours.
local function clear(name, type)
  local found = call('TYPE', name)['ok']
  if found ~= type and found ~= 'none' then call('DEL', name) end
end

-- The clock of leases, and the time of the server. It runs only while Redis serves: each living
-- process is heard within a quarter of a lease, so that a longer time without any of them is
-- nobody's fault, and counts as no more than 0.35 of one. A time that was set back counts as none.
local clock, real
local function now()
  if clock then return clock end
  local time = call('TIME')
  real = time[1] * 1000 + math.floor(time[2] / 1000)
  local packed, lease = call('HGET', S, 'clock'), tonumber(call('HGET', S, 'lease'))
  local seen
  clock, seen = decode('dd', packed)
  clock = clock + math.max(0, math.min(real - seen, 0.35 * lease))
  return clock
end

-- What one key has: {active, queued}; without keys, what the fleet has.
local accounts = {}
local function account(of)
  local found = accounts[of]
  if found then return found end
  found = {key = of, active = active, queued = queued}
  if of ~= '' then
    local packed = call('HGET', S, of)
    found.active, found.queued = 0, 0
    if packed and #packed == 16 then found.active, found.queued = decode('dd', packed) end
  end
  accounts[of] = found
  return found
end

local function change(of, permits, waiters)
  of.active, of.queued = of.active + permits, of.queued + waiters
  active, queued = active + permits, queued + waiters
end

-- Fields and values that are still to be written.
local fields = {}
local function put(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end

-- Calls with at most 1,000 of a list of any length.
local function each(command, target, list)
  for from = 1, #list, 1000 do
    call(command, target, unpack(list, from, math.min(from + 999, #list)))
  end
end

local function save()
  put('head', encode('ddddd', capacity, active, queued, token, grace))
  if clock then put('clock', encode('dd', clock, real)) end
  local empty = {}
  for name, of in pairs(accounts) do
    if name == '' then
      -- It is in the head.
    elseif of.active == 0 and of.queued == 0 then
      empty[#empty + 1] = name
    else
      put(name, encode('dd', of.active, of.queued))
    end
  end
  each('HSET', S, fields)
  each('HDEL', S, empty)
end

-- What a process is told is held: while some may be missing, what seems free is nobody's, neither
-- here nor in the shares that are taken should Redis go away again.
local function taken()
  return grace > 0 and math.max(capacity, active) or active
end

-- How much of a key may be held now, when `freed` has just come back.
local function limit(of, freed)
  if grace > 0 and now() < grace then return math.min(capacity, of.active + freed) end
  return capacity
end

-- Whether it listens to a channel of its shard.
local function listens(process)
  return call('PUBSUB', 'SHARDNUMSUB', channel(process))[2] > 0
end

-- Returns whether it listens, as far as can be seen. In a cluster, one that is not counted may be
-- told all the same, by a replica: so it is asked first.
local function tell(process, message)
  if not sharded(process) then
    return call('PUBLISH', channel(process), message) > 0 or string.sub(process, 1, 1) == 'b'
  end
  if not listens(process) then return false end
  call('SPUBLISH', channel(process), message)
  return true
end

-- What stands in the queue: all with the score 0, so in the order of their names: key, ticket.
local function standing(of, ticket, holder, w)
  return of .. ':' .. string.format('%016.0f', ticket) .. ':' .. holder .. ':' .. w
end

-- Gives what is free of `most` to the head of a key's queue, and to the next, until one must wait
-- on.
local function grant(of, most)
  while of.queued > 0 do
    local head = call('ZRANGE', Q, '[' .. of.key .. ':', '(' .. of.key .. ';', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not head then
      change(of, 0, -of.queued)
      return
    end
    local its, process, session, id, size = match(head, '^[^:]*:%d+:(([^:]+):([^:]+):([^:]+)):(%d+)$')
    if its and (call('HGET', S, process) ~= session) then its = nil end
    local w = tonumber(size)
    -- One that is too heavy for the whole capacity, since it was lowered, goes alone.
    if its and of.active + w > most and (grace > 0 or of.active > 0 or w <= capacity) then return end
    call('ZREM', Q, head)
    change(of, 0, -1)
    if its then
      token = token + 1
      if tell(process, 'grant:' .. session .. ':' .. id .. ':' .. string.format('%.0f', token)) then
        change(of, w, 0)
        put(its, size .. of.key)
      end
    end
  end
end

-- The same for all keys that somebody waits for.
local function grantAll()
  if queued == 0 then return end
  local from = '-'
  while true do
    local head = call('ZRANGE', Q, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not head then return end
    local of = match(head, '^([^:]*):') or ''
    grant(account(of), limit(account(of), 0))
    from = '(' .. of .. ';'
  end
end

-- All of a hash or a sorted set whose name fits: {name, value, …}
local function find(command, target, pattern)
  local found, cursor = {}, '0'
  repeat
    local page = call(command, target, cursor, 'MATCH', pattern, 'COUNT', 100000)
    cursor = page[1]
    for _, value in ipairs(page[2]) do found[#found + 1] = value end
  until cursor == '0'
  return found
end

-- Forgets all that the books have of a process. Notes what it held, and where it waited, by key.
local function drop(process, freed)
  local gone, permits = {process}, find('HSCAN', S, process .. ':*')
  for k = 1, #permits, 2 do
    local w, of = match(permits[k + 1], '^(%d+)(.*)$')
    if not w then w, of = 0, '' end
    gone[#gone + 1] = permits[k]
    change(account(of), -tonumber(w), 0)
    freed[of] = (freed[of] or 0) + w
  end
  each('HDEL', S, gone)
  if queued > 0 then
    local waiters, names = find('ZSCAN', Q, '*:' .. process .. ':*'), {}
    for k = 1, #waiters, 2 do
      local of = match(waiters[k], '^([^:]*):')
      names[#names + 1] = waiters[k]
      change(account(of), 0, -1)
      freed[of] = freed[of] or 0
    end
    each('ZREM', Q, names)
  end
  call('ZREM', L, process)
end

local function grantFreed(freed)
  for of, w in pairs(freed) do grant(account(of), limit(account(of), w)) end
end

local function expire(lease)
  local longest = math.max(lease, tonumber(call('HGET', S, 'lease')) or 0)
  call('HSET', S, 'lease', longest)
  for _, name in ipairs(KEYS) do call('PEXPIRE', name, 2 * longest) end
end

-- What a process must know of the fleet: where it stands in it, and in how many ms there is
-- something to do.
local function fleet(answer)
  local leases, rank, soon = call('ZRANGE', L, 0, -1, 'WITHSCORES'), 0, -1
  for k = 1, #leases, 2 do
    local left = math.max(leases[k + 1] - now(), 0)
    if leases[k] < P then rank = rank + 1 end
    if leases[k] ~= P and (soon < 0 or left < soon) then soon = left end
  end
  if grace > 0 and (soon < 0 or grace - now() < soon) then soon = math.max(grace - now(), 0) end
  for _, value in ipairs({capacity, taken(), queued, #leases / 2, rank, math.ceil(soon)}) do
    answer[#answer + 1] = value
  end
  return answer
end

local function server()
  local info = call('INFO', 'server')
  return match(info, 'run_id:(%w+)') or '', tonumber(match(info, 'uptime_in_seconds:(%d+)')) or 0
end

-- Each operation of the slow path writes only after this.
local denied = forbidden()
if denied then return deny(denied) end
if op == 'acquire' or op == 'release' then
  clear(Q, 'zset')
  if key ~= '' then accounts[key] = {key = key, active = a, queued = q} end
end
