-- The common part of the other operations of a member: its session must be in the books, and the
-- books must be complete.

if op == 'renew' or op == 'vouch' or op == 'resize' or op == 'leave' then
  needAll()
  s = call('HMGET', S, 'head', P, 'run', 'gen', 'members', 'trust', 'secret')
  if s[2] ~= n or not s[1] then return {'rejoin'} end
  capacity, active, queued, token, grace = decode('ddddd', s[1])
  clear(Q, 'zset')
  clear(L, 'zset')
  -- The death of a process without a lease would not be noticed, nor would waiters in the queue
  -- that the books don't count (as they are an old copy) be served. With new books, all processes
  -- join again with what they hold.
  if call('ZCARD', L) ~= tonumber(s[5]) or call('ZCARD', Q) > queued then
    call('DEL', S, Q, L)
    return {'rejoin'}
  end
end
