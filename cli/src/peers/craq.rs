//! CRAQ's processes: a coordinator, and nodes that form the chains.

use star::{Options, StarClient};
use star_bench::{System, Target};
use star_control::ClusterState;

use super::{Group, Wanted, free_ports};
use crate::{error::CliError, processes::Daemon};

/// As many chains as Star has stars by default, so that heads and tails are spread over the nodes as leaders are there.
const CHAINS: usize = 8;

/// Every node takes writes, which it passes on to the head of their chain, and answers reads by itself, also from its
/// mapped store.
pub(super) async fn group(wanted: &Wanted) -> Result<Group, CliError> {
    let mut group = Group::new(System::Craq)?;
    let stores = wanted.store_directory.join(format!("craq-{}", std::process::id()));
    group.directories.push(stores.clone());
    group.new_directory = (!wanted.store_directory.exists()).then(|| wanted.store_directory.clone());
    let ports = free_ports(wanted.servers + 1)?;
    let (coordinator, nodes) = (ports[0], &ports[1..]);
    let text = |word: &str| word.to_owned();
    let directory = group.directory().display().to_string();
    let own = [text("--port"), coordinator.to_string(), text("--directory"), directory];
    let args = [&[text("coordinator")], &own[..]].concat();
    group.daemons.push(Daemon::start_own("craq", &args, group.directory(), 0)?);
    for (number, port) in nodes.iter().enumerate() {
        let args = [
            [text("node"), text("--port"), port.to_string()],
            [text("--chains"), CHAINS.to_string(), format!("--begin-with={}", nodes.len())],
            [text("--coordinator"), coordinator.to_string(), format!("--capacity={}", wanted.capacity_bytes)],
        ];
        let args = [&args.concat()[..], &[text("--directory"), stores.display().to_string()]].concat();
        group.daemons.push(Daemon::start_own("craq", &args, group.directory(), number + 1)?);
        let store = Some(stores.join(format!("node-{port}")));
        group.targets.push(Target { addr: format!("127.0.0.1:{port}"), store });
    }
    let desk = format!("127.0.0.1:{coordinator}");
    group.daemons[0].ready(async || serves(&desk, nodes.len()).await).await?;
    Ok(group)
}

/// Whether all chains consist of all nodes, as the coordinator knows them.
async fn serves(coordinator: &str, nodes: usize) -> bool {
    let Some(cluster) = cluster(coordinator).await else { return false };
    let is_whole = |view: &star_control::View| view.serving().count() == nodes && view.learners.is_empty();
    cluster.stars.len() == CHAINS && cluster.stars.iter().all(is_whole)
}

async fn cluster(coordinator: &str) -> Option<ClusterState> {
    let client = StarClient::connect(&[coordinator.to_owned()], Options::one_server()).await.ok()?;
    let (_, status) = client.status().await.into_iter().next()?;
    let mut status: serde_json::Value = serde_json::from_str(&status.ok()?).ok()?;
    serde_json::from_value(status["cluster"].take()).ok()
}
