-- A page of members.
-- ARGV     prefix, channel, member before the page or nothing, most members, lease in milliseconds
-- returns  version, users, members, whether a lease has passed since the first life began, the page
local channel, after, lease = ARGV[2], ARGV[3], tonumber(ARGV[5])
local first = after == '' and '-' or '(' .. after
local page = redis.call('ZRANGEBYLEX', prefix .. 'members:' .. channel, first, '+', 'LIMIT', 0, ARGV[4])
local born = tonumber(redis.call('GET', prefix .. 'born'))
local settled = born and microseconds() / 1000 - born >= lease
local version, users, sessions = counts(channel)
return { version, users, sessions, settled and 1 or 0, page }
