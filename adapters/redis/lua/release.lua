-- release: ends a permit, or a wait, in the cases that fast.lua doesn't handle
-- ARGV     4 <process>:<session>:<id>, 5 =<key> or '', 6 weight,
--          7 the ticket of one that waits, or 0
-- Answers  {'ok', active of the fleet}

if op == 'release' then
  local of = account(key)
  if weight > 0 then
    change(of, -weight, 0)
    put(field, '0')
    spare[1] = field
    grant(of, limit(of, weight))
  else
    -- It may have been a head that was too heavy for the free room, with lighter waiters behind it.
    need('HSET', S, 'a', 'b')
    need('ZRANGE', Q, '0', '0')
    need('HGET', S, 'a')
    if grace > 0 then now() end
    change(of, 0, -call('ZREM', Q, standing(key, ARGV[7], field, ARGV[6])))
    grant(of, limit(of, 0))
  end
  save()
  return {'ok', taken()}
end
