//! NATS servers with a key-value bucket.

use star_bench::System;

use super::{Group, free_ports, says, target};
use crate::{error::CliError, processes::Daemon};

const BUCKET: &str = "bench";

/// A cluster with a bucket in memory that every server holds, at most five of them, as NATS has it. Reads are answered
/// by any of them, and may be old.
pub(super) async fn group(servers: usize) -> Result<Group, CliError> {
    let copies = servers.min(5);
    let mut group = Group::new(System::Nats { bucket: BUCKET.to_owned() })?;
    let ports = free_ports(servers * 2)?;
    let (for_clients, for_servers) = ports.split_at(servers);
    let routes: Vec<String> = for_servers.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    for number in 0..servers {
        let path = |what: &str| group.directory().join(format!("{number}.{what}"));
        let cluster = format!("listen: \"127.0.0.1:{}\", routes: {routes:?}", for_servers[number]);
        let settings = format!(
            "server_name: n{number}\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\" }}\nmax_payload: 8MB\n\
             cluster {{ name: bench, {cluster} }}\n",
            for_clients[number],
            path("store").display(),
        );
        std::fs::write(path("conf"), settings)?;
        let args = ["-c".to_owned(), path("conf").display().to_string()];
        group.daemons.push(Daemon::start("nats-server", &args, group.directory(), number)?);
        group.targets.push(target(for_clients[number]));
    }
    let bucket = serde_json::json!({
        "name": format!("KV_{BUCKET}"), "subjects": [format!("$KV.{BUCKET}.>")], "num_replicas": copies,
        "storage": "memory", "retention": "limits", "discard": "new", "max_msgs_per_subject": 1,
        "max_msgs": -1, "max_bytes": -1, "max_age": 0, "deny_delete": true, "allow_rollup_hdrs": true,
        "allow_direct": true,
    })
    .to_string();
    let hello = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true}"#;
    let create = format!(
        "{hello}\r\nSUB ready 1\r\nPUB $JS.API.STREAM.CREATE.KV_{BUCKET} ready {}\r\n{bucket}\r\n",
        bucket.len()
    );
    // Creating it again is no error. A server that knows nothing of a leader yet does not answer.
    for (daemon, port) in group.daemons.iter_mut().zip(for_clients) {
        daemon.ready(async || says(*port, &create, |heard| heard.contains("\"created\"")).await).await?;
    }
    Ok(group)
}
