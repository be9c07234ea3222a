-- The leases that are held. KEYS: the set of the names of leases. ARGV: what stands before a name in the key of a lease.
-- Answers {{name, holder, milliseconds it still runs}, ...}, and forgets the names of those that ran out.
local held = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local holder = redis.call('GET', ARGV[1] .. name)
  if holder then
    held[#held + 1] = {name, holder, redis.call('PTTL', ARGV[1] .. name)}
  else
    redis.call('SREM', KEYS[1], name)
  end
end
return held
