-- ARGV: prefix, id, now, name of the event, its data, progress or ''
local prefix, id, now, name, progress = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6]
local job = prefix .. ':job:' .. id
local status = redis.call('HGET', job, 'status')
if not status or is_final(status) then return 0 end
tell(prefix, id, name, now, ARGV[5])
if progress ~= '' then redis.call('HSET', job, 'progress', progress) end
return 1
