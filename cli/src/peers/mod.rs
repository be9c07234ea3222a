//! Other systems, started to be measured beside Star: servers of their own on free ports of this machine.

mod craq;
mod etcd;
mod nats;
mod raft;
pub(crate) mod redis;

use std::path::{Path, PathBuf};

use star_bench::{System, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{error::CliError, names, processes::Daemon};

/// The systems that can stand beside Star.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// CRAQ, on the core that Star stands on.
    Craq,
    /// The key-value store on Raft.
    Raft,
    /// An etcd cluster.
    Etcd,
    /// One Redis server that takes the writes, and its replicas.
    Redis,
    /// A NATS cluster with a key-value bucket that all of its servers hold.
    Nats,
}

impl Peer {
    /// Whether its clients are Star's, and what they see is linearizable: then it can be recorded and checked.
    pub(crate) fn is_checkable(self) -> bool {
        match self {
            Self::Craq | Self::Raft => true,
            Self::Etcd | Self::Redis | Self::Nats => false,
        }
    }
}

/// The servers of a peer. Dropping it kills them and removes their files.
#[derive(Debug)]
pub(crate) struct Group {
    /// What the load has to speak.
    pub(crate) system: System,
    /// Where the load goes.
    pub(crate) targets: Vec<Target>,
    daemons: Vec<Daemon>,
    /// What goes away with the servers; the first has their logs.
    directories: Vec<PathBuf>,
    /// One that others may use too, and that did not exist before.
    new_directory: Option<PathBuf>,
}

/// What servers are started for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) servers: usize,
    /// Room for objects at each server, where it has to be set.
    pub(crate) capacity_bytes: u64,
    /// Where mapped stores are kept.
    pub(crate) store_directory: PathBuf,
}

impl Group {
    /// Starts so many servers and waits until all of them hold what is written.
    pub(crate) async fn start(peer: Peer, wanted: &Wanted) -> Result<Self, CliError> {
        match peer {
            Peer::Craq => craq::group(wanted).await,
            Peer::Raft => raft::group(wanted).await,
            Peer::Etcd => etcd::group(wanted.servers).await,
            Peer::Redis => redis::group(wanted.servers).await,
            Peer::Nats => nats::group(wanted.servers).await,
        }
    }

    fn new(system: System) -> Result<Self, CliError> {
        let directory = std::env::temp_dir().join(format!("star-bench-{}-{}", system.name(), std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Ok(Self { system, targets: Vec::new(), daemons: Vec::new(), directories: vec![directory], new_directory: None })
    }

    /// The directory of its own.
    fn directory(&self) -> &Path {
        &self.directories[0]
    }

    /// Where the load goes without mapped stores.
    pub(crate) fn tcp_targets(&self) -> Vec<Target> {
        self.targets.iter().map(|target| Target { store: None, ..target.clone() }).collect()
    }

    /// Where reads of mapped stores go; empty if the system has none.
    pub(crate) fn mapped_targets(&self) -> Vec<Target> {
        self.targets.iter().filter(|target| target.store.is_some()).cloned().collect()
    }

    /// The processes of all servers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.daemons.iter().filter_map(Daemon::pid).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.daemons.clear();
        for directory in &self.directories {
            // One that was never made need not go.
            if let Err(error) = std::fs::remove_dir_all(directory)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                crate::output::note(format!("{} was not removed: {error}", directory.display()));
            }
        }
        if let Some(directory) = &self.new_directory {
            // Fails if others have files there, and then it should.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Ports of this machine that are free now.
fn free_ports(count: usize) -> Result<Vec<u16>, CliError> {
    let ports = names::on_free_ports(count)?.into_iter().map(|server| server.addr);
    Ok(ports.filter_map(|addr| addr.rsplit(':').next().and_then(|port| port.parse().ok())).collect())
}

fn target(port: u16) -> Target {
    Target { addr: format!("127.0.0.1:{port}"), store: None }
}

/// Says something to a server on a port of this machine, and reads until `done` or it has nothing more to say.
async fn ask(port: u16, text: &str, done: impl Fn(&str) -> bool) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut heard = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&heard);
        if done(&so_far) {
            return Ok(so_far.into_owned());
        }
        if stream.read_buf(&mut heard).await? == 0 {
            return Ok(String::from_utf8_lossy(&heard).into_owned());
        }
    }
}

/// Whether a server answers in time with what is `wanted`.
async fn says(port: u16, text: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let asked = tokio::time::timeout(std::time::Duration::from_secs(1), ask(port, text, &wanted)).await;
    matches!(asked, Ok(Ok(answer)) if wanted(&answer))
}
