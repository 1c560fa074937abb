-- One turn of a journal's writer. KEYS the journal, the marks of its writer, of readers, of a wish to stop; ARGV the place of
-- the entry, the entry (or nothing), the place before which nothing is kept, ms the journal lasts, ms the writer's mark lasts.
-- Answers whether somebody reads, and whether somebody wants it stopped.
if ARGV[2] ~= '' then
  redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], '', 'PX', ARGV[5])
return {redis.call('EXISTS', KEYS[3]), redis.call('EXISTS', KEYS[4])}
