-- Grants units of one key in a sliding window of two buckets; the same rule as TwoBuckets in stormwire-limits.
-- KEYS[1]  the key: a hash of b (number of its bucket), c (units spent in it), p (in the one before)
-- ARGV     limit, window in microseconds, least, most
-- returns  granted, left after that, microseconds to wait, microseconds to the reset
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local least, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local bucket = math.floor(now / window)
local part = (now - bucket * window) / window

local kept = redis.call('HMGET', KEYS[1], 'b', 'c', 'p')
local current, previous = tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
local known = tonumber(kept[1]) or bucket
if bucket == known + 1 then
  current, previous = 0, current
elseif bucket > known then
  current, previous = 0, 0
elseif bucket < known then
  -- The clock went back, as after a fail-over: stay at the beginning of the newer bucket.
  bucket, part = known, 0
end

local left = math.max(0, math.floor(limit - current - previous * (1 - part)))
local granted, wait = 0, 0
if left >= least then
  granted = math.min(left, most)
  current = current + granted
  redis.call('HSET', KEYS[1], 'b', string.format('%.0f', bucket),
    'c', string.format('%.0f', current), 'p', string.format('%.0f', previous))
  redis.call('PEXPIRE', KEYS[1], math.ceil(2 * window / 1000))
else
  -- Windows until the least asked for is left; a thousandth on top rounds up.
  local room = limit - least
  if room < 0 then
    wait = 1
  elseif current <= room and previous > 0 then
    wait = math.max(0, 1 - (room - current) / previous - part) + 0.001
  else
    local forgotten = current > 0 and math.max(0, math.min(1, 1 - room / current)) or 0
    wait = 1 - part + forgotten + 0.001
  end
end

local reset = 2 - part
if current == 0 then
  reset = previous == 0 and 0 or 1 - part
end
return { granted, left - granted, math.ceil(wait * window), math.ceil(reset * window) }
