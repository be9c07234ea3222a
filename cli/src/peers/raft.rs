//! Servers of the key-value store on Raft.

use serde_json::Value;
use star_bench::{System, Target};
use star_core::{
    message::{RequestBody, Response, ResponseBody},
    network::{ClientOptions, TcpClient},
};

use super::{Group, Wanted, free_ports};
use crate::{error::CliError, processes::Daemon};

/// The log is on disk, with an `fsync` before anything is acknowledged. The load goes to the leader, which is where writes
/// and linearizable reads are answered.
pub(super) async fn group(wanted: &Wanted) -> Result<Group, CliError> {
    let mut group = Group::new(System::Raft)?;
    let ports = free_ports(wanted.servers)?;
    let servers: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    for number in 1..=servers.len() {
        let args = [
            ["server".to_owned(), number.to_string()],
            ["--servers".to_owned(), servers.join(",")],
            ["--directory".to_owned(), group.directory().display().to_string()],
            ["--capacity".to_owned(), wanted.capacity_bytes.to_string()],
        ];
        group.daemons.push(Daemon::start_own("raft", &args.concat(), group.directory(), number)?);
    }
    group.daemons[0].ready(async || leader(&servers).await.is_some()).await?;
    let leader = leader(&servers).await.ok_or_else(|| CliError::new("the servers elected no leader that stays"))?;
    group.targets.push(Target { addr: leader, store: None });
    Ok(group)
}

/// The server that all others follow.
async fn leader(servers: &[String]) -> Option<String> {
    let mut leader: Option<String> = None;
    for server in servers {
        let client = TcpClient::new(server.clone(), ClientOptions { pool_size: 1, ..ClientOptions::default() });
        let Ok(Response { body: ResponseBody::Status(status), .. }) = client.call(&RequestBody::Status.into()).await
        else {
            return None;
        };
        let status: Value = serde_json::from_str(&status).ok()?;
        let named = status["leader"].as_str()?.to_owned();
        if leader.as_ref().is_some_and(|leader| *leader != named) {
            return None;
        }
        leader = Some(named);
    }
    leader
}
