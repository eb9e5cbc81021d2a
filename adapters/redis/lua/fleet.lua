-- The functions for the operations of a member of the fleet (join, renew, …), as opposed to those
-- of a request.

-- Checks the rights for all commands that these operations may run, as any of them may come after
-- the first write.
local function needAll()
  need('HSET', S, 'a', 'b')
  need('HDEL', S, 'a')
  need('HGET', S, 'a')
  need('HMGET', S, 'a')
  need('HSCAN', S, '0')
  need('ZADD', Q, '0', 'a')
  need('ZREM', Q, 'a')
  need('ZRANGE', Q, '0', '0')
  need('ZSCAN', Q, '0')
  need('ZCARD', L)
  need('ZMSCORE', Q, 'a')
  need('DEL', S)
  need('PEXPIRE', S, '1')
  need('TYPE', S)
  need('TIME')
  need('INFO', 'server')
  needToTell()
end

-- Deletes a key that has another type: it was not written by this script.
local function clear(name, type)
  local found = call('TYPE', name)['ok']
  if found ~= type and found ~= 'none' then call('DEL', name) end
end

-- The same as `grant`, for all keys that have waiters.
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

-- All members of a hash or a sorted set whose names match: {name, value, …}
local function find(command, target, pattern)
  local found, cursor = {}, '0'
  repeat
    local page = call(command, target, cursor, 'MATCH', pattern, 'COUNT', 100000)
    cursor = page[1]
    for _, value in ipairs(page[2]) do found[#found + 1] = value end
  until cursor == '0'
  return found
end

-- Removes a process from the books. Notes what it held, and the keys that it waited for, in
-- `freed`.
local function drop(process, freed)
  local gone, permits = {process}, find('HSCAN', S, process .. ':*')
  for k = 1, #permits, 2 do
    local w, of = match(permits[k + 1], '^(%d+)(.*)$')
    w = tonumber(w or 0)
    gone[#gone + 1] = permits[k]
    -- A field that could not be deleted says nothing, not even whose permit it was.
    if w > 0 then
      change(account(of), -w, 0)
      freed[of] = (freed[of] or 0) + w
    end
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

-- Adds the state of the fleet to an answer, with the rank of the process, the time in ms until the
-- next lease of another process, or the grace, ends, whether there is a grace, and whether the
-- process is seen to listen.
local function fleet(answer)
  local leases, rank, soon = call('ZRANGE', L, 0, -1, 'WITHSCORES'), 0, -1
  for k = 1, #leases, 2 do
    local left = math.max(leases[k + 1] - now(), 0)
    if leases[k] < P then rank = rank + 1 end
    if leases[k] ~= P and (soon < 0 or left < soon) then soon = left end
  end
  if grace > 0 and (soon < 0 or grace - now() < soon) then soon = math.max(grace - now(), 0) end
  local known = {capacity, active, queued, #leases / 2, rank, math.ceil(soon), grace > 0 and 1 or 0,
    listens(P) and 1 or 0}
  for _, value in ipairs(known) do
    answer[#answer + 1] = value
  end
  return answer
end

-- Which memory the server has, and how long it has been up, in s. What it had as a replica was
-- another server's. When it is promoted, it notes the history that it had till then, and its end.
local function server()
  local info = call('INFO', 'server', 'replication')
  local run = match(info, 'run_id:(%w+)') or ''
  local history, till = match(info, 'master_replid2:(%w+)'), match(info, 'second_repl_offset:(%d+)')
  if till then run = run .. ':' .. history .. ':' .. till end
  return run, tonumber(match(info, 'uptime_in_seconds:(%d+)')) or 0
end
