-- KEYS: the queue's streams. ARGV: consumer. Only a consumer without entries may go, or they could never be claimed again.
for _, stream in ipairs(KEYS) do
  if redis.call('EXISTS', stream) == 1 and #redis.call('XPENDING', stream, GROUP, '-', '+', 1, ARGV[1]) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, ARGV[1])
  end
end
return 1
