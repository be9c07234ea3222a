-- Sets a document if it has the expected revision and none of the named leases is held.
-- KEYS[1]: the document. KEYS[2]: which life of Redis keeps it, and since when. KEYS[3..]: the leases.
-- ARGV: expected revision, value, milliseconds of the longest lease, channel, what to say on it.
-- Answers {'done', revision}, {'conflict', 0}, or {'leased', place of the lease, from 1}.
local found = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if found ~= tonumber(ARGV[1]) then
  return {'conflict', 0}
end
-- A Redis that has just started, lost its data or became the primary may not know of leases that still run.
local life = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('HGET', KEYS[2], 'life') ~= life then
  redis.call('HSET', KEYS[2], 'life', life, 'since', string.format('%d', now))
end
if #KEYS > 2 then
  if now - tonumber(redis.call('HGET', KEYS[2], 'since')) < tonumber(ARGV[3]) then
    return {'leased', 1}
  end
  for place = 3, #KEYS do
    if redis.call('EXISTS', KEYS[place]) == 1 then
      return {'leased', place - 2}
    end
  end
end
redis.call('HSET', KEYS[1], 'revision', string.format('%d', found + 1), 'value', ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return {'done', found + 1}
