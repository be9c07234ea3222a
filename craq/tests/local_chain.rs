//! A coordinator and real nodes in this process: writes, reads at every node, and the loss of head, middle and tail.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use craq::{
    Coordinator, CoordinatorOptions, CraqOptions, CraqServer,
    protocol::{Acks, Chain, NodeConfig, Reads},
};
use star::{CasOutcome, Options, StarClient};
use star_control::{ClusterState, LeaseConfig, PlanConfig};
use star_core::{
    Incarnation, ServerId, Version,
    message::Condition,
    server::{Limits, bind},
};

const CHAINS: u16 = 2;

/// Far longer than anything here takes, even on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Leases that a busy machine does not lose.
const LEASE: LeaseConfig = LeaseConfig { ttl: Duration::from_secs(3), drift_margin: Duration::from_millis(300) };

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn coordinator(directory: &Path) -> Coordinator {
    let directory = directory.join("coordinator");
    let (limits, lease_ttl, cluster) = (Limits::default(), LEASE.ttl, "test".to_owned());
    let options = CoordinatorOptions { limits, lease_ttl, cluster, directory };
    Coordinator::start_on(bind("127.0.0.1:0").expect("a port"), &options).expect("the coordinator starts")
}

fn node(coordinator: &str, directory: &Path, name: &str, addr: &str, config: &NodeConfig) -> CraqServer {
    let options = CraqOptions {
        node: NodeConfig { name: name.to_owned(), ..config.clone() },
        cluster: "test".to_owned(),
        limits: Limits::default(),
        store_path: directory.join(name),
        store_capacity_bytes: 32 << 20,
        control: Coordinator::control_of(coordinator),
        plan: PlanConfig { stars: CHAINS, initial_servers: 3, replicas: None, follow_alive: true },
        lease: LEASE,
        allows_faults: false,
    };
    CraqServer::start_on(bind(addr).expect("a port"), options).expect("the node starts")
}

fn config() -> NodeConfig {
    NodeConfig::new(ServerId::default(), "", Incarnation::default(), CHAINS)
}

async fn client(addr: &str) -> StarClient {
    let options = Options { give_up_after: PATIENCE, ..Options::one_server() };
    StarClient::connect(&[addr.to_owned()], options).await.expect("it answers")
}

/// What the coordinator knows.
async fn cluster(coordinator: &StarClient) -> Option<ClusterState> {
    let (_, status) = coordinator.status().await.into_iter().next()?;
    let status: serde_json::Value = serde_json::from_str(&status.ok()?).expect("JSON");
    serde_json::from_value(status["cluster"].clone()).expect("a cluster or none")
}

/// Waits until `wanted` holds of the cluster.
async fn wait_for(coordinator: &StarClient, what: &str, wanted: impl Fn(&ClusterState) -> bool) -> ClusterState {
    let waiting = async {
        loop {
            match cluster(coordinator).await {
                Some(state) if wanted(&state) => return state,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never came: {what}"))
}

fn is_whole(state: &ClusterState, nodes: usize) -> bool {
    state.stars.len() == usize::from(CHAINS)
        && state.stars.iter().all(|view| view.serving().count() == nodes && view.learners.is_empty())
}

#[test]
fn what_is_written_through_the_coordinator_is_read_at_every_node() {
    for (reads, acks) in [(Reads::Apportioned, Acks::Chain), (Reads::Tail, Acks::Direct)] {
        block_on(async {
            let directory = tempfile::tempdir().expect("a directory");
            let coordinator = coordinator(directory.path());
            let config = NodeConfig { reads, acks, ..config() };
            let start = |name| node(coordinator.addr(), directory.path(), name, "127.0.0.1:0", &config);
            let nodes: Vec<CraqServer> = ["a", "b", "c"].into_iter().map(start).collect();
            let writer = client(coordinator.addr()).await;
            assert_eq!(writer.set("k", "one").await.expect("a write"), Version(1));
            assert_eq!(writer.set("k", "two").await.expect("a write"), Version(2));
            let large = Bytes::from(vec![7; 1 << 20]);
            writer.set("large", large.clone()).await.expect("a write");
            for node in &nodes {
                let reader = client(node.addr()).await;
                let object = reader.get("k").await.expect("a read").expect("an object");
                assert_eq!((&*object.value, object.version), (&b"two"[..], Version(2)));
                assert_eq!(reader.get("large").await.expect("a read").expect("an object").value, large);
                assert_eq!(reader.get("missing").await.expect("a read"), None);
                assert_eq!(reader.list("", None, 10).await.expect("a list").keys, ["k", "large"]);
            }
            // A node that is not the head passes writes on to it, and hears what comes of them on their way down.
            let other = client(nodes[2].addr()).await;
            let conflict = other.compare_and_set("k", Condition::IfVersion(Version(1)), "three").await;
            assert_eq!(conflict.expect("an answer"), CasOutcome::Conflict(Version(2)));
            let written = other.compare_and_set("k", Condition::IfVersion(Version(2)), "three").await;
            assert_eq!(written.expect("an answer"), CasOutcome::Written(Version(3)));
            let names: Vec<String> = (0..50).map(|number| format!("many/{number:02}")).collect();
            let objects: Vec<(&str, Bytes)> =
                names.iter().map(|name| (name.as_str(), Bytes::from(name.clone()))).collect();
            assert_eq!(other.set_many(&objects).await.expect("writes"), vec![Version(1); 50]);
            let deleted = other.delete("k", Condition::Always).await.expect("an answer");
            assert_eq!(deleted, Some(CasOutcome::Written(Version(4))));
            assert_eq!(writer.get("k").await.expect("a read"), None);
        });
    }
}

#[test]
fn the_chain_goes_on_without_its_head_middle_or_tail_and_takes_them_back_at_its_end() {
    block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let coordinator = coordinator(directory.path());
        let start = |name: &str, addr: &str| node(coordinator.addr(), directory.path(), name, addr, &config());
        let mut nodes: Vec<CraqServer> = ["a", "b", "c"].into_iter().map(|name| start(name, "127.0.0.1:0")).collect();
        let desk = client(coordinator.addr()).await;
        let mut state = wait_for(&desk, "a chain of three", |state| is_whole(state, 3)).await;
        let mut written = 0;
        for place in 0..3 {
            let lost = Chain::of(&state.stars[0]).order()[place];
            let name = state.server(lost).expect("a node of the chain").name.clone();
            let at = nodes.iter().position(|node| node.name() == name).expect("it runs");
            let node = nodes.swap_remove(at);
            let addr = node.addr().to_owned();
            let rest: Vec<String> = nodes.iter().map(|node| node.addr().to_owned()).collect();
            let options = Options { give_up_after: PATIENCE, only_given: true, ..Options::one_server() };
            let client_of_rest = StarClient::connect(&rest, options).await.expect("they answer");
            // Under way while the node goes away: answered in any case, and kept.
            let going_away = tokio::task::spawn_blocking(move || node.stop());
            for _ in 0..20 {
                client_of_rest.set(&format!("k{}", written % 7), format!("value {written}")).await.expect("a write");
                written += 1;
            }
            going_away.await.expect("it stops");
            wait_for(&desk, "a chain of two", |state| is_whole(state, 2)).await;
            nodes.push(start(&name, &addr));
            state = wait_for(&desk, "a chain of three again", |state| is_whole(state, 3)).await;
            for node in &nodes {
                let reader = client(node.addr()).await;
                for key in 0..7 {
                    let latest = (0..written).rev().find(|number| number % 7 == key).expect("it was written");
                    let object = reader.get(&format!("k{key}")).await.expect("a read").expect("an object");
                    assert_eq!(object.value, format!("value {latest}"), "key {key} at {}", node.name());
                }
            }
        }
    });
}
