-- One look of a journal's reader. KEYS as in journal_write.lua; ARGV the place to read from, entries at most, ms the reader's
-- mark lasts. Answers whether there is a journal, whether its writer lives, and the entries.
local entries = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
local exists, lives = redis.call('EXISTS', KEYS[1]), redis.call('EXISTS', KEYS[2])
-- Who only guesses keys leaves nothing behind.
if exists + lives > 0 then
  redis.call('SET', KEYS[3], '', 'PX', ARGV[3])
end
return {exists, lives, entries}
