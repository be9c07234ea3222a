//! etcd servers.

use star_bench::System;

use super::{Group, free_ports, says, target};
use crate::{error::CliError, processes::Daemon};

/// A cluster as it is by default: the log is on disk, with an `fsync` before anything is acknowledged, and reads are
/// linearizable at every server, so the load goes to all of them.
pub(super) async fn group(servers: usize) -> Result<Group, CliError> {
    let mut group = Group::new(System::Etcd)?;
    let ports = free_ports(servers * 2)?;
    let (for_clients, for_servers) = ports.split_at(servers);
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let named = |(number, port): (usize, &u16)| format!("n{number}={}", url(port));
    let cluster: Vec<String> = for_servers.iter().enumerate().map(named).collect();
    for number in 0..servers {
        let (clients, others) = (url(&for_clients[number]), url(&for_servers[number]));
        let settings = [
            ("name", format!("n{number}")),
            ("data-dir", group.directory().join(format!("{number}.etcd")).display().to_string()),
            ("listen-client-urls", clients.clone()),
            ("advertise-client-urls", clients),
            ("listen-peer-urls", others.clone()),
            ("initial-advertise-peer-urls", others),
            ("initial-cluster", cluster.join(",")),
            ("initial-cluster-state", "new".to_owned()),
        ];
        let args = settings.map(|(name, value)| format!("--{name}={value}"));
        group.daemons.push(Daemon::start("etcd", &args, group.directory(), number)?);
        group.targets.push(target(for_clients[number]));
    }
    // A linearizable read needs a leader, and a server that follows it.
    let body = r#"{"key":"cmVhZHk="}"#;
    let length = body.len();
    let read = format!(
        "POST /v3/kv/range HTTP/1.1\r\nHost: load\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    for (daemon, port) in group.daemons.iter_mut().zip(for_clients) {
        daemon.ready(async || says(*port, &read, |heard| heard.contains("\"revision\"")).await).await?;
    }
    Ok(group)
}
