-- What the scripts of presence share. All keys of a partition carry the tag {partition}, so that a script
-- finds them on one node of a cluster; ARGV[1] is what they begin with.
--   lives             sorted set: names of lives by the end of their lease, in milliseconds
--   over              sorted set: lives that a sweep has begun with, by when
--   turns             hash: the last turn of each life
--   born              when the first life began since Redis was empty, in milliseconds
--   holds:LIFE        set: what hangs on a life, as channel NUL user NUL session
--   members:CHANNEL   sorted set, all of one score: user NUL session
--   more:CHANNEL      hash: on how many lives beyond the first one a member hangs
--   meta:CHANNEL      hash: v version, u users, n changes kept
--   steps:CHANNEL     sorted set by version: packed {version before, changes}, each '+' or '-' and a member
local prefix = ARGV[1]
-- Changes kept of a channel, and for how long after the last one; how long an empty channel's version is kept.
local STEPS_KEPT, STEPS_KEPT_MS, EMPTY_KEPT_MS = 2000, 60000, 600000

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Makes changes of one channel, each {member, here}; answers with its version if its members are others now.
local function change(channel, changes)
  local members, more = prefix .. 'members:' .. channel, prefix .. 'more:' .. channel
  local meta, steps = prefix .. 'meta:' .. channel, prefix .. 'steps:' .. channel
  local made, users = {}, 0
  for _, one in ipairs(changes) do
    local member, here = one[1], one[2]
    local user = string.sub(member, 1, string.find(member, '%z') - 1)
    local first, behind = '[' .. user .. '\0', '(' .. user .. '\1'
    if here then
      if redis.call('ZADD', members, 0, member) == 1 then
        if redis.call('ZLEXCOUNT', members, first, behind) == 1 then users = users + 1 end
        made[#made + 1] = '+' .. member
      else
        redis.call('HINCRBY', more, member, 1)
      end
    else
      local others = tonumber(redis.call('HGET', more, member)) or 0
      if others > 1 then
        redis.call('HINCRBY', more, member, -1)
      elseif others == 1 then
        redis.call('HDEL', more, member)
      elseif redis.call('ZREM', members, member) == 1 then
        if redis.call('ZLEXCOUNT', members, first, behind) == 0 then users = users - 1 end
        made[#made + 1] = '-' .. member
      end
    end
  end
  if #made == 0 then return nil end

  local kept = redis.call('HMGET', meta, 'v', 'n')
  local from, count = tonumber(kept[1]) or 0, tonumber(kept[2]) or 0
  if redis.call('EXISTS', steps) == 0 then count = 0 end
  -- By the clock, so that a version never comes back, whatever was lost; but always a new one.
  local to = math.max(from + 1, microseconds())
  redis.call('ZADD', steps, whole(to), cmsgpack.pack({ whole(from), made }))
  count = count + #made
  while count > STEPS_KEPT do
    local oldest = redis.call('ZPOPMIN', steps)
    if #oldest == 0 then count = 0 else count = count - #cmsgpack.unpack(oldest[1])[2] end
  end
  redis.call('PEXPIRE', steps, STEPS_KEPT_MS)
  redis.call('HSET', meta, 'v', whole(to), 'n', count)
  redis.call('HINCRBY', meta, 'u', users)
  if redis.call('EXISTS', members) == 0 then
    redis.call('PEXPIRE', meta, EMPTY_KEPT_MS)
  else
    redis.call('PERSIST', meta)
  end
  return to
end

-- Makes changes of several channels, each {channel, member, here}; answers with {channel, version, ..}.
local function change_all(changes)
  local names, by_channel, changed = {}, {}, {}
  for _, one in ipairs(changes) do
    local list = by_channel[one[1]]
    if not list then
      list = {}
      by_channel[one[1]] = list
      names[#names + 1] = one[1]
    end
    list[#list + 1] = { one[2], one[3] }
  end
  for _, channel in ipairs(names) do
    local version = change(channel, by_channel[channel])
    if version then
      changed[#changed + 1] = channel
      changed[#changed + 1] = version
    end
  end
  return changed
end

-- Version, users and members of a channel.
local function counts(channel)
  local kept = redis.call('HMGET', prefix .. 'meta:' .. channel, 'v', 'u')
  local sessions = redis.call('ZCARD', prefix .. 'members:' .. channel)
  return tonumber(kept[1]) or 0, tonumber(kept[2]) or 0, sessions
end
