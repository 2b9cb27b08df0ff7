-- A batch, chosen where the queue is, so that nobody holds what does not fit it.
-- KEYS: the queue's streams by priority
-- ARGV: prefix, consumer, count, cost limit, now, milliseconds to keep, batch so far or '', its cost, window,
--       then pairs of stream index and entry that the consumer has read already
-- Returns {{stream index, entry, deliveries, id, envelope, payload or nil where it is big or elsewhere}, ...}.
local prefix, me, count, limit, now, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local batch, total, window = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local got, passed = {}, 0

-- True unless the entry waits on for another batch; taken, dropped and damaged ones are dealt with.
local function consider(index, entry, job, deliveries, owner)
  local stream = KEYS[index]
  if not job then remove(stream, entry) return true end
  if job.nudge then remove(stream, entry) return true end
  local hash = prefix .. ':job:' .. job.id
  local status = redis.call('HGET', hash, 'status')
  if not status or is_final(status) then remove(stream, entry) return true end
  local deadline = tonumber(job.deadline)
  if deadline and deadline <= now then
    remove(stream, entry)
    time_out(prefix, job.id, now, ttl)
    return true
  end
  local cost = tonumber(job.cost)
  -- A job whose worker died may be why it died: it runs alone, so that it takes no other with it.
  local suspect = deliveries > 1
  if batch ~= '' and (suspect or job.batch ~= batch or total + cost > limit) then
    if owner ~= RELEASED then give(stream, entry, RELEASED, math.max(0, deliveries - 1)) end
    passed = passed + 1
    return false
  end
  if owner ~= me then give(stream, entry, me, deliveries) end
  batch, total = job.batch, total + cost
  redis.call('HSET', hash, 'status', 'running', 'updated', now, 'attempt', deliveries)
  local step = redis.call('HGET', hash, 'step')
  tell(prefix, job.id, 'running', now, cjson.encode({step = step, attempt = deliveries}))
  got[#got + 1] = {index, entry, deliveries, job.id, job.envelope, payload_of(prefix, job.blob)}
  if suspect then count = #got end
  return true
end

for i = 10, #ARGV, 2 do
  local index, entry = tonumber(ARGV[i]), ARGV[i + 1]
  if #got < count then
    consider(index, entry, peek(KEYS[index], entry), deliveries_of(KEYS[index], entry, me) or 1, me)
  else
    give(KEYS[index], entry, RELEASED, 0)
  end
end
for index, stream in ipairs(KEYS) do
  if #got < count then
    for _, waiting in ipairs(redis.call('XPENDING', stream, GROUP, '-', '+', window, RELEASED)) do
      if #got >= count then break end
      consider(index, waiting[1], peek(stream, waiting[1]), waiting[4] + 1, RELEASED)
    end
  end
  while #got < count and passed < window do
    local news = redis.call('XREADGROUP', 'GROUP', GROUP, me, 'COUNT', 1, 'STREAMS', stream, '>')
    if not news then break end
    local entry = news[1][2][1]
    consider(index, entry[1], table_of(entry[2]), 1, me)
  end
end
return got
