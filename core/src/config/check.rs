//! What no key can say by itself: ranges, and what must go together. Pure.

use std::{collections::BTreeSet, ops::RangeInclusive};

use tracing_subscriber::EnvFilter;

use super::{Backend, Config};
use crate::cluster::{self, ServerInfo};

/// The key at fault, and what is wrong with it.
type Fault = (&'static str, String);

impl Config {
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.check_cluster()?;
        self.check_limits()?;
        self.check_replication()?;
        self.check_store()?;
        self.check_control()?;
        self.check_client_and_log()
    }

    fn check_cluster(&self) -> Result<(), Fault> {
        let cluster = &self.cluster;
        cluster::check_name(&cluster.name).map_err(|reason| ("cluster.name", reason))?;
        check_servers(&cluster.servers).map_err(|reason| ("cluster.servers", reason))?;
        range("cluster.stars", cluster.stars, 1..=1024)?;
        let servers = cluster.servers.len();
        ensure("cluster.replicas", usize::from(cluster.replicas) <= servers, || {
            format!(
                "{} members of a star, and there are {servers} servers: take 0 (all) to {servers}",
                cluster.replicas
            )
        })
    }

    fn check_limits(&self) -> Result<(), Fault> {
        let limits = &self.limits;
        range("limits.key_bytes_max", limits.key_bytes_max, 1..=(64 << 10))?;
        // A frame's tail has a 32-bit length; half of that leaves room for a JSON frame, which is longer.
        range("limits.value_bytes_max", limits.value_bytes_max, 1..=(2 << 30))?;
        let value = limits.value_bytes_max;
        for (key, bytes) in
            [("limits.buffer_bytes_max", limits.buffer_bytes_max), ("limits.outbox_bytes_max", limits.outbox_bytes_max)]
        {
            ensure(key, bytes >= value, || {
                format!("{bytes} bytes do not hold one object of limits.value_bytes_max, {value}")
            })?;
        }
        let frame = limits.frame_bytes_max();
        ensure("limits.partial_bytes_max", limits.partial_bytes_max >= frame, || {
            format!("{} bytes do not hold the longest frame, {frame} bytes", limits.partial_bytes_max)
        })?;
        range("limits.connections_max", limits.connections_max, 1..=1_000_000)?;
        range("limits.requests_under_way_max", limits.requests_under_way_max, 1..=1_000_000)?;
        range("limits.partial_age_ms_max", limits.partial_age_ms_max, 100..=3_600_000)
    }

    fn check_replication(&self) -> Result<(), Fault> {
        let replication = &self.replication;
        // Pieces are frames of their own: small ones cost more than they carry, large ones hold up what is behind them.
        range("replication.piece_bytes", replication.piece_bytes, (4 << 10)..=(16 << 20))?;
        if replication.copy_bytes_per_second > 0 {
            range("replication.copy_bytes_per_second", replication.copy_bytes_per_second, (64 << 10)..=(1 << 40))?;
        }
        range("replication.sessions_max", replication.sessions_max, 1..=100_000_000)?;
        range("replication.session_age_ms_max", replication.session_age_ms_max, 1_000..=7 * 86_400_000)?;
        range("replication.repair_after_ms", replication.repair_after_ms, 20..=60_000)
    }

    fn check_store(&self) -> Result<(), Fault> {
        let (capacity, value) = (self.store.capacity_bytes, self.limits.value_bytes_max);
        range("store.capacity_bytes", capacity, (1 << 20)..=(1 << 44))?;
        ensure("store.capacity_bytes", capacity >= value, || {
            format!("{capacity} bytes do not hold one object of limits.value_bytes_max, {value}")
        })?;
        ensure("store.directory", !self.store.directory.as_os_str().is_empty(), || "must not be empty".to_owned())
    }

    fn check_control(&self) -> Result<(), Fault> {
        let control = &self.control;
        range("control.lease_ttl_ms", control.lease_ttl_ms, 50..=600_000)?;
        range("control.lease_drift_margin_ms", control.lease_drift_margin_ms, 2..=control.lease_ttl_ms / 2)?;
        let url = &control.redis_url;
        let is_redis = ["redis://", "rediss://", "unix://", "redis+unix://", "redis+sentinel://"]
            .iter()
            .any(|scheme| url.starts_with(scheme));
        ensure("control.redis_url", control.backend != Backend::Redis || is_redis, || {
            format!("{url:?} does not begin with redis://, such as redis://127.0.0.1:6379/0")
        })
    }

    fn check_client_and_log(&self) -> Result<(), Fault> {
        range("client.pool_size", self.client.pool_size, 1..=1024)?;
        range("client.connect_timeout_ms", self.client.connect_timeout_ms, 1..=3_600_000)?;
        range("client.request_timeout_ms", self.client.request_timeout_ms, 1..=3_600_000)?;
        EnvFilter::try_new(&self.log.level).map_err(|error| {
            ("log.level", format!("{error}; allowed are off, error, warn, info, debug, trace, also by module"))
        })?;
        ensure("service.directory", !self.service.directory.as_os_str().is_empty(), || "must not be empty".to_owned())
    }
}

fn check_servers(servers: &[ServerInfo]) -> Result<(), String> {
    if servers.is_empty() {
        return Err("a cluster has at least one server".to_owned());
    }
    if servers.len() > 64 {
        return Err(format!("{} servers, and a cluster has at most 64", servers.len()));
    }
    let (mut names, mut addrs) = (BTreeSet::new(), BTreeSet::new());
    for server in servers {
        cluster::check_name(&server.name)?;
        cluster::check_addr(&server.addr)?;
        if !names.insert(&server.name) {
            return Err(format!("two servers are named {:?}: each needs a name of its own", server.name));
        }
        if !addrs.insert(&server.addr) {
            return Err(format!("two servers have the address {}: each needs one of its own", server.addr));
        }
    }
    Ok(())
}

fn range<T: Copy + PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), Fault> {
    ensure(key, allowed.contains(&value), || {
        format!("{value} is not between {} and {}", allowed.start(), allowed.end())
    })
}

fn ensure(key: &'static str, holds: bool, reason: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err((key, reason())) }
}
