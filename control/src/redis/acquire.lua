-- Takes a lease that is free, or already this holder's.
-- KEYS: the lease, the set of the names of leases. ARGV: holder, milliseconds, name.
-- Answers {holder, milliseconds it still runs}.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {holder, redis.call('PTTL', KEYS[1])}
end
-- Never cut short: an older answer may have promised more.
local runs = math.max(tonumber(ARGV[2]), redis.call('PTTL', KEYS[1]))
redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%d', runs))
redis.call('SADD', KEYS[2], ARGV[3])
return {ARGV[1], runs}
