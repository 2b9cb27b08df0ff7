-- KEYS: streams. ARGV: prefix, consumer, now, then triples of stream index, entry and id.
-- Returns the ids of jobs that are not to go on.
local prefix, me, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local lost = {}
for i = 4, #ARGV, 3 do
  local stream, entry, id = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
  local about = redis.call('HMGET', prefix .. ':job:' .. id, 'status', 'deadline')
  local deadline = tonumber(about[2])
  if not about[1] or is_final(about[1]) or (deadline and deadline <= now) or not deliveries_of(stream, entry, me) then
    lost[#lost + 1] = id
  else
    redis.call('XCLAIM', stream, GROUP, me, 0, entry, 'JUSTID')
  end
end
return lost
