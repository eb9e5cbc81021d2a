-- The functions that the other parts share: read and change the books, and grant permits to
-- waiters.

local L = KEYS[3]

-- The clock of leases, and the time of the server. It runs only while Redis serves. Each living
-- process renews within a quarter of a lease, so in a longer time without a renewal Redis was away:
-- such a time counts as at most 0.35 of a lease. A clock of the server that was set back adds
-- nothing.
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

-- The counts of one key: {active, queued}; without keys, those of the fleet.
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

-- Calls a command with a list of any length, at most 1,000 values at a time.
local function each(command, target, list)
  for from = 1, #list, 1000 do
    call(command, target, unpack(list, from, math.min(from + 999, #list)))
  end
end

-- Fields that are not needed any more. They are first set to 0: if the deletion then fails, they
-- have no effect.
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

-- The number of held permits that is told to those that acquire or release. During the grace it is
-- at least the capacity: no process must take a share of room that only seems free, if Redis goes
-- away again.
local function taken()
  return grace > 0 and math.max(capacity, active) or active
end

-- How many permits of a key may be held now, when `freed` have just come back.
local function limit(of, freed)
  if grace > 0 and now() < grace then return math.min(capacity, of.active + freed) end
  return capacity
end

-- Sends a message to a process, and returns whether it listens. A listener on a replica would get
-- the message without being counted: so nothing is sent to a process that does not listen here.
local function tell(process, message)
  if not listens(process) then return false end
  call(sharded(process) and 'SPUBLISH' or 'PUBLISH', channel(process), message)
  return true
end

-- If a command were denied after the first write, the changes would be incomplete: so the rights
-- are checked before. Commands that have run already, or that run first, need no check.
local function deny(command)
  return {err = 'NOPERM the user of the client has no permission to run ' .. command}
end

local function need(command, ...)
  if can and not can(command, ...) then error(deny(command)) end
end

local function needToTell()
  need(sharded(P) and 'SPUBLISH' or 'PUBLISH', channel(P), 'a')
  need('PUBSUB', sharded(P) and 'SHARDNUMSUB' or 'NUMSUB', channel(P))
end

-- Grants permits of a key, up to `most` held, to the head of its queue, again and again, until
-- there is no room for it.
local granting
local function grant(of, most)
  while of.queued > 0 do
    -- There is no room.
    if of.active >= most and (grace > 0 or of.active > 0) then return end
    local from, to = '[' .. of.key .. ':', '(' .. of.key .. ';'
    local head = call('ZRANGE', Q, from, to, 'BYLEX', 'LIMIT', 0, 1)[1]
    if not head then
      change(of, 0, -of.queued)
      return
    end
    local its, process, session, id, size = claimant(head)
    if call('HGET', S, process or '') ~= session then its = nil end
    local w = tonumber(size)
    -- A waiter that is too heavy since the capacity was lowered is admitted alone.
    local alone = grace <= 0 and of.active == 0 and w > capacity
    if its and of.active + w > most and not alone then return end
    if not granting then
      granting = true
      need('HSET', S, 'a', 'b')
      needToTell()
    end
    call('ZREM', Q, head)
    change(of, 0, -1)
    if its then
      token = token + 1
      if tell(process, granted(session, id)) then
        change(of, w, 0)
        put(its, size .. of.key)
      end
    end
  end
end

if key and key ~= '' then accounts[key] = {key = key, active = a, queued = q} end
