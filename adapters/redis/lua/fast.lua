-- One script with all operations of the protocol, each atomic, each one command;
-- scripts/embed-lua.js joins these files in the order that it gives. ../protocol.ts says what can
-- cross, and encodes and decodes what is listed here.
--
-- KEYS  1 the books: a hash          ARGV  1 the operation
--       2 the queue: a sorted set          2 the process: <listening><random>
--       3 the leases: a sorted set         3 the number of its session
--                                          4 … those of the operation: in the header of its file
-- Each operation but join may answer {'rejoin'}: the session is not (or no longer) in the books;
-- nothing was changed.
--
-- The books, so that all that the bound rests on is lost together, or not at all:
--   head         capacity, active, queued, token, grace: packed into one field, as each field has
--                its price. active and queued are of the whole fleet; grace is the time until which
--                some may be missing, or 0
--   =<key>       active, queued of one key, packed; only while one of them is not 0. Without keys,
--                those of head count
--   <process>    the number of its present session
--   <process>:<session>:<id>   a permit: its weight, then its key with the =, or nothing
--   members      how many processes there are: as many as there are leases
--   run, gen     the run id of the server, and the number of this generation of the books: when
--                they were opened
--   secret       by which a process knows that a message on the closing of these books is true
--   trust        1: a witness can know that nothing was missing when these books were opened
--   clock        the clock of leases, in ms, and the time of the server when it was last looked at,
--                packed
--   lease        the longest lease, in ms
--   ticket       the last ticket given
--   configured   the capacity that was configured
--
-- This part has acquire and release when all is well and nobody waits, as short as can be: not even
-- the functions of the other parts are made for them. Each changes the books by one write that is
-- the first, and after which only a field that says nothing can be left.

local S, op, P, n = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local call, encode, decode = redis.call, struct.pack, struct.unpack
local capacity, active, queued, token, grace
local field, weight, key, s
-- Active and queued of the key.
local a, q

if op == 'acquire' then
  field, weight, key = ARGV[4], tonumber(ARGV[5]), ARGV[6]
  if key == '' then
    s = call('HMGET', S, 'head', P, field, 'ticket')
    if s[2] ~= n or not s[1] then return {'rejoin'} end
    capacity, active, queued, token, grace = decode('ddddd', s[1])
    if queued == 0 and active + weight <= capacity and grace == 0 and not s[3] then
      active, token = active + weight, token + 1
      call('HSET', S, 'head', encode('ddddd', capacity, active, 0, token, 0), field, ARGV[5])
      return {'granted', token, active}
    end
    a, q = active, queued
  else
    s = call('HMGET', S, 'head', P, field, 'ticket', key)
    if s[2] ~= n or not s[1] then return {'rejoin'} end
    capacity, active, queued, token, grace = decode('ddddd', s[1])
    a, q = 0, 0
    if s[5] then
      if #s[5] ~= 16 then
        -- They can't be trusted: all say again what they hold.
        call('DEL', S)
        return {'rejoin'}
      end
      a, q = decode('dd', s[5])
    end
    if q == 0 and a + weight <= capacity and grace == 0 and not s[3] then
      active, token = active + weight, token + 1
      call('HSET', S, 'head', encode('ddddd', capacity, active, queued, token, 0),
        field, ARGV[5] .. key, key, encode('dd', a + weight, 0))
      return {'granted', token, active}
    end
  end
elseif op == 'release' then
  -- A field names its session: of one that has ended there is none.
  field, weight, key = ARGV[4], 0, ARGV[5]
  if key == '' then
    s = call('HMGET', S, 'head', P, field)
  else
    s = call('HMGET', S, 'head', P, field, key)
  end
  if not s[1] then return {'rejoin'} end
  capacity, active, queued, token, grace = decode('ddddd', s[1])
  if s[3] then weight = tonumber(string.match(s[3], '^%d+') or 0) end
  if key == '' then
    a, q = active, queued
  else
    a, q = 0, 0
    if s[4] then
      if #s[4] ~= 16 then
        -- They can't be trusted: all say again what they hold.
        call('DEL', S)
        return {'rejoin'}
      end
      a, q = decode('dd', s[4])
    end
  end
  if weight > 0 then
    if q == 0 and grace == 0 then
      active, a = active - weight, a - weight
      if key == '' then
        call('HSET', S, 'head', encode('ddddd', capacity, active, 0, token, 0), field, '0')
        call('HDEL', S, field)
      else
        call('HSET', S, 'head', encode('ddddd', capacity, active, queued, token, 0),
          field, '0', key, encode('dd', a, 0))
        if a == 0 then call('HDEL', S, field, key) else call('HDEL', S, field) end
      end
      return {'ok', active}
    end
  elseif s[2] ~= n then
    return {'rejoin'}
  end
end
