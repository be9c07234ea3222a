-- A document. KEYS: the document. Answers {revision, value}.
-- A primary that was made a replica would give old ones, and take no offence.
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('READONLY this Redis is not the primary')
end
return redis.call('HMGET', KEYS[1], 'revision', 'value')
