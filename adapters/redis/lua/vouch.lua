-- vouch: confirms that books that were opened without older ones miss nothing: this ends the grace
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
