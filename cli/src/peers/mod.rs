//! Other systems, started to be measured beside Star: servers of their own on free ports of this machine, with their
//! objects in memory, as Star has them.

mod nats;
pub(crate) mod redis;

use std::path::PathBuf;

use star_bench::{System, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{error::CliError, names, processes::Daemon};

/// The systems that can stand beside Star.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// One Redis server that takes the writes, and its replicas.
    Redis,
    /// A NATS cluster with a key-value bucket that all of its servers hold.
    Nats,
}

/// The servers of a peer. Dropping it kills them and removes their files.
#[derive(Debug)]
pub(crate) struct Group {
    /// What the load has to speak.
    pub(crate) system: System,
    /// Where the load goes.
    pub(crate) targets: Vec<Target>,
    daemons: Vec<Daemon>,
    directory: PathBuf,
}

impl Group {
    /// Starts so many servers and waits until all of them hold what is written.
    pub(crate) async fn start(peer: Peer, servers: usize) -> Result<Self, CliError> {
        match peer {
            Peer::Redis => redis::group(servers).await,
            Peer::Nats => nats::group(servers).await,
        }
    }

    fn new(system: System) -> Result<Self, CliError> {
        let directory = std::env::temp_dir().join(format!("star-bench-{}-{}", system.name(), std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Ok(Self { system, targets: Vec::new(), daemons: Vec::new(), directory })
    }

    /// The processes of all servers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.daemons.iter().filter_map(Daemon::pid).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.daemons.clear();
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            crate::output::note(format!("{} was not removed: {error}", self.directory.display()));
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
