-- resize: changes the capacity of the whole fleet
-- ARGV     4 the capacity
-- Answers  {'ok'}

if op == 'resize' then
  capacity = tonumber(ARGV[4])
  grantAll()
  save()
  for _, process in ipairs(call('ZRANGE', L, 0, -1)) do tell(process, 'look') end
  return {'ok'}
end
