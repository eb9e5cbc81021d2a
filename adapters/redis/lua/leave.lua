-- leave: removes a process from the books; with the last one, removes the books
-- Answers  {'ok'}

if op == 'leave' then
  local freed = {}
  drop(P, freed)
  if call('ZCARD', L) == 0 then
    call('DEL', S, Q, L)
    if string.sub(P, 1, 1) == 'p' then
      call('PUBLISH', channel('books'), 'closed:' .. s[4] .. ':' .. s[7])
    end
  else
    put('members', s[5] - 1)
    grantFreed(freed)
    save()
  end
  return {'ok'}
end
