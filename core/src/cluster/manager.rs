//! Starting, connecting and stopping servers together.

use std::{collections::BTreeMap, fmt::Display};

use super::{ServerInfo, Topology, TopologyError};
use crate::network::{ClientOptions, ConnectionStub, NetworkError};

/// A server that was started, as a task, a thread or a process.
pub trait Running {
    /// Stops the server, and returns once it has ended; the error is a sentence for people.
    fn stop(self) -> impl Future<Output = Result<(), String>>;
}

/// What can go wrong with a set of servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// A server could not be started; those that were started before it were stopped again.
    #[error("server {name} at {addr} could not be started: {reason}")]
    NotStarted {
        /// The server's name.
        name: String,
        /// Its address.
        addr: String,
        /// What went wrong.
        reason: String,
    },
    /// The servers run already.
    #[error("the servers are running: stop them before they are started again")]
    AlreadyRunning,
    /// A server could not reach those that it may send to.
    #[error("server {name} cannot send to all its peers: {error}")]
    NotConnected {
        /// The server's name.
        name: String,
        /// Which peers failed, and why.
        error: NetworkError,
    },
    /// Servers did not stop as they should.
    #[error("these servers did not stop cleanly: {0}")]
    NotStopped(String),
}

/// Manages the servers of a cluster: their topology, their leader, the connections between them, their life.
///
/// `S` is what a running server is held by; what a server does is up to the closure that starts it.
#[derive(Debug)]
pub struct ClusterManager<S> {
    topology: Topology,
    leader_name: String,
    stubs: BTreeMap<String, ConnectionStub>,
    running: Vec<(String, S)>,
}

impl<S: Running> ClusterManager<S> {
    /// A cluster of this topology, led by the server named `leader_name`. `options` says how the servers connect;
    /// its `pool_size` bounds the sockets from one server to another.
    pub fn new(topology: Topology, leader_name: &str, options: &ClientOptions) -> Result<Self, TopologyError> {
        if topology.server(leader_name).is_none() {
            let servers = topology.servers().map(|server| server.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(TopologyError::UnknownLeader { leader: leader_name.to_owned(), servers });
        }
        let stub = |server: &ServerInfo| {
            let peers = topology.peers(&server.name).map(|peer| (peer.name.clone(), peer.addr.clone()));
            (server.name.clone(), ConnectionStub::new(peers, options))
        };
        let stubs = topology.servers().map(stub).collect();
        Ok(Self { topology, leader_name: leader_name.to_owned(), stubs, running: Vec::new() })
    }

    /// Who may send to whom.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The leader. Where several stars share a cluster, the one that is preferred at the beginning.
    pub fn leader_name(&self) -> &str {
        &self.leader_name
    }

    /// The connections of the server of this name to those it may send to; `None` for a name unknown.
    pub fn stub(&self, name: &str) -> Option<&ConnectionStub> {
        self.stubs.get(name)
    }

    /// The servers that run, by name, in the order in which they were started.
    pub fn running(&self) -> impl Iterator<Item = (&str, &S)> {
        self.running.iter().map(|(name, server)| (name.as_str(), server))
    }

    /// Starts the servers one after another, in the order of their names. `spawn` gets a server and those that it may
    /// send to, and returns once the server listens. If one cannot be started, those before it are stopped again.
    pub async fn start<E: Display>(
        &mut self,
        mut spawn: impl AsyncFnMut(&ServerInfo, &[ServerInfo]) -> Result<S, E>,
    ) -> Result<(), ClusterError> {
        if !self.running.is_empty() {
            return Err(ClusterError::AlreadyRunning);
        }
        let servers: Vec<_> = self.topology.servers().cloned().collect();
        for server in servers {
            let peers: Vec<_> = self.topology.peers(&server.name).cloned().collect();
            match spawn(&server, &peers).await {
                Ok(running) => self.running.push((server.name, running)),
                Err(error) => {
                    let mut reason = error.to_string();
                    if let Err(error) = self.stop().await {
                        reason = format!("{reason}; and then {error}");
                    }
                    return Err(ClusterError::NotStarted { name: server.name, addr: server.addr, reason });
                }
            }
        }
        Ok(())
    }

    /// Starts one server of the topology that does not run, with `spawn` as in [`Self::start`].
    pub async fn start_one<E: Display>(
        &mut self,
        name: &str,
        mut spawn: impl AsyncFnMut(&ServerInfo, &[ServerInfo]) -> Result<S, E>,
    ) -> Result<(), ClusterError> {
        if self.running.iter().any(|(running, _)| running == name) {
            return Err(ClusterError::AlreadyRunning);
        }
        let not_started = |addr: &str, reason: String| ClusterError::NotStarted {
            name: name.to_owned(),
            addr: addr.to_owned(),
            reason,
        };
        let Some(server) = self.topology.server(name) else {
            return Err(not_started("no address", "the topology has no server of this name".to_owned()));
        };
        let peers: Vec<_> = self.topology.peers(name).cloned().collect();
        match spawn(server, &peers).await {
            Ok(running) => self.running.push((name.to_owned(), running)),
            Err(error) => return Err(not_started(&server.addr, error.to_string())),
        }
        Ok(())
    }

    /// Takes a running server out, to be stopped by the caller; the one that was started last where no name is given.
    pub fn take(&mut self, name: Option<&str>) -> Option<S> {
        let index = match name {
            Some(name) => self.running.iter().position(|(running, _)| running == name)?,
            None => self.running.len().checked_sub(1)?,
        };
        Some(self.running.remove(index).1)
    }

    /// Makes the connections of every server to its peers; the error names the first server that cannot reach all.
    pub async fn connect_all(&self) -> Result<(), ClusterError> {
        for (name, stub) in &self.stubs {
            stub.initiate_connections()
                .await
                .map_err(|error| ClusterError::NotConnected { name: name.clone(), error })?;
        }
        Ok(())
    }

    /// Stops all servers, the last one started first; all are tried, the error names those that failed.
    pub async fn stop(&mut self) -> Result<(), ClusterError> {
        let mut failed = Vec::new();
        while let Some((name, server)) = self.running.pop() {
            if let Err(reason) = server.stop().await {
                failed.push(format!("{name}: {reason}"));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(ClusterError::NotStopped(failed.join("; "))) }
    }
}
