-- Common to all scripts. A job is a hash PREFIX:job:ID, its events a stream PREFIX:events:ID, its place in a queue an
-- entry of PREFIX:queue:STEP:PRIORITY. Entries that are nobody's for now belong to the consumer RELEASED.
-- Redis 6.2 needs this before writes that follow XADD or TIME.
if redis.replicate_commands then redis.replicate_commands() end

local RELEASED = 'released'
local GROUP = 'workers'

local function is_final(status)
  return status == 'done' or status == 'failed' or status == 'canceled'
end

local function tell(prefix, id, name, now, data)
  redis.call('XADD', prefix .. ':events:' .. id, 'MAXLEN', '~', 256, '*', 'name', name, 'at', now, 'data', data)
end

-- Nothing changes any more; whoever waits is told.
local function conclude(prefix, id, status, now, ttl, data, fields)
  local job = prefix .. ':job:' .. id
  redis.call('HSET', job, 'status', status, 'updated', now, unpack(fields))
  tell(prefix, id, status, now, data)
  redis.call('PEXPIRE', job, ttl)
  redis.call('PEXPIRE', prefix .. ':events:' .. id, ttl)
  local about = redis.call('HMGET', job, 'reply', 'key')
  if about[2] and about[2] ~= '' then redis.call('PEXPIRE', about[2], ttl) end
  redis.call('PUBLISH', about[1] or '', id)
end

local function fail(prefix, id, now, ttl, slug, title, detail)
  local data = cjson.encode({slug = slug, title = title, detail = detail})
  conclude(prefix, id, 'failed', now, ttl, data, {'slug', slug, 'detail', detail})
end

local function time_out(prefix, id, now, ttl)
  fail(prefix, id, now, ttl, 'job-timeout', 'Deadline passed', 'the deadline passed before the job was done')
end

local function remove(stream, entry)
  redis.call('XACK', stream, GROUP, entry)
  redis.call('XDEL', stream, entry)
end

-- How often the entry was delivered, if it is this consumer's.
local function deliveries_of(stream, entry, consumer)
  local pending = redis.call('XPENDING', stream, GROUP, entry, entry, 1, consumer)
  return pending[1] and pending[1][4]
end

local function give(stream, entry, consumer, deliveries)
  redis.call('XCLAIM', stream, GROUP, consumer, 0, entry, 'RETRYCOUNT', deliveries, 'JUSTID')
end

-- Wakes a worker that blocks on the stream, so that it looks for released entries.
local function nudge(stream)
  redis.call('XADD', stream, '*', 'nudge', '1')
end

local function table_of(flat)
  local result = {}
  for i = 1, #flat, 2 do result[flat[i]] = flat[i + 1] end
  return result
end

-- A payload as a script returns it: false where it is too big to be handled here, or not here at all.
local SMALL = 262144
local function payload_of(prefix, blob)
  if not blob or blob == '' then return false end
  local key = prefix .. ':blob:' .. blob
  local size = redis.call('STRLEN', key)
  if size > SMALL or (size == 0 and redis.call('EXISTS', key) == 0) then return false end
  return redis.call('GET', key)
end

local function peek(stream, entry)
  local found = redis.call('XRANGE', stream, entry, entry)
  return found[1] and table_of(found[1][2])
end
