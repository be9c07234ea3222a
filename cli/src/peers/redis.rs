//! Redis servers.

use std::path::Path;

use star_bench::System;

use super::{Group, free_ports, says, target};
use crate::{error::CliError, processes::Daemon};

/// One server and its replicas, nothing of it on disk. The load goes to the one that takes the writes: what a replica
/// reads may be old.
pub(super) async fn group(servers: usize) -> Result<Group, CliError> {
    let replicas = servers - 1;
    let mut group = Group::new(System::Redis { replicas })?;
    let ports = free_ports(servers)?;
    for (number, port) in ports.iter().enumerate() {
        let mut args = vec!["--appendonly".to_owned(), "no".to_owned()];
        if number > 0 {
            // Without a disk in between, and without the pause in which the first replica waits for more of them.
            let follow = format!("127.0.0.1 {}", ports[0]);
            args.extend(["--replicaof".to_owned(), follow]);
        }
        args.extend(["--repl-diskless-sync-delay", "0"].map(str::to_owned));
        group.daemons.push(start(*port, group.directory(), number, &args)?);
        let daemon = group.daemons.last_mut().expect("it was added just now");
        ready(daemon, *port).await?;
    }
    let first = ports[0];
    group.targets.push(target(first));
    let wait = format!("SET star-bench-ready 1\r\nWAIT {replicas} 500\r\nDEL star-bench-ready\r\n");
    let all = format!("+OK\r\n:{replicas}\r\n:1\r\n");
    group.daemons[0].ready(async || says(first, &wait, |heard| heard.ends_with(&all)).await).await?;
    Ok(group)
}

/// Starts a server that writes no snapshots; `more` are further options.
pub(crate) fn start(port: u16, directory: &Path, number: usize, more: &[String]) -> Result<Daemon, CliError> {
    let mut args: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--port"].map(str::to_owned).to_vec();
    args.extend([port.to_string(), "--dir".to_owned(), directory.display().to_string()]);
    args.extend_from_slice(more);
    Daemon::start("redis-server", &args, directory, number)
}

/// Waits until it answers, and has read its files.
pub(crate) async fn ready(daemon: &mut Daemon, port: u16) -> Result<(), CliError> {
    daemon.ready(async || says(port, "PING\r\n", |heard| heard == "+PONG\r\n").await).await
}
