-- acquire: a permit, or a place in the queue, in the cases that fast.lua doesn't handle
-- ARGV     4 <process>:<session>:<id>, 5 weight, 6 =<key> or '', 7 longest queue,
--          8 how long the queue is kept, in ms, 9 the ticket of one that comes back, or 0
-- Answers  {'granted', token, active of the fleet}
--          {'queued', active of the fleet, waiters ahead, ticket}
--          {'full', active of the fleet, waiters}

if op == 'acquire' then
  local of = account(key)
  if s[3] then
    -- The client has sent it twice, or a message with the permit is on its way.
    token = token + 1
    save()
    return {'granted', token, taken()}
  end
  -- The queue may be gone while the books are not.
  if of.queued > 0 and call('ZCARD', Q) == 0 then change(of, 0, -of.queued) end
  local heavy = weight > capacity and grace == 0 and of.active == 0
  if of.queued == 0 and (of.active + weight <= limit(of, 0) or heavy) then
    token = token + 1
    change(of, weight, 0)
    put(field, ARGV[5] .. key)
    save()
    return {'granted', token, taken()}
  end
  if of.queued >= tonumber(ARGV[7]) then
    save()
    return {'full', taken(), of.queued}
  end
  local last, ticket, ahead = tonumber(s[4]), tonumber(ARGV[9]), of.queued
  if ticket == 0 then ticket = last + 1 end
  if ticket > last then put('ticket', string.format('%.0f', ticket)) end
  need('HSET', S, 'a', 'b')
  -- The queue may be new. Renewals extend its expiry.
  if queued == 0 then need('PEXPIRE', Q, '1') end
  if call('ZADD', Q, 'NX', 0, standing(key, ticket, field, ARGV[5])) == 1 then
    if queued == 0 then call('PEXPIRE', Q, ARGV[8]) end
    change(of, 0, 1)
  end
  save()
  return {'queued', taken(), ahead, ticket}
end
