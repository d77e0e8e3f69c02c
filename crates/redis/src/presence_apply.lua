-- Makes changes under a life.
-- ARGV     prefix, life, turn, then channel, member, 1 | 0 for each change
-- returns  1 and the changed channels with their versions, or 0 if the life is over
local life, turn = ARGV[2], tonumber(ARGV[3])
if not redis.call('ZSCORE', prefix .. 'lives', life) then return { 0 } end
local last = tonumber(redis.call('HGET', prefix .. 'turns', life)) or 0
-- Sent before, and overtaken: the caller has given it up.
if turn <= last then return { 1 } end
redis.call('HSET', prefix .. 'turns', life, whole(turn))
local changes, holds = {}, prefix .. 'holds:' .. life
for at = 4, #ARGV, 3 do
  local channel, member, here = ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  local held = channel .. '\0' .. member
  if redis.call(here and 'SADD' or 'SREM', holds, held) == 1 then
    changes[#changes + 1] = { channel, member, here }
  end
end
return { 1, change_all(changes) }
