//! The sections with their keys. Sizes are in bytes and durations in milliseconds; both may be written with a unit.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::units;
use crate::{cluster::ServerInfo, network::ClientOptions, server};

/// `[cluster]`: the cluster and its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Names the cluster; servers of different clusters refuse each other.
    pub name: String,
    /// The servers. The first 5, 3 or 1 keep the embedded control plane.
    pub servers: Vec<ServerInfo>,
    /// Replication groups, 1 to 1024; fixed when the cluster is made.
    pub stars: u16,
    /// Members of each star; 0 for all servers.
    pub replicas: u16,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        let server = |(name, port)| ServerInfo::new(name, format!("127.0.0.1:{port}"));
        let servers = ["a", "b", "c", "d", "e"].into_iter().zip(7000..).map(server).collect();
        Self { name: "star".to_owned(), servers, stars: 8, replicas: 0 }
    }
}

/// `[limits]`: how much a server takes. Over a limit is an error that says so; the server goes on serving others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The longest key.
    #[serde(deserialize_with = "units::bytes")]
    pub key_bytes_max: u64,
    /// The largest object.
    #[serde(deserialize_with = "units::bytes")]
    pub value_bytes_max: u64,
    /// The most bytes of uncommitted writes that a server holds as their origin; more are refused as overload.
    #[serde(deserialize_with = "units::bytes")]
    pub buffer_bytes_max: u64,
    /// The most open connections to a server.
    pub connections_max: usize,
    /// The most unanswered requests of one connection; it is not read from while it has that many.
    pub requests_under_way_max: usize,
    /// The most bytes that wait for one connection to take them.
    #[serde(deserialize_with = "units::bytes")]
    pub outbox_bytes_max: u64,
    /// The most bytes of frames that are not whole yet, all connections of a server together.
    #[serde(deserialize_with = "units::bytes")]
    pub partial_bytes_max: u64,
    /// How long a frame may take to become whole, in milliseconds; then its connection is closed.
    #[serde(deserialize_with = "units::milliseconds")]
    pub partial_age_ms_max: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            key_bytes_max: 1 << 10,
            value_bytes_max: 64 << 20,
            buffer_bytes_max: 256 << 20,
            connections_max: 4096,
            requests_under_way_max: 4096,
            outbox_bytes_max: 256 << 20,
            partial_bytes_max: 512 << 20,
            partial_age_ms_max: 30_000,
        }
    }
}

impl LimitsConfig {
    /// The longest frame, in bytes: room for the largest object, also as JSON or Base64, which take a third more.
    pub fn frame_bytes_max(&self) -> u64 {
        self.value_bytes_max + (self.value_bytes_max / 2).max(4 << 20)
    }

    /// The limits of the server that stands around a protocol.
    pub fn server(&self) -> server::Limits {
        server::Limits {
            frame_bytes_max: self.frame_bytes_max(),
            connections_max: self.connections_max,
            requests_under_way_max: self.requests_under_way_max,
            outbox_bytes_max: self.outbox_bytes_max as usize,
            partial_bytes_max: self.partial_bytes_max as usize,
            partial_age_max: Duration::from_millis(self.partial_age_ms_max),
        }
    }
}

/// `[replication]`: how writes reach everybody, and how reads are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationConfig {
    /// How values travel from their origin to the other members.
    pub route: Route,
    /// From this size on, the route `auto` takes the chain.
    #[serde(deserialize_with = "units::bytes")]
    pub chain_from_bytes: u64,
    /// Values longer than this travel in pieces of this size.
    #[serde(deserialize_with = "units::bytes")]
    pub piece_bytes: u64,
    /// What a read of a dirty key does.
    pub dirty_reads: DirtyReads,
    /// Per star: results remembered of typed clients, and of requests with a text, so that a repeated request takes
    /// effect once; and changed keys.
    pub sessions_max: usize,
    /// How long results of requests with a text are remembered at most, in milliseconds: so long is a retry safe.
    #[serde(deserialize_with = "units::milliseconds")]
    pub session_age_ms_max: u64,
    /// How many bytes of values a second a server takes over at most of stars that it comes into; 0 for no limit.
    #[serde(deserialize_with = "units::bytes")]
    pub copy_bytes_per_second: u64,
    /// How long nothing must have moved before a server says again what may have been lost, in milliseconds.
    #[serde(deserialize_with = "units::milliseconds")]
    pub repair_after_ms: u64,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            route: Route::Auto,
            chain_from_bytes: 256 << 10,
            piece_bytes: 256 << 10,
            dirty_reads: DirtyReads::Wait,
            sessions_max: 65_536,
            session_age_ms_max: 300_000,
            copy_bytes_per_second: 128 << 20,
            repair_after_ms: 100,
        }
    }
}

/// How values travel from their origin to the other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// By size: `fanout` for small values, `chain` for large ones; around links that are found to be slow.
    Auto,
    /// The origin sends to each member: the lowest latency.
    Fanout,
    /// Each member passes the value on to the next, so that it leaves the origin once.
    Chain,
}

/// What a read of a dirty key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirtyReads {
    /// Wait until the write that made the key dirty is committed here: no message.
    Wait,
    /// Ask the leader.
    Leader,
}

/// `[store]`: where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The mapped files are `<directory>/<cluster>/<server>`; best on a memory file system.
    pub directory: PathBuf,
    /// Bytes for objects in each server's file, taken when it is made.
    #[serde(deserialize_with = "units::bytes")]
    pub capacity_bytes: u64,
    /// The most keys in each server's file; 0 for one per 128 bytes of capacity.
    pub entries_max: u64,
    /// What users of the file's group may do with it.
    pub group: GroupAccess,
    /// Whether to ask for pages of 2 MiB.
    pub huge_pages: bool,
    /// Whether the file stays when its server ends and nobody takes over, so that a start goes on with it.
    pub keep: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            directory: "/dev/shm/star".into(),
            capacity_bytes: 512 << 20,
            entries_max: 0,
            group: GroupAccess::None,
            huge_pages: false,
            keep: true,
        }
    }
}

/// What users of a mapped file's group may do with it. Its owner may do everything, all others nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupAccess {
    /// Nothing: mode 0600.
    #[default]
    None,
    /// Read copies of objects: mode 0640.
    Read,
    /// Read objects in place too: mode 0660. Who may pin can also damage the file.
    Pin,
}

impl GroupAccess {
    /// The permissions of a file that says so, as the system counts them.
    pub fn mode(self) -> u32 {
        match self {
            Self::None => 0o600,
            Self::Read => 0o640,
            Self::Pin => 0o660,
        }
    }
}

/// `[control]`: where views and leases are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlConfig {
    /// What keeps them.
    pub backend: Backend,
    /// Where the servers that keep the embedded control plane have their parts of it: `<directory>/<cluster>/<server>`.
    /// Empty: `control` in the directory of `[service]`. On a disk: what is there must outlive the machine's memory.
    pub directory: PathBuf,
    /// Where Redis is, for the backend `redis`.
    pub redis_url: String,
    /// How long a server may answer reads after it was last heard, in milliseconds.
    #[serde(deserialize_with = "units::milliseconds")]
    pub lease_ttl_ms: u64,
    /// How much earlier a server counts its lease as over, for clocks that run at different rates, in milliseconds.
    #[serde(deserialize_with = "units::milliseconds")]
    pub lease_drift_margin_ms: u64,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Embedded,
            directory: PathBuf::new(),
            redis_url: "redis://127.0.0.1:7379/0".to_owned(),
            lease_ttl_ms: 600,
            lease_drift_margin_ms: 60,
        }
    }
}

/// What keeps views and leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The servers of the cluster themselves.
    Embedded,
    /// A Redis server.
    Redis,
}

/// `[client]`: how clients, and servers as clients of one another, connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// Connections to each server.
    pub pool_size: usize,
    /// How long making a connection may take, in milliseconds.
    #[serde(deserialize_with = "units::milliseconds")]
    pub connect_timeout_ms: u64,
    /// How long a request may take, in milliseconds.
    #[serde(deserialize_with = "units::milliseconds")]
    pub request_timeout_ms: u64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self { pool_size: 2, connect_timeout_ms: 1_000, request_timeout_ms: 5_000 }
    }
}

impl super::Config {
    /// Where the parts of the embedded control plane are, those of each cluster in a directory of its own.
    pub fn control_directory(&self) -> PathBuf {
        if self.control.directory.as_os_str().is_empty() {
            self.service.directory.join("control")
        } else {
            self.control.directory.clone()
        }
    }

    /// How clients of this cluster connect.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions {
            pool_size: self.client.pool_size,
            connect_timeout: Duration::from_millis(self.client.connect_timeout_ms),
            request_timeout: Duration::from_millis(self.client.request_timeout_ms),
            frame_bytes_max: self.limits.frame_bytes_max(),
        }
    }
}

/// `[log]`: what is logged, to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, `off`, or one of them by module: `info,star_core::network=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[service]`: how processes are managed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where pid and log files of managed processes are; relative to the working directory.
    pub directory: PathBuf,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { directory: ".star".into() }
    }
}

/// `[faults]`: what may be broken on demand, for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultsConfig {
    /// Whether any client may cut a server's links and end its process.
    pub allow: bool,
}
