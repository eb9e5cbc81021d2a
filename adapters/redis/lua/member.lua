-- What the other operations of a member have in common: its session is in the books, and they are
-- all there.

if op == 'renew' or op == 'vouch' or op == 'resize' or op == 'leave' then
  needAll()
  s = call('HMGET', S, 'head', P, 'run', 'gen', 'members', 'trust', 'secret')
  if s[2] ~= n or not s[1] then return {'rejoin'} end
  capacity, active, queued, token, grace = decode('ddddd', s[1])
  clear(Q, 'zset')
  clear(L, 'zset')
  -- Of a process without a lease nobody would notice that it died. With other books, all say again
  -- what they hold.
  if call('ZCARD', L) ~= tonumber(s[5]) then
    call('DEL', S, Q, L)
    return {'rejoin'}
  end
end
