-- KEYS: the entry's stream, the next step's stream or ''
-- ARGV: prefix, consumer, entry, id, now, milliseconds to keep, 'move' or a final status, blob of the payload so far, blob
--       of the outcome's or '', '1' if that follows, payload, milliseconds to keep it, then
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
local before, blob = ARGV[8], ARGV[9]
if ARGV[10] == '1' then redis.call('SET', prefix .. ':blob:' .. blob, ARGV[11], 'PX', ARGV[12]) end
if before ~= blob then redis.call('UNLINK', prefix .. ':blob:' .. before) end
if what == 'move' then
  local following = redis.call('XADD', KEYS[2], '*', 'id', id, 'batch', ARGV[14], 'cost', ARGV[15], 'deadline', about[2] or '',
    'envelope', ARGV[16], 'blob', blob)
  redis.call('HSET', job, 'status', 'queued', 'step', ARGV[13], 'updated', now, 'stream', KEYS[2], 'entry', following,
    'attempt', 0, 'progress', 0)
  tell(prefix, id, 'queued', now, cjson.encode({step = ARGV[13]}))
else
  local fields = {}
  for i = 14, #ARGV do fields[#fields + 1] = ARGV[i] end
  conclude(prefix, id, what, now, ttl, ARGV[13], fields)
end
return 1
