//! Servers that leave views with their leases in their hands: because they end, or because others cannot be reached.

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use star_control::{
    Agent, AgentConfig, ClusterState, ControlEvent, ControlPlane, EmbeddedClient, LeaseConfig, PlanConfig,
    ServerRecord, Standing, View, Word, document::CLUSTER_KEY,
};
use star_core::{Clock, Epoch, Incarnation, ServerId, StarId, Time};
use support::{Host, local_plane};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

/// Long after anything here should have happened.
const LATE: Duration = Duration::from_secs(60);

/// Far longer than a test waits for: nothing here may happen because a lease has run out.
const TTL: Duration = Duration::from_secs(6);

/// An agent at work for a server that gives way as soon as it is asked to.
struct Running {
    id: ServerId,
    cut: watch::Sender<BTreeMap<ServerId, Time>>,
    leave: watch::Sender<bool>,
    left: Option<oneshot::Receiver<()>>,
    stop: Option<oneshot::Sender<()>>,
    agent: JoinHandle<()>,
    server: JoinHandle<()>,
}

impl Running {
    async fn start(plane: EmbeddedClient, name: &str, servers: usize) -> Self {
        let (events, news) = mpsc::unbounded_channel();
        let (ready, is_ready) = watch::channel(Vec::new());
        let (cut, is_cut) = watch::channel(BTreeMap::new());
        let (leave, leaves) = watch::channel(false);
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell_left, left) = oneshot::channel();
        let me = ServerRecord { name: name.into(), incarnation: Incarnation(1), ..ServerRecord::default() };
        let config = AgentConfig {
            cluster: "test".into(),
            plan: PlanConfig { stars: 6, initial_servers: servers, replicas: None, follow_alive: true },
            lease: LeaseConfig { ttl: TTL, drift_margin: TTL / 10 },
        };
        let mut agent =
            Agent::new(plane, me, config, events, Word { ready: is_ready, cut: is_cut, settled: None, leave: leaves });
        let id = timeout(LATE, agent.register()).await.expect("in time").expect("it fits");
        let server = tokio::spawn(serve(id, news, ready, tell_left));
        let agent = tokio::spawn(async move {
            agent.run(async { drop(stopped.await) }).await.expect("a clean end");
        });
        Self { id, cut, leave, left: Some(left), stop: Some(stop), agent, server }
    }

    async fn stop(mut self) {
        let _ = self.stop.take().expect("once").send(());
        timeout(LATE, self.agent).await.expect("in time").expect("a task");
        self.server.abort();
    }
}

/// What a server does with the news: where it is asked to leave it answers nothing more, and says so.
async fn serve(
    me: ServerId,
    mut news: mpsc::UnboundedReceiver<ControlEvent>,
    ready: watch::Sender<Vec<(StarId, Epoch)>>,
    left: oneshot::Sender<()>,
) {
    while let Some(event) = news.recv().await {
        match event {
            ControlEvent::Cluster(state) => {
                let asked = |view: &&View| view.leaving.contains(&me);
                ready.send_replace(state.stars.iter().filter(asked).map(|view| (view.star, view.epoch)).collect());
            }
            ControlEvent::Left => {
                let _ = left.send(());
                return std::future::pending().await;
            }
            _ => {}
        }
    }
}

async fn state(plane: &EmbeddedClient) -> ClusterState {
    let found = plane.get(CLUSTER_KEY).await.expect("an answer").expect("a document");
    ClusterState::decode(&found.value).expect("a state")
}

async fn state_that(plane: &EmbeddedClient, wanted: impl Fn(&ClusterState) -> bool) -> Arc<ClusterState> {
    let wait = async {
        loop {
            let state = state(plane).await;
            if wanted(&state) {
                return Arc::new(state);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LATE, wait).await.expect("in time")
}

async fn holds_lease(plane: &EmbeddedClient, name: &str) -> bool {
    plane.leases().await.expect("leases").iter().any(|lease| lease.name == name)
}

async fn three(plane: &EmbeddedClient) -> Vec<Running> {
    let mut running = Vec::new();
    for name in ["s0", "s1", "s2"] {
        running.push(Running::start(plane.clone(), name, 3).await);
    }
    state_that(plane, |state| state.stars.iter().all(|view| view.members.len() == 3)).await;
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_is_out_of_all_views_before_it_gives_its_lease_back() {
    let plane = local_plane(&Host::new(TTL));
    let mut running = three(&plane).await;
    while !holds_lease(&plane, "s2").await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut leaver = running.pop().expect("three");
    leaver.leave.send_replace(true);
    timeout(LATE, leaver.left.take().expect("once")).await.expect("in time").expect("it is told that it has left");
    let after = state(&plane).await;
    assert!(after.stars.iter().all(|view| !view.is_member(leaver.id) && view.serving().count() == 2), "{after:?}");
    assert_eq!(after.server(leaver.id).expect("known").standing, Standing::Stopping);
    let led = |id: ServerId| after.stars.iter().filter(|view| view.leader == id).count();
    assert_eq!((led(ServerId(0)), led(ServerId(1))), (3, 3), "{after:?}");
    assert!(holds_lease(&plane, "s2").await, "nobody had to wait for its lease");
    leaver.stop().await;
    assert!(!holds_lease(&plane, "s2").await, "the lease is given back");
    // The last of all has nobody to hand over to, and does not wait for anybody.
    for mut one in running.into_iter().rev() {
        one.leave.send_replace(true);
        timeout(LATE, one.left.take().expect("once")).await.expect("in time").expect("it is told that it has left");
        one.stop().await;
    }
    let end = state(&plane).await;
    assert!(end.stars.iter().all(|view| view.members == [ServerId(0)]), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_do_not_reach_each_other_are_parted_while_all_hold_their_leases() {
    let plane = local_plane(&Host::new(TTL));
    let running = three(&plane).await;
    let since = Time(Clock.now().0 - 2 * TTL.as_nanos() as u64);
    running[1].cut.send_replace(BTreeMap::from([(running[2].id, since)]));
    let parted = state_that(&plane, |state| {
        state.stars.iter().all(|view| view.is_settled() && view.members == [ServerId(0), ServerId(1)])
    })
    .await;
    assert!(parted.server(ServerId(1)).expect("known").unreachable.contains(&ServerId(2)));
    for one in ["s0", "s1", "s2"] {
        assert!(holds_lease(&plane, one).await, "{one}");
    }
    // As long as the word stands the server is not even a learner; then it is.
    running[1].cut.send_replace(BTreeMap::new());
    state_that(&plane, |state| state.stars.iter().all(|view| view.learners == [ServerId(2)])).await;
    for one in running {
        one.stop().await;
    }
}
