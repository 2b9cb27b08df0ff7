-- KEYS: streams. ARGV: prefix, consumer, now, then triples of stream index, entry and id.
-- Hands entries back: the attempt does not count, and somebody is woken for them.
local prefix, me, now = ARGV[1], ARGV[2], ARGV[3]
local touched = {}
for i = 4, #ARGV, 3 do
  local stream, entry, id = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
  local deliveries = deliveries_of(stream, entry, me)
  if deliveries then
    give(stream, entry, RELEASED, math.max(0, deliveries - 1))
    local job = prefix .. ':job:' .. id
    local about = redis.call('HMGET', job, 'status', 'step')
    if about[1] and not is_final(about[1]) then
      redis.call('HSET', job, 'status', 'queued', 'updated', now, 'progress', 0)
      tell(prefix, id, 'queued', now, cjson.encode({step = about[2]}))
    end
    touched[stream] = true
  end
end
for stream in pairs(touched) do nudge(stream) end
return 1
