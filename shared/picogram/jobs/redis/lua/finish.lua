-- KEYS: the entry's stream, the next step's stream or ''
-- ARGV: prefix, consumer, entry, id, now, milliseconds to keep, 'move' or a final status, then
--       move: step, batch, cost, envelope;  final: data of the event, job fields...
-- Returns 1, or 0 where the job is not this consumer's any more or has ended otherwise.
local prefix, me, entry, id, now, ttl, what = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local stream, job = KEYS[1], prefix .. ':job:' .. id
if not deliveries_of(stream, entry, me) then return 0 end
remove(stream, entry)
local about = redis.call('HMGET', job, 'status', 'deadline')
if not about[1] or is_final(about[1]) then return 0 end
local deadline = tonumber(about[2])
if deadline and deadline <= tonumber(now) then
  time_out(prefix, id, now, ttl)
  return 0
end
if what == 'move' then
  local following = redis.call('XADD', KEYS[2], '*', 'id', id, 'batch', ARGV[9], 'cost', ARGV[10], 'deadline', about[2] or '',
    'envelope', ARGV[11])
  redis.call('HSET', job, 'status', 'queued', 'step', ARGV[8], 'updated', now, 'stream', KEYS[2], 'entry', following,
    'attempt', 0, 'progress', 0)
  tell(prefix, id, 'queued', now, cjson.encode({step = ARGV[8]}))
else
  local fields = {}
  for i = 9, #ARGV do fields[#fields + 1] = ARGV[i] end
  conclude(prefix, id, what, now, ttl, ARGV[8], fields)
end
return 1
