-- Begins a life, lets it go on, or ends it.
-- ARGV     prefix, life, begin | renew | end, lease in milliseconds
-- returns  1, or 0 if that life is over or not known
local life, what, lease = ARGV[2], ARGV[3], tonumber(ARGV[4])
local now = math.floor(microseconds() / 1000)
local known = redis.call('ZSCORE', prefix .. 'lives', life)
if what == 'begin' then
  if redis.call('ZSCORE', prefix .. 'over', life) then return 0 end
  redis.call('SET', prefix .. 'born', whole(now), 'NX')
elseif not known then
  return 0
end
redis.call('ZADD', prefix .. 'lives', what == 'end' and 0 or whole(now + lease), life)
return 1
