-- renew: renews the lease of a process, takes back what belongs to processes whose leases have
--          ended, and reports permits whose message was lost
-- ARGV     4 lease, 5 ttl, in ms
--          6 … some of its waiters: <process>:<session>:<id>, then the member of the queue
-- Answers  {'renewed', capacity, active, queued, processes, rank,
--           ms until another lease, or the grace, ends, or -1, 1 in a grace or 0,
--           1 if Redis sees that the process listens, or 0,
--           then <process>:<session>:<id>, token of each waiter that was granted a permit}

if op == 'renew' then
  local lease, ttl, freed = tonumber(ARGV[4]), tonumber(ARGV[5]), {}
  local run = server()
  if run ~= s[3] then return {'rejoin'} end
  local asked, places = {}, {}
  for k = 6, #ARGV, 2 do
    asked[#asked + 1] = ARGV[k]
    places[#places + 1] = ARGV[k + 1]
  end
  call('ZADD', L, now() + ttl, P)
  local ended = call('ZRANGE', L, '-inf', now(), 'BYSCORE')
  for _, process in ipairs(ended) do drop(process, freed) end
  if #ended > 0 then put('members', s[5] - #ended) end
  if grace > 0 and now() >= grace then
    grace = 0
    grantAll()
  end
  grantFreed(freed)
  save()
  expire(lease)
  local given = {}
  if #asked > 0 then
    local permits, scores = call('HMGET', S, unpack(asked)), call('ZMSCORE', Q, unpack(places))
    for k, name in ipairs(asked) do
      if permits[k] and permits[k] ~= '0' then
        token = token + 1
        given[#given + 1] = name
        given[#given + 1] = token
      elseif not scores[k] then
        return {'rejoin'}
      end
    end
    if #given > 0 then
      call('HSET', S, 'head', encode('ddddd', capacity, active, queued, token, grace))
    end
  end
  local answer = fleet({'renewed'})
  for _, value in ipairs(given) do answer[#answer + 1] = value end
  return answer
end
