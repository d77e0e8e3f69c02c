-- What has changed in some channels.
-- ARGV     prefix, then channel and version for each
-- returns  for each: version, users, members, whether the change is known, the changes
local all = {}
for at = 2, #ARGV, 2 do
  local channel, since = ARGV[at], tonumber(ARGV[at + 1])
  local version, users, sessions = counts(channel)
  local known, changes = since == version, {}
  if not known then
    local steps = redis.call('ZRANGEBYSCORE', prefix .. 'steps:' .. channel, '(' .. ARGV[at + 1], '+inf')
    for number, packed in ipairs(steps) do
      local step = cmsgpack.unpack(packed)
      if number == 1 then known = tonumber(step[1]) == since end
      if not known then break end
      for _, change in ipairs(step[2]) do changes[#changes + 1] = change end
    end
  end
  all[#all + 1] = { version, users, sessions, known and 1 or 0, changes }
end
return all
