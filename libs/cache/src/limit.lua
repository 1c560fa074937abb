-- GCRA, several keys in one step: the same steps as Limiter::admit. KEYS the keys; ARGV their requests a minute.
-- Answers {1, µs ahead of now by key} when all admit, {0, µs to wait by key} when one refuses; then nothing is spent.
-- Redis' own clock, so that replicas whose clocks differ agree.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local function pace(limit)
  local interval = math.ceil(60000000 / limit)
  return interval, interval * limit
end
local ahead, rates, waits, refused = {}, {}, {}, false
for place, key in ipairs(KEYS) do
  local limit = tonumber(ARGV[place])
  local interval, window = pace(limit)
  -- The moment up to which is spent, and the highest rate since the key was idle.
  local arrival, known = string.match(redis.call('GET', key) or '', '^(%d+):?(%d*)$')
  local spent = math.max((tonumber(arrival) or now) - now, 0)
  known = tonumber(known) or limit
  if known < limit then
    local old_interval, old_window = pace(known)
    spent = math.ceil(math.min(spent, old_window) * interval / old_interval)
    known = limit
  elseif spent == 0 then
    known = limit
  end
  local next = math.min(spent, window) + interval
  ahead[place], rates[place], waits[place] = next, known, math.max(next - window, 0)
  refused = refused or next > window
end
if refused then
  return {0, unpack(waits)}
end
for place, key in ipairs(KEYS) do
  -- tostring() would round the number to 14 digits. The key goes when it is idle.
  local state = string.format('%.0f:%.0f', now + ahead[place], rates[place])
  redis.call('SET', key, state, 'PX', math.ceil(ahead[place] / 1000))
end
return {1, unpack(ahead)}
