-- Takes members out that hang on a life whose lease ran out.
-- ARGV     prefix, most members
-- returns  the changed channels with their versions, and whether there is more to take out
local lives, over = prefix .. 'lives', prefix .. 'over'
local now = math.floor(microseconds() / 1000)
local function expired()
  return redis.call('ZRANGEBYSCORE', lives, '-inf', whole(now), 'LIMIT', 0, 1)[1]
end

local life = redis.call('ZRANGE', over, 0, 0)[1]
if not life then
  life = expired()
  if not life then return { {}, 0 } end
  -- From here on it cannot be renewed: half of its members may be told as left.
  redis.call('ZREM', lives, life)
  redis.call('ZADD', over, whole(now), life)
end
local holds, changes = prefix .. 'holds:' .. life, {}
for _, held in ipairs(redis.call('SPOP', holds, tonumber(ARGV[2]))) do
  local cut = string.find(held, '%z')
  changes[#changes + 1] = { string.sub(held, 1, cut - 1), string.sub(held, cut + 1), false }
end
local changed = change_all(changes)
if redis.call('EXISTS', holds) == 0 then
  redis.call('ZREM', over, life)
  redis.call('HDEL', prefix .. 'turns', life)
end
local more = redis.call('EXISTS', over) == 1 or expired()
return { changed, more and 1 or 0 }
