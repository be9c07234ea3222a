-- Ends a lease of this holder. KEYS: the lease, the set of the names of leases. ARGV: holder, name.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], ARGV[2])
end
return 1
