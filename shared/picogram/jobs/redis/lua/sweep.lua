-- KEYS: the queue's streams by priority, the dead letters' stream, the sweepers' lock
-- ARGV: prefix, lease in milliseconds, attempts allowed, now, milliseconds to keep a result, milliseconds a worker may be silent, dead letters kept
-- Returns {reclaimed, dead, workers removed}. One sweeper at a time is enough for a fleet.
local prefix, lease, allowed, now, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local silent, kept = tonumber(ARGV[6]), ARGV[7]
if not redis.call('SET', KEYS[4], '1', 'NX', 'PX', math.max(1, math.floor(lease / 5))) then return {0, 0, 0} end
local reclaimed, dead, workers = 0, 0, 0

local function bury(stream, entry, job, deliveries)
  local detail = 'given up after ' .. deliveries .. ' attempts, in each of which the worker died or went silent'
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', kept, '*', 'id', job.id, 'attempts', deliveries, 'at', now, 'queue', stream,
    'envelope', job.envelope)
  remove(stream, entry)
  -- A day for somebody to look at it and to try it again.
  redis.call('PEXPIRE', prefix .. ':blob:' .. job.blob, 86400000)
  fail(prefix, job.id, now, ttl, 'job-abandoned', 'Job abandoned', detail)
  dead = dead + 1
end

for index = 1, 2 do
  local stream, found = KEYS[index], 0
  for _, pending in ipairs(redis.call('XPENDING', stream, GROUP, 'IDLE', lease, '-', '+', 256)) do
    local entry, owner, deliveries = pending[1], pending[2], pending[4]
    if owner ~= RELEASED then
      local job = peek(stream, entry)
      local status = job and job.id and redis.call('HGET', prefix .. ':job:' .. job.id, 'status')
      if not status or is_final(status) then
        remove(stream, entry)
      elseif deliveries >= allowed then
        bury(stream, entry, job, deliveries)
      else
        give(stream, entry, RELEASED, deliveries)
        redis.call('HSET', prefix .. ':job:' .. job.id, 'status', 'queued', 'updated', now, 'progress', 0)
        tell(prefix, job.id, 'queued', now, cjson.encode({step = redis.call('HGET', prefix .. ':job:' .. job.id, 'step')}))
        found = found + 1
      end
    end
  end
  if found > 0 then nudge(stream) end
  reclaimed = reclaimed + found
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, GROUP)) do
    local about = table_of(consumer)
    if about.name ~= RELEASED and about.pending == 0 and about.idle > silent then
      redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, about.name)
      workers = workers + 1
    end
  end
end
return {reclaimed, dead, workers}
