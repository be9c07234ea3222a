//! [`StarCluster`]: several servers on this machine, in this process.

use std::{path::PathBuf, time::Duration};

use star_core::{
    Clock, Incarnation, ServerId,
    server::{Limits, bind},
};

use crate::{
    client::{ClientError, Options, StarClient},
    protocol::NodeConfig,
    server::{ControlOptions, ServerOptions, StarServer, StartError},
};

/// How long a local cluster may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Bytes for objects at each server of a local cluster.
const STORE_BYTES: u64 = 512 << 20;
const STARS: u16 = 8;

/// Why a local cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A server could not be started.
    #[error("server {name} cannot start: {source}")]
    Start {
        /// The server.
        name: String,
        /// Why.
        source: StartError,
    },
    /// The servers started, but cannot be used.
    #[error("the servers started, but do not serve: {0}")]
    NotServing(#[from] ClientError),
    /// There is no room for their files.
    #[error("no directory for the servers' stores: {0}")]
    Directory(#[from] std::io::Error),
}

/// Servers in this process, each on threads and a port of its own; the first hosts the control plane. They stop, and
/// their stores go away, when this is dropped.
#[derive(Debug)]
pub struct StarCluster {
    servers: Vec<StarServer>,
    directory: PathBuf,
}

impl StarCluster {
    /// Starts `count` servers named a, b, c … on free ports, and waits until they serve.
    pub async fn start_local(count: usize) -> Result<Self, ClusterError> {
        let id = Clock.now().0 ^ u64::from(std::process::id()) << 32;
        let directory = std::env::temp_dir().join(format!("star-local-{id:x}"));
        std::fs::create_dir_all(&directory)?;
        let mut cluster = Self { servers: Vec::new(), directory };
        for number in 0..count.max(1) {
            let name = server_name(number);
            let server = cluster.start_server(&name, count).map_err(|source| ClusterError::Start { name, source })?;
            cluster.servers.push(server);
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    fn start_server(&self, name: &str, count: usize) -> Result<StarServer, StartError> {
        let listener = bind("127.0.0.1:0")?;
        let control = match self.servers.first() {
            None => ControlOptions::Host,
            Some(host) => ControlOptions::At(host.addr().to_owned()),
        };
        let options = ServerOptions {
            name: name.to_owned(),
            addr: String::new(),
            cluster: "local".to_owned(),
            node: NodeConfig::new(ServerId::default(), name, Incarnation::default(), STARS),
            limits: Limits::default(),
            store_path: self.directory.join(name),
            store_capacity_bytes: STORE_BYTES,
            store_entries_max: None,
            control,
            plan: star_control::PlanConfig {
                stars: STARS,
                initial_servers: count,
                follow_alive: true,
                ..Default::default()
            },
            lease: star_control::LeaseConfig::default(),
            allows_faults: false,
        };
        StarServer::start_on(listener, options)
    }

    /// Waits until every server answers.
    async fn ready(&self) -> Result<(), ClientError> {
        for server in &self.servers {
            let options = Options { give_up_after: READY_WITHIN, ..Options::one_server() };
            let client = StarClient::connect(&[server.addr().to_owned()], options).await?;
            // A list needs every star.
            client.list("", None, 1).await?;
        }
        Ok(())
    }

    /// A client of the cluster.
    pub async fn connect(&self) -> Result<StarClient, ClientError> {
        let addrs: Vec<String> = self.servers.iter().map(|server| server.addr().to_owned()).collect();
        StarClient::connect(&addrs, Options::default()).await
    }

    /// The servers.
    pub fn servers(&self) -> &[StarServer] {
        &self.servers
    }

    /// Starts a server that was stopped, without what it held, and waits until it serves again.
    pub async fn start_again(&mut self, name: &str) -> Result<(), ClusterError> {
        let count = self.servers.len() + 1;
        let start = self.start_server(name, count);
        self.servers.push(start.map_err(|source| ClusterError::Start { name: name.to_owned(), source })?);
        Ok(self.ready().await?)
    }

    /// Stops one server, in good order.
    pub fn stop_server(&mut self, name: &str) -> bool {
        let Some(index) = self.servers.iter().position(|server| server.name() == name) else { return false };
        self.servers.remove(index).stop();
        true
    }
}

impl Drop for StarCluster {
    fn drop(&mut self) {
        // The first hosts the control plane: it goes last, so that the others can give their leases back.
        while let Some(server) = self.servers.pop() {
            server.stop();
        }
        // An empty directory in the system's place for such does no harm.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// a, b, … z, then s26, s27 …
fn server_name(number: usize) -> String {
    u8::try_from(number)
        .ok()
        .filter(|number| *number < 26)
        .map_or_else(|| format!("s{number}"), |number| char::from(b'a' + number).to_string())
}
