-- acquire and release while others wait, in the usual case: no grace, the queue is not lost, and
-- one permit passes from a holder to a waiter. As fast.lua, this runs before the functions of the
-- other parts are created. What it does not handle, it leaves to them. Then it has changed nothing.

local can, match = redis.acl_check_cmd, string.match

-- The member of the queue for a waiter. All have the score 0, so they are sorted by name: by key,
-- then by ticket.
local function standing(of, ticket, holder, w)
  return string.format('%s:%016.0f:%s:%s', of, ticket, holder, w)
end

-- What such a member says: <process>:<session>:<id>, each of the three, and the weight.
local function claimant(member)
  return match(member, '^[^:]*:%d+:(([^:]+):([^:]+):([^:]+)):(%d+)$')
end

-- A client with a prefix for keys puts none before channels, so it is removed here.
local base = string.sub(S, 1, 10) == 'inflight:{' and S or match(S, 'inflight:{[^{]*$')
local function channel(name)
  return base .. ':' .. name
end

local function sharded(process)
  return string.sub(process, 1, 1) == 's'
end

-- Whether a process listens to its channel, as far as this can be seen.
local function listens(process)
  if string.sub(process, 1, 1) == 'b' then return true end
  local count = sharded(process) and 'SHARDNUMSUB' or 'NUMSUB'
  return call('PUBSUB', count, channel(process))[2] > 0
end

local function granted(session, id)
  return string.format('grant:%s:%s:%.0f', session, id, token)
end

if op == 'acquire' and grace == 0 and not s[3] then
  -- The queue may be lost while the books are not.
  local waits = q > 0 and call('ZCARD', Q) > 0 or q == 0 and a > 0
  if waits and q >= tonumber(ARGV[7]) then return {'full', active, q} end
  if waits and (not can or can('HSET', S, 'a', 'b') and (queued > 0 or can('PEXPIRE', Q, '1'))) then
    local last, ticket = tonumber(s[4]), tonumber(ARGV[9])
    if ticket == 0 then ticket = last + 1 end
    if call('ZADD', Q, 'NX', 0, standing(key, ticket, field, ARGV[5])) == 1 then
      -- The queue may be new. Renewals extend its expiry.
      if queued == 0 then call('PEXPIRE', Q, ARGV[8]) end
      local head = encode('ddddd', capacity, active, queued + 1, token, 0)
      last = math.max(last, ticket)
      if key == '' then
        call('HSET', S, 'head', head, 'ticket', last)
      else
        call('HSET', S, 'head', head, 'ticket', last, key, encode('dd', a, q + 1))
      end
    end
    return {'queued', active, q, ticket}
  end
elseif op == 'release' and grace == 0 and weight > 0 then
  local first = call('ZRANGE', Q, '[' .. key .. ':', '(' .. key .. ';', 'BYLEX', 'LIMIT', 0, 1)[1]
  local its, process, session, id, size = claimant(first or '')
  local left, w = a - weight, tonumber(size)
  -- The permits that come back are enough for the first waiter, and not for another one.
  if w and left + w <= capacity and (left + w == capacity or q == 1) and not sharded(process)
    and call('HGET', S, process) == session and listens(process)
    and (not can or can('HSET', S, 'a', 'b') and can('PUBLISH', channel(process), 'a')) then
    call('ZREM', Q, first)
    queued, q, token = queued - 1, q - 1, token + 1
    active, a = active - weight + w, left + w
    call('PUBLISH', channel(process), granted(session, id))
    local head = encode('ddddd', capacity, active, queued, token, 0)
    if key == '' then
      call('HSET', S, 'head', head, field, '0', its, size)
    else
      call('HSET', S, 'head', head, field, '0', its, size .. key, key, encode('dd', a, q))
    end
    call('HDEL', S, field)
    return {'ok', active}
  end
end
