-- vouch: says of books that were opened out of nothing that nothing was missing: nobody need wait
--          for others to come back
-- ARGV     4 their generation
-- Answers  {'ok'}

if op == 'vouch' then
  if s[4] == ARGV[4] and s[6] == '1' then
    grace = 0
    grantAll()
    save()
  end
  return {'ok'}
end
