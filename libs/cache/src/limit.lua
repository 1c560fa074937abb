-- GCRA, one key: the same steps as Shard::admit. KEYS[1] the key; ARGV[1] interval, ARGV[2] window, both in µs.
-- Answers {1, µs ahead of now} when admitted, {0, µs to wait} when refused.
-- Redis' own clock, so that replicas whose clocks differ agree.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = tonumber(redis.call('GET', KEYS[1]) or now) or now
local ahead = math.min(math.max(arrival - now, 0), window)
local next = ahead + interval
if next > window then
  return {0, next - window}
end
-- tostring() would round the number to 14 digits. The key goes when it is idle.
redis.call('SET', KEYS[1], string.format('%.0f', now + next), 'PX', math.ceil(next / 1000))
return {1, next}
