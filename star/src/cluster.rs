//! [`StarCluster`]: several servers on this machine, in this process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use star_control::{ClusterState, LeaseConfig, PlanConfig};
use star_core::{
    Clock, Incarnation, ServerId,
    cluster::{ClusterError, ClusterManager, Running, ServerInfo, Topology, TopologyError},
    config::GroupAccess,
    message::{RequestBody, Response, ResponseBody},
    network::{ClientOptions, NetworkError, TcpClient},
    server::{BindError, Limits, bind},
};
use star_host::ControlOptions;

use crate::{
    client::{ClientError, Options, StarClient},
    protocol::NodeConfig,
    server::{ServerOptions, StarServer},
};

/// How long a local cluster may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Bytes for objects at each server of a local cluster.
const STORE_BYTES: u64 = 512 << 20;
const STARS: u16 = 8;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why a local cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A server could not be started, or more of them than can be.
    #[error(transparent)]
    Start(#[from] ClusterError),
    /// The servers do not fit together.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// There is no port to listen on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The servers started, but cannot be used.
    #[error("the servers started, but {0} does not serve after {READY_WITHIN:?}; its log says why")]
    NotServing(String),
    /// There is no room for their files.
    #[error("no directory for the servers' stores: {0}")]
    Directory(#[from] std::io::Error),
}

/// Servers in this process, each on threads and a port of its own; the first 5, 3 or 1 keep the control plane. They stop,
/// and their files go away, when this is dropped.
#[derive(Debug)]
pub struct StarCluster {
    manager: ClusterManager<StarServer>,
    directory: PathBuf,
    /// Members of each star; `None`: all servers.
    replicas: Option<usize>,
}

impl Running for StarServer {
    async fn stop(self) -> Result<(), String> {
        Self::stop(self);
        Ok(())
    }
}

impl StarCluster {
    /// Starts `count` servers named a, b, c … on free ports, and waits until they serve.
    pub async fn start_local(count: usize) -> Result<Self, LocalError> {
        Self::start(count, None).await
    }

    /// The same with so many members of each star, when there are as many servers: no server serves every star then.
    pub async fn start_local_spread(count: usize, replicas: usize) -> Result<Self, LocalError> {
        Self::start(count, Some(replicas)).await
    }

    async fn start(count: usize, replicas: Option<usize>) -> Result<Self, LocalError> {
        let id = Clock.now().0 ^ u64::from(std::process::id()) << 32;
        let directory = std::env::temp_dir().join(format!("star-local-{id:x}"));
        std::fs::create_dir_all(&directory)?;
        let mut listeners = BTreeMap::new();
        let mut servers = Vec::new();
        for name in (0..count.max(1)).map(server_name) {
            let listener = bind("127.0.0.1:0")?;
            servers.push(ServerInfo::new(name.clone(), listener.local_addr()?.to_string()));
            listeners.insert(name, listener);
        }
        let leader = servers[0].name.clone();
        let manager = ClusterManager::new(Topology::full_mesh(&servers)?, &leader, &ClientOptions::default())?;
        let mut cluster = Self { manager, directory, replicas };
        let directory = cluster.directory.clone();
        cluster
            .manager
            .start(async |server, _| {
                let listener = listeners.remove(&server.name).expect("bound above");
                StarServer::start_on(listener, options(server, &servers, replicas, &directory))
            })
            .await?;
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Waits until every running server answers, and knows as many serving members of each star as there can be.
    async fn ready(&self) -> Result<(), LocalError> {
        let count = self.servers().count();
        let wanted = self.replicas.unwrap_or(count).min(count);
        for server in self.servers() {
            let deadline = Clock.now() + READY_WITHIN;
            let client = TcpClient::new(server.addr().to_owned(), ClientOptions::default());
            while !is_ready(&client.call(&RequestBody::Status.into()).await, wanted) {
                if Clock.now() >= deadline {
                    return Err(LocalError::NotServing(server.name().to_owned()));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// A client of the cluster.
    pub async fn connect(&self) -> Result<StarClient, ClientError> {
        let addrs: Vec<String> = self.servers().map(|server| server.addr().to_owned()).collect();
        StarClient::connect(&addrs, Options::default()).await
    }

    /// The servers that run.
    pub fn servers(&self) -> impl Iterator<Item = &StarServer> {
        self.manager.running().map(|(_, server)| server)
    }

    /// Starts a server that was stopped, at its old address and without what it held, and waits until it serves again.
    pub async fn start_again(&mut self, name: &str) -> Result<(), LocalError> {
        let servers = self.manager.topology().servers().cloned().collect::<Vec<_>>();
        let (directory, replicas) = (self.directory.clone(), self.replicas);
        self.manager
            .start_one(name, async |server, _| {
                StarServer::start_on(bind(&server.addr)?, options(server, &servers, replicas, &directory))
            })
            .await?;
        self.ready().await
    }

    /// Stops one server, in good order; false if none of this name runs.
    pub fn stop_server(&mut self, name: &str) -> bool {
        self.manager.take(Some(name)).map(StarServer::stop).is_some()
    }
}

impl Drop for StarCluster {
    fn drop(&mut self) {
        while let Some(server) = self.manager.take(None) {
            server.stop();
        }
        // An empty directory in the system's place for such does no harm.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Whether a server holds its lease and knows as many serving members of each star as are wanted.
fn is_ready(answer: &Result<Response, NetworkError>, wanted: usize) -> bool {
    #[derive(Deserialize)]
    struct Status {
        lease_ms: u64,
        cluster: Option<ClusterState>,
    }

    let Ok(Response { body: ResponseBody::Status(text), .. }) = answer else { return false };
    let Ok(Status { lease_ms: 1.., cluster: Some(cluster) }) = serde_json::from_str(text) else { return false };
    !cluster.stars.is_empty() && cluster.stars.iter().all(|view| view.serving().count() >= wanted)
}

/// The settings of a server of a local cluster of these servers.
fn options(server: &ServerInfo, servers: &[ServerInfo], replicas: Option<usize>, directory: &Path) -> ServerOptions {
    ServerOptions {
        name: server.name.clone(),
        addr: server.addr.clone(),
        cluster: "local".to_owned(),
        node: NodeConfig::new(ServerId::default(), &server.name, Incarnation::default(), STARS),
        limits: Limits::default(),
        store_path: directory.join(&server.name),
        store_capacity_bytes: STORE_BYTES,
        store_entries_max: None,
        store_group: GroupAccess::None,
        store_huge_pages: false,
        keeps_store: false,
        control: ControlOptions::embedded(servers, directory.join("control").join(&server.name)),
        plan: PlanConfig { stars: STARS, initial_servers: servers.len(), replicas, follow_alive: true },
        lease: LeaseConfig::default(),
        allows_faults: false,
    }
}

/// a, b, … z, then s26, s27 …
fn server_name(number: usize) -> String {
    u8::try_from(number)
        .ok()
        .filter(|number| *number < 26)
        .map_or_else(|| format!("s{number}"), |number| char::from(b'a' + number).to_string())
}
