-- ARGV: prefix, id. Returns the name of the result's blob, or '' where the job has not ended or has none.
local prefix, id = ARGV[1], ARGV[2]
local job = prefix .. ':job:' .. id
local about = redis.call('HMGET', job, 'status', 'key', 'blob')
if not about[1] or not is_final(about[1]) then return '' end
redis.call('DEL', job, prefix .. ':events:' .. id)
if about[3] then redis.call('UNLINK', prefix .. ':blob:' .. about[3]) end
if about[2] and about[2] ~= '' then redis.call('DEL', about[2]) end
return about[3] or ''
