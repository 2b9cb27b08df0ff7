-- KEYS: the queue's streams by priority, the job's own among them, its idempotency key or ''
-- ARGV: prefix, id, depth limit, fingerprint, milliseconds to keep, now, step, batch, cost, deadline or '', envelope, blob,
--       '1' if its payload follows, payload, job fields...
-- Returns {'queued', id}, {'known', id of the earlier job}, {'conflict'} or {'full'}.
local prefix, id, limit, fingerprint, ttl, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local key = KEYS[4]
-- The answer to this submission got lost, and it comes again.
if redis.call('EXISTS', prefix .. ':job:' .. id) == 1 then return {'queued', id} end
if key ~= '' then
  local earlier = redis.call('GET', key)
  if earlier then
    local known, print = string.match(earlier, '^(%S+) (.*)$')
    if redis.call('EXISTS', prefix .. ':job:' .. known) == 1 then
      if print == fingerprint then return {'known', known} end
      return {'conflict'}
    end
  end
end
if redis.call('XLEN', KEYS[1]) + redis.call('XLEN', KEYS[2]) >= limit then return {'full'} end
local job, events = prefix .. ':job:' .. id, prefix .. ':events:' .. id
local fields = {}
if ARGV[13] == '1' then redis.call('SET', prefix .. ':blob:' .. ARGV[12], ARGV[14], 'PX', ttl) end
for i = 15, #ARGV do fields[#fields + 1] = ARGV[i] end
local entry = redis.call('XADD', KEYS[3], '*', 'id', id, 'batch', ARGV[8], 'cost', ARGV[9], 'deadline', ARGV[10],
  'envelope', ARGV[11], 'blob', ARGV[12])
redis.call('HSET', job, 'status', 'queued', 'step', ARGV[7], 'updated', now, 'stream', KEYS[3], 'entry', entry, unpack(fields))
redis.call('PEXPIRE', job, ttl)
tell(prefix, id, 'queued', now, cjson.encode({step = ARGV[7]}))
redis.call('PEXPIRE', events, ttl)
if key ~= '' then redis.call('SET', key, id .. ' ' .. fingerprint, 'PX', ttl) end
return {'queued', id}
