-- join: begins a new session of a process, with the permits that it holds; older sessions of it
--          are removed from the books
-- ARGV     4 lease, in ms
--          5 ttl: how long the books keep a process that does not renew, in ms
--          6 the grace if there are no older books: the time for holders to join, in ms
--          7 how long after its start a server may be one that has lost its memory, in ms
--          8 the generation that the process was in, or ''
--          9 the capacity that was configured
--          10 the new capacity, or ''
--          11 the highest token that it saw
--          12 the last capacity that the process knew
--          13 the secret of the books, if it opens them
--          14 '1' to be told the maxmemory-policy, or ''
--          15 … the permits that it holds: <process>:<session>:<id>, <weight><=key>
-- Answers  {'joined', generation, secret, opened (1: it has opened the books, and there were
--           no older ones; or 0),
--           maxmemory-policy or '', capacity, active, queued, processes, rank,
--           ms until another lease, or the grace, ends, or -1, 1 in a grace or 0,
--           1 if Redis sees that the process listens, or 0}
--          {'unheard'}: Redis does not see that the process listens to its channel
--          {'stale'}: there is a session with this number, or a higher one

if op == 'join' then
  needAll()
  if sharded(P) and not listens(P) then return {'unheard'} end
  clear(S, 'hash')
  clear(Q, 'zset')
  clear(L, 'zset')
  local lease, ttl, was = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[8]
  local b = call('HMGET', S, 'head', 'run', 'gen', 'clock', 'members', 'ticket', 'lease', 'secret',
    'configured', P)
  local run, uptime = server()
  local members, gen, known, configured, opened = tonumber(b[5] or ''), b[3], b[10], b[9], 0

  -- Whether the books are complete and valid.
  local whole = b[1] and #b[1] == 40 and b[4] and #b[4] == 16 and
    tonumber(b[6] or '') and tonumber(b[7] or '') and b[8] and
    match(gen or '', '^%d+$') and members == call('ZCARD', L)
  if whole then
    capacity, active, queued, token, grace = decode('ddddd', b[1])
    whole = capacity >= 1 and active >= 0 and queued >= 0 and
      token >= 0 and token < 2 ^ 53 and grace >= 0
  end
  -- If a process comes from a younger generation than the present one, the books are an old copy.
  if whole and b[2] == run and (was == '' or tonumber(was) <= tonumber(gen)) then
    if (tonumber(known or '') or 0) >= tonumber(n) then return {'stale'} end
    now()
  else
    local nothing = call('DEL', S, Q, L) == 0
    local time = call('TIME')
    real = time[1] * 1000 + math.floor(time[2] / 1000)
    clock = math.max(real, (tonumber(was) or 0) + 1, whole and decode('d', b[4]) + 1 or 0)
    -- Not from 0, as tokens are compared across generations, too.
    token = math.max(clock * 1000, whole and token or 0)
    if not whole or was ~= '' then capacity = tonumber(ARGV[12]) end
    active, queued, members, known = 0, 0, 0, false
    -- An empty Redis is only trusted if no process can hold permits. Holders notice with their next
    -- command that the books are gone. A server that has just started may have lost its memory
    -- while its clients could not reach it.
    if nothing and was == '' then
      local rest = math.min(lease, tonumber(ARGV[7]) - uptime * 1000)
      grace, opened = clock + math.max(tonumber(ARGV[6]), rest), 1
    else
      grace = clock + ttl
    end
    gen, configured = string.format('%.0f', clock), configured or ARGV[9]
    b[8] = ARGV[13]
    -- 'head' comes first, as the first field is found fastest.
    call('HSET', S, 'head', '', 'run', run, 'gen', gen, 'secret', ARGV[13], 'lease', lease,
      'members', 0, 'ticket', string.format('%.0f', clock * 1000), 'configured', configured, 'trust', opened)
    call('HSET', S, 'clock', encode('dd', clock, real))
    if string.sub(P, 1, 1) == 'p' then call('PUBLISH', channel('books'), 'opened:' .. gen) end
  end
  -- This process comes from an older generation, and others may, too.
  if was ~= '' and was ~= gen then
    grace = math.max(grace, tonumber(gen) + ttl)
    put('trust', 0)
  end
  local before = capacity
  if was == '' and configured ~= ARGV[9] then
    capacity = tonumber(ARGV[9])
    put('configured', ARGV[9])
  end
  if ARGV[10] ~= '' then capacity = tonumber(ARGV[10]) end
  token = math.max(token, tonumber(ARGV[11]))
  local freed = {}
  if known then
    drop(P, freed)
    members = members - 1
  end
  for k = 15, #ARGV, 2 do
    local w, of = match(ARGV[k + 1], '^(%d+)(.*)$')
    put(ARGV[k], ARGV[k + 1])
    change(account(of), tonumber(w), 0)
  end
  put(P, n)
  put('members', members + 1)
  call('ZADD', L, clock + ttl, P)
  for of in pairs(freed) do grant(account(of), limit(account(of), 0)) end
  if capacity ~= before then grantAll() end
  save()
  expire(lease)
  local policy = ''
  if ARGV[14] == '1' then
    policy = match(call('INFO', 'memory'), 'maxmemory_policy:([%w-]+)') or ''
  end
  return fleet({'joined', gen, b[8], opened, policy})
end
