-- What the other parts share: reading the books, changing them, and giving permits to waiters.

local Q, L = KEYS[2], KEYS[3]
local match, can = string.match, redis.acl_check_cmd

-- A client that puts a prefix before its keys puts none before its channels.
local base = string.sub(S, 1, 10) == 'inflight:{' and S or match(S, 'inflight:{[^{]*$')
local function channel(name)
  return base .. ':' .. name
end

local function sharded(process)
  return string.sub(process, 1, 1) == 's'
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

-- Fields that are not needed any more. They are written first, with nothing in them: what could not
-- be deleted afterwards says nothing.
local spare = {}

local function save()
  put('head', encode('ddddd', capacity, active, queued, token, grace))
  if clock then put('clock', encode('dd', clock, real)) end
  for name, of in pairs(accounts) do
    if name ~= '' then
      put(name, encode('dd', of.active, of.queued))
      if of.active == 0 and of.queued == 0 then spare[#spare + 1] = name end
    end
  end
  each('HSET', S, fields)
  each('HDEL', S, spare)
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

-- A script that is denied a command after its first write leaves half of its work done: so it asks
-- before. What it has run before, or runs first, need not be asked for.
local function deny(command)
  return {err = 'NOPERM the user of the client has no permission to run ' .. command}
end

local function need(command, ...)
  if can and not can(command, ...) then error(deny(command)) end
end

-- What stands in the queue: all with the score 0, so in the order of their names: key, ticket.
local function standing(of, ticket, holder, w)
  return of .. ':' .. string.format('%016.0f', ticket) .. ':' .. holder .. ':' .. w
end

-- Gives what is free of `most` to the head of a key's queue, and to the next, until one must wait
-- on.
local granting
local function grant(of, most)
  while of.queued > 0 do
    local head = call('ZRANGE', Q, '[' .. of.key .. ':', '(' .. of.key .. ';', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not head then
      change(of, 0, -of.queued)
      return
    end
    local its, process, session, id, size = match(head, '^[^:]*:%d+:(([^:]+):([^:]+):([^:]+)):(%d+)$')
    if call('HGET', S, process or '') ~= session then its = nil end
    local w = tonumber(size)
    -- One that is too heavy for the whole capacity, since it was lowered, goes alone.
    if its and of.active + w > most and (grace > 0 or of.active > 0 or w <= capacity) then return end
    if not granting then
      granting = true
      need('HSET', S, 'a', 'b')
      if sharded(P) then
        need('PUBSUB', 'SHARDNUMSUB', channel(P))
        need('SPUBLISH', channel(P), 'a')
      else
        need('PUBLISH', channel(P), 'a')
      end
    end
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

if key and key ~= '' then accounts[key] = {key = key, active = a, queued = q} end
