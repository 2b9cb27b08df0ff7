-- ARGV: prefix, id. Returns {status, deadline, result, blob, slug, detail, payload or nil where it is big or elsewhere}, or {}.
local prefix, id = ARGV[1], ARGV[2]
local about = redis.call('HMGET', prefix .. ':job:' .. id, 'status', 'deadline', 'result', 'blob', 'slug', 'detail')
if not about[1] then return {} end
about[7] = about[1] == 'done' and payload_of(prefix, about[4])
return about
