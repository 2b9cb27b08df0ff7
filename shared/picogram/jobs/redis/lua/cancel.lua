-- ARGV: prefix, id, now, milliseconds to keep
-- Returns 1, 0 where the job has ended, -1 where there is none. A queued job leaves its queue at once.
local prefix, id, now, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local about = redis.call('HMGET', prefix .. ':job:' .. id, 'status', 'stream', 'entry')
if not about[1] then return -1 end
if is_final(about[1]) then return 0 end
if about[1] == 'queued' then remove(about[2], about[3]) end
local detail = 'the job was canceled'
local data = cjson.encode({slug = 'job-canceled', title = 'Job canceled', detail = detail})
conclude(prefix, id, 'canceled', now, ttl, data, {'slug', 'job-canceled', 'detail', detail})
return 1
