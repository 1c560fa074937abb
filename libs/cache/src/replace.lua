-- Sets a value if the key still has the one that was seen. KEYS the key; ARGV what was seen, the new value, ms it lasts.
-- Answers whether it did.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
