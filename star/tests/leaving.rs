//! Real servers that leave views while they live: links that are cut, and servers that are stopped in order.

use std::{
    io::{Read, Write},
    time::Duration,
};

use star::{Options, StarClient, StarCluster};
use star_control::{ClusterState, ServerRecord, Standing};
use star_core::{
    Clock,
    message::{RequestBody, ResponseBody},
    network::{ClientOptions, TcpClient},
};

/// Long after anything here should have happened, on whatever machine.
const LATE: Duration = Duration::from_mins(2);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// The cluster's state as this server knows it.
async fn state_at(addr: &str) -> Option<ClusterState> {
    let client = TcpClient::new(addr.to_owned(), ClientOptions::default());
    let ResponseBody::Status(text) = client.call(&RequestBody::Status.into()).await.ok()?.body else { return None };
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    serde_json::from_value(status["cluster"].clone()).ok()
}

async fn wait_for(addr: &str, what: &str, wanted: impl Fn(&ClusterState) -> bool) -> ClusterState {
    let ends = Clock.now() + LATE;
    loop {
        let state = state_at(addr).await;
        if let Some(state) = state.as_ref().filter(|state| wanted(state)) {
            return state.clone();
        }
        assert!(Clock.now() < ends, "it took too long until {what}: {state:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_whole(state: &ClusterState) -> bool {
    state.stars.iter().all(|view| view.serving().count() == 3)
}

fn named<'a>(state: &'a ClusterState, name: &str) -> &'a ServerRecord {
    state.server_named(name).expect("it is in the cluster")
}

#[test]
fn a_server_that_is_stopped_was_out_of_all_views_before_it_ended() {
    block_on(async {
        let mut cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let addr = cluster.servers().next().expect("a server").addr().to_owned();
        let before = wait_for(&addr, "all are in", is_whole).await;
        let epochs: Vec<_> = before.stars.iter().map(|view| view.epoch).collect();
        let client = cluster.connect().await.expect("the cluster answers");
        client.set("k", "before").await.expect("a write");
        assert!(cluster.stop_server("c"));
        let c = named(&before, "c").id;
        let after = wait_for(&addr, "c is out", |state| state.stars.iter().all(|view| !view.is_member(c))).await;
        assert_eq!(named(&after, "c").standing, Standing::Stopping, "it said itself that it ends");
        for (view, epoch) in after.stars.iter().zip(epochs) {
            // Asked to leave, and out: whoever is found dead is out in one step.
            assert!(view.epoch.0 >= epoch.0 + 2, "{view:?} after epoch {epoch}");
        }
        client.set("k", "after").await.expect("a write without c");
    });
}

#[test]
fn a_server_ends_in_order_although_a_client_does_not_read_its_answer() {
    block_on(async {
        let mut cluster = StarCluster::start_local(2).await.expect("the cluster starts");
        let addr = cluster.servers().last().expect("a server").addr().to_owned();
        let state = wait_for(&addr, "all are in", |state| state.stars.iter().all(|view| view.members.len() == 2)).await;
        let store = std::path::PathBuf::from(named(&state, "b").store.as_deref().expect("a store"));
        let client = cluster.connect().await.expect("the cluster answers");
        client.set("large", vec![7; 48 << 20]).await.expect("a write");
        let question = br#"{"type":"GET","key":"large"}"#;
        let mut idle = std::net::TcpStream::connect(&addr).expect("a connection");
        idle.write_all(&(question.len() as u64).to_be_bytes()).expect("it is sent");
        idle.write_all(question).expect("it is sent");
        // The answer has begun, and does not fit into what the kernels hold.
        idle.read_exact(&mut [0; 8]).expect("the beginning of an answer");
        assert!(store.exists() && cluster.stop_server("b"));
        assert!(!store.exists(), "the server has ended in order");
    });
}

#[test]
fn writes_go_on_without_one_of_two_servers_that_do_not_reach_each_other_and_it_comes_back() {
    block_on(async {
        let cluster = StarCluster::start_local(3).await.expect("the cluster starts");
        let servers: Vec<_> = cluster.servers().collect();
        let addr = servers[0].addr().to_owned();
        let state = wait_for(&addr, "all are in", is_whole).await;
        // Neither of them hosts the control plane.
        let (b, c) = (named(&state, "b").id, named(&state, "c").id);
        servers[1].fail_link(c);
        let parted = wait_for(&addr, "one gives way", |state| {
            state.stars.iter().all(|view| view.is_settled() && view.is_member(b) != view.is_member(c))
        })
        .await;
        assert!(named(&parted, "b").unreachable.contains(&c), "b said so: {parted:?}");
        let options = Options { give_up_after: LATE, ..Options::default() };
        let client = StarClient::connect(std::slice::from_ref(&addr), options).await.expect("an answer");
        for number in 0..50 {
            client.set(&format!("k{number}"), "while they are parted").await.expect("a write");
        }
        servers[1].fix_link(c);
        wait_for(&addr, "it is back", is_whole).await;
        for server in &servers {
            let options = Options { give_up_after: LATE, ..Options::one_server() };
            let one = StarClient::connect(&[server.addr().to_owned()], options).await.expect("an answer");
            let object = one.get("k49").await.expect("a read").expect("an object");
            assert_eq!(object.value, "while they are parted");
        }
    });
}
