-- One script has all operations of the protocol. Each is one atomic command. scripts/embed-lua.js
-- joins the files of this folder. ../protocol.ts describes what can go wrong, encodes the arguments
-- that are listed here, and decodes the answers.
--
-- KEYS  1 the books: a hash          ARGV  1 the operation
--       2 the queue: a sorted set          2 the process: <listening><random>
--       3 the leases: a sorted set         3 the number of its session
--                                          4 … those of the operation: in the header of its file
-- Each operation but join may answer {'rejoin'}: the session is not in the books, or not any more.
-- Then nothing was changed.
--
-- The books. All that the bound depends on is in one key, so that it can't be lost in part:
--   head         capacity, active, queued, token, grace: packed into one field, as each field costs
--                time. active and queued are those of the whole fleet. Until the time grace,
--                holders may be missing; 0: no grace
--   =<key>       active, queued of one key, packed; only while one of them is not 0. Without keys,
--                head has these counts
--   <process>    the number of the present session of a process
--   <process>:<session>:<id>   a permit: its weight, then its key with the =, or nothing
--   members      the number of processes, which is also that of leases
--   run, gen     the run id of the server, with its last promotion, and the number of this
--                generation of the books: when they were opened
--   secret       proves to a process that a message about the closing of these books is genuine
--   trust        1: a witness can know that nothing was missing when these books were opened
--   clock        the clock of leases, in ms, and the time of the server when it was last looked at,
--                packed
--   lease        the longest lease, in ms
--   ticket       the last ticket given
--   configured   the capacity that was configured
--
-- This part has acquire and release for the usual case: no waiters and no grace. To be fast, it
-- returns before the functions of the other parts are even created. Each operation changes the
-- books by one write, which is its first. If it fails after that, only a field without effect is
-- left.

local S, Q, op, P, n = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local call, encode, decode = redis.call, struct.pack, struct.unpack
local capacity, active, queued, token, grace
local field, weight, key, s
-- active and queued of the key.
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
        -- The counts are damaged: all processes must join again with what they hold.
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
  -- The name of a field has its session. A session that has ended has no fields.
  field, weight, key = ARGV[4], 0, ARGV[5]
  if key == '' then
    s = call('HMGET', S, 'head', field)
  else
    s = call('HMGET', S, 'head', field, key)
  end
  if not s[1] then return {'rejoin'} end
  capacity, active, queued, token, grace = decode('ddddd', s[1])
  if s[2] then weight = tonumber(s[2]) or tonumber(string.match(s[2], '^%d+') or 0) end
  if key == '' then
    a, q = active, queued
  else
    a, q = 0, 0
    if s[3] then
      if #s[3] ~= 16 then
        -- The counts are damaged: all processes must join again with what they hold.
        call('DEL', S)
        return {'rejoin'}
      end
      a, q = decode('dd', s[3])
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
  elseif call('HGET', S, P) ~= n then
    return {'rejoin'}
  end
end
