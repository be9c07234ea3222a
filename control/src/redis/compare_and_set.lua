-- Sets a document if it has the expected revision and none of the named leases is held.
-- KEYS[1]: the document. KEYS[2..]: the leases.
-- ARGV: expected revision, value, seconds Redis must have been up, channel, what to say on it.
-- Answers {'done', revision}, {'conflict', 0}, or {'leased', place of the lease, from 1}.
local found = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if found ~= tonumber(ARGV[1]) then
  return {'conflict', 0}
end
if #KEYS > 1 then
  -- A Redis that has just started may have lost leases that still run.
  local up = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  if tonumber(up) < tonumber(ARGV[3]) then
    return {'leased', 1}
  end
  for place = 2, #KEYS do
    if redis.call('EXISTS', KEYS[place]) == 1 then
      return {'leased', place - 1}
    end
  end
end
redis.call('HSET', KEYS[1], 'revision', string.format('%d', found + 1), 'value', ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {'done', found + 1}
