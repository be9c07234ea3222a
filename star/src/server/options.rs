//! How a server is set up, and why it may not start.

use std::{path::PathBuf, time::Duration};

use star_control::{LeaseConfig, PlanConfig};
use star_core::{
    Incarnation, ServerId,
    config::{Backend, Config, GroupAccess},
    server::{BindError, Limits},
};
use star_host::{ControlOptions, HostError};
use star_objstore::OpenError;

use crate::protocol::NodeConfig;

/// Everything that one server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where it listens: `host:port`.
    pub addr: String,
    /// The cluster's name; the same at all servers.
    pub cluster: String,
    /// The protocol's settings; who the server is gets filled in.
    pub node: NodeConfig,
    /// How much is taken from outside.
    pub limits: Limits,
    /// The file of the mapped store.
    pub store_path: PathBuf,
    /// Bytes for objects in the mapped store.
    pub store_capacity_bytes: u64,
    /// The most keys in the mapped store; `None` for what fits its capacity.
    pub store_entries_max: Option<u64>,
    /// What users of the file's group may do with it.
    pub store_group: GroupAccess,
    /// Whether to ask for pages of 2 MiB.
    pub store_huge_pages: bool,
    /// Whether the store stays when the server ends and nobody takes over from it, so that a start goes on with it.
    pub keeps_store: bool,
    /// Where views and leases are kept.
    pub control: ControlOptions,
    /// What the views should look like.
    pub plan: PlanConfig,
    /// How long leases run.
    pub lease: LeaseConfig,
    /// Whether clients may ask for faults.
    pub allows_faults: bool,
}

impl ServerOptions {
    /// What the configuration says of the server of this name.
    pub fn from_config(config: &Config, name: &str) -> Result<Self, StartError> {
        let servers = &config.cluster.servers;
        let Some(index) = servers.iter().position(|server| server.name == name) else {
            let known: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
            return Err(StartError::UnknownServer { name: name.to_owned(), known: known.join(", ") });
        };
        let (cluster, limits, replication) = (&config.cluster, &config.limits, &config.replication);
        Ok(Self {
            name: name.to_owned(),
            addr: servers[index].addr.clone(),
            cluster: cluster.name.clone(),
            node: NodeConfig {
                key_bytes_max: limits.key_bytes_max as usize,
                value_bytes_max: limits.value_bytes_max as usize,
                buffer_bytes_max: limits.buffer_bytes_max,
                route: replication.route,
                chain_from_bytes: replication.chain_from_bytes as usize,
                piece_bytes: replication.piece_bytes as usize,
                dirty_reads: replication.dirty_reads,
                sessions_max: replication.sessions_max,
                session_age_max: Duration::from_millis(replication.session_age_ms_max),
                copy_bytes_per_second: replication.copy_bytes_per_second,
                repair_after: Duration::from_millis(replication.repair_after_ms),
                ..NodeConfig::new(ServerId::default(), name, Incarnation::default(), cluster.stars)
            },
            limits: limits.server(),
            store_path: config.store.directory.join(&cluster.name).join(name),
            store_capacity_bytes: config.store.capacity_bytes,
            store_entries_max: (config.store.entries_max > 0).then_some(config.store.entries_max),
            store_group: config.store.group,
            store_huge_pages: config.store.huge_pages,
            keeps_store: config.store.keep,
            control: match config.control.backend {
                Backend::Embedded => {
                    let directory = config.control_directory().join(&cluster.name).join(name);
                    ControlOptions::embedded(servers, directory)
                }
                Backend::Redis => ControlOptions::Redis(config.control.redis_url.clone()),
            },
            plan: PlanConfig {
                stars: cluster.stars,
                initial_servers: servers.len(),
                replicas: (cluster.replicas > 0).then_some(cluster.replicas.into()),
                follow_alive: true,
            },
            lease: LeaseConfig {
                ttl: Duration::from_millis(config.control.lease_ttl_ms),
                drift_margin: Duration::from_millis(config.control.lease_drift_margin_ms),
            },
            allows_faults: config.faults.allow,
        })
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names no such server.
    #[error("the configuration names no server {name:?}; it names {known}")]
    UnknownServer {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its store cannot be made.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// It cannot be run.
    #[error(transparent)]
    Host(#[from] HostError),
}
