//! A set of servers: who they are, who may send to whom, and starting, connecting and stopping them together.

mod manager;
mod topology;

pub use manager::{ClusterError, ClusterManager, Running};
use serde::{Deserialize, Serialize};
pub use topology::{Topology, TopologyError};

/// A server as its cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerInfo {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where it listens: `host:port`.
    pub addr: String,
}

impl ServerInfo {
    /// A server of this name at this address.
    pub fn new(name: impl Into<String>, addr: impl Into<String>) -> Self {
        Self { name: name.into(), addr: addr.into() }
    }
}

/// Names stand in paths, environment variables and commands, so that they are kept simple.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    const NAME_BYTES_MAX: usize = 64;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        return Err(format!("the name {name:?} is not 1 to {NAME_BYTES_MAX} letters a-z, A-Z, digits, - or _"));
    }
    Ok(())
}

pub(crate) fn check_addr(addr: &str) -> Result<(), String> {
    let port = addr.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
    match port {
        None => Err(format!("the address {addr:?} is not host:port, such as 127.0.0.1:7000")),
        Some(0_u16) => Err(format!("the address {addr:?} has port 0, at which nobody can find a server")),
        Some(_) => Ok(()),
    }
}
