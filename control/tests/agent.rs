//! Whole agents against real control planes: registration, first views, leases, restarts, and planes that fail.

mod support;

use std::{sync::Arc, time::Duration};

use star_control::{
    Agent, AgentConfig, AgentError, CasOutcome, ClusterState, ControlEvent, ControlPlane, LeaseConfig, PlanConfig,
    Revision, ServerRecord, Word, document::CLUSTER_KEY,
};
use star_core::{Clock, Epoch, Incarnation, ServerId, Time};
use support::{Backend, Host, Local, Redis, TTL_MAX, Tcp, TcpHost, local_plane, settle, tcp_plane};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// Long after anything here should have happened.
const LATE: Duration = Duration::from_secs(20);

fn record(name: &str, incarnation: u64) -> ServerRecord {
    ServerRecord {
        id: ServerId(0),
        name: name.into(),
        addr: format!("127.0.0.1:{incarnation}"),
        incarnation: Incarnation(incarnation),
        pid: std::process::id(),
        store: None,
        ..ServerRecord::default()
    }
}

fn config(initial_servers: usize) -> AgentConfig {
    AgentConfig {
        cluster: "test".into(),
        plan: PlanConfig { stars: 6, initial_servers, replicas: None, follow_alive: true },
        lease: LeaseConfig::default(),
    }
}

/// An agent at work, and the server's end of its events.
struct Running {
    events: mpsc::UnboundedReceiver<ControlEvent>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), AgentError>>,
    cluster: Option<Arc<ClusterState>>,
}

impl Running {
    fn start<P: ControlPlane>(plane: P, me: ServerRecord, config: AgentConfig) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let agent = Agent::new(plane, me, config, sender, Word::silent());
        let task = tokio::spawn(agent.run(async move {
            let _ = stopped.await;
        }));
        Self { events, stop: Some(stop), task, cluster: None }
    }

    async fn event(&mut self) -> ControlEvent {
        let event = timeout(LATE, self.events.recv()).await.expect("an event in time").expect("a living agent");
        match &event {
            ControlEvent::Cluster(state) => self.cluster = Some(Arc::clone(state)),
            ControlEvent::Lease { .. } => assert!(self.cluster.is_some(), "a lease that counts before any view"),
            _ => {}
        }
        event
    }

    /// Waits for a state of the cluster.
    async fn cluster(&mut self, wanted: impl Fn(&ClusterState) -> bool) -> Arc<ClusterState> {
        loop {
            if let Some(state) = self.cluster.as_ref().filter(|state| wanted(state)) {
                return Arc::clone(state);
            }
            self.event().await;
        }
    }

    async fn founded(&mut self) -> Arc<ClusterState> {
        self.cluster(|state| state.stars.iter().all(|view| !view.members.is_empty())).await
    }

    async fn lease(&mut self) -> Time {
        loop {
            if let ControlEvent::Lease { until } = self.event().await {
                return until;
            }
        }
    }

    async fn lease_lost(&mut self) {
        while self.event().await != ControlEvent::LeaseLost {}
    }

    async fn unreachable(&mut self) -> String {
        loop {
            if let ControlEvent::Unreachable(why) = self.event().await {
                return why;
            }
        }
    }

    async fn stop(mut self) {
        let _ = self.stop.take().expect("once").send(());
        timeout(LATE, self.task).await.expect("in time").expect("a task").expect("a clean end");
    }

    /// Ends like a process that is killed: nothing is given back.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn three<P: ControlPlane>(plane: impl Fn() -> P) -> Vec<Running> {
    let mut running: Vec<_> =
        (1..=3).map(|number| Running::start(plane(), record(&format!("s{number}"), number), config(3))).collect();
    for one in &mut running {
        one.founded().await;
        one.lease().await;
    }
    running
}

async fn servers_find_each_other_and_form_the_first_views<B: Backend>() {
    let backend = B::start().await;
    let mut first = Running::start(backend.plane(), record("s1", 1), config(3));
    let mut second = Running::start(backend.plane(), record("s2", 2), config(3));
    first.lease().await;
    second.lease().await;
    // Two of three are not enough.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let found = backend.plane().get(CLUSTER_KEY).await.expect("an answer").expect("a document");
    let state = ClusterState::decode(&found.value).expect("a state");
    assert!(state.stars.len() == 6 && state.stars.iter().all(|view| !view.exists()), "{state:?}");
    let mut third = Running::start(backend.plane(), record("s3", 3), config(3));
    let states = [first.founded().await, second.founded().await, third.founded().await];
    assert!(states.iter().all(|state| state.stars == states[0].stars));
    for view in &states[0].stars {
        assert_eq!((view.epoch, view.members.len()), (Epoch(1), 3));
    }
    for server in &states[0].servers {
        assert_eq!(states[0].stars.iter().filter(|view| view.leader == server.id).count(), 2, "{}", server.name);
    }
    let until = third.lease().await;
    assert!(until > Clock.now() && until < Clock.now() + LeaseConfig::default().ttl);
    first.stop().await;
    second.stop().await;
    third.stop().await;
    assert_eq!(backend.plane().leases().await, Ok(vec![]), "leases are given back");
}

async fn a_killed_member_is_taken_out_when_its_lease_has_run_out<B: Backend>() {
    let backend = B::start().await;
    let mut running = three(|| backend.plane()).await;
    settle(&backend.plane()).await;
    // The last the server heard of its lease; what it holds ends no earlier.
    let until = running[2].lease().await;
    running.pop().expect("three").kill().await;
    let dead = running[0].cluster.as_ref().expect("a state").server_named("s3").expect("s3").id;
    for one in &mut running {
        let state = one.cluster(|state| state.stars.iter().all(|view| !view.is_member(dead))).await;
        assert!(Clock.now() >= until, "taken out while its lease ran");
        for view in &state.stars {
            assert_eq!((view.epoch, view.members.len()), (Epoch(2), 2));
        }
        for survivor in state.servers.iter().filter(|server| server.id != dead) {
            assert_eq!(state.stars.iter().filter(|view| view.leader == survivor.id).count(), 3);
        }
    }
    for one in running {
        one.stop().await;
    }
}

/// The machine's date went back between the two.
async fn a_life_whose_date_is_earlier_comes_after_the_last_one<B: Backend>() {
    let backend = B::start().await;
    let mut first = Running::start(backend.plane(), record("a", 9_000), config(1));
    first.founded().await;
    first.kill().await;
    let mut second = Running::start(backend.plane(), record("a", 5), config(1));
    let state = second.cluster(|state| state.server_named("a").is_some()).await;
    assert_eq!(state.server_named("a").map(|one| one.incarnation), Some(Incarnation(9_000).after()));
    second.lease().await;
    second.stop().await;
}

async fn a_new_life_waits_for_the_old_ones_lease_and_is_a_member_of_nothing<B: Backend>() {
    let backend = B::start().await;
    let mut running = three(|| backend.plane()).await;
    settle(&backend.plane()).await;
    running.pop().expect("three").kill().await;
    let mut again = Running::start(backend.plane(), record("s3", 30), config(3));
    let waiting = again.event().await;
    assert!(matches!(&waiting, ControlEvent::Waiting(why) if why.contains("s3")), "{waiting:?}");
    again.lease().await;
    let state = again.cluster.clone().expect("a state");
    let me = state.server_named("s3").expect("itself");
    assert_eq!((me.incarnation, state.servers.len()), (Incarnation(30), 3));
    assert!(state.stars.iter().all(|view| !view.is_member(me.id) && view.members.len() == 2));
    again.stop().await;
    // After a clean stop there is nothing to wait for.
    let mut third_life = Running::start(backend.plane(), record("s3", 31), config(3));
    assert!(matches!(third_life.event().await, ControlEvent::Cluster(_)));
    third_life.stop().await;
    for one in running {
        one.stop().await;
    }
}

macro_rules! on_each {
    ($($case:ident)*) => {
        on_each!(@ embedded_local Local [$($case)*]);
        on_each!(@ embedded_tcp Tcp [$($case)*]);
        on_each!(@ redis_server Redis [$($case)*]);
    };
    (@ $module:ident $backend:ident [$($case:ident)*]) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case::<$backend>().await;
                }
            )*
        }
    };
}

on_each! {
    servers_find_each_other_and_form_the_first_views
    a_killed_member_is_taken_out_when_its_lease_has_run_out
    a_life_whose_date_is_earlier_comes_after_the_last_one
    a_new_life_waits_for_the_old_ones_lease_and_is_a_member_of_nothing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_cut_off_loses_its_lease_in_time_and_gets_it_back() {
    let host = Host::new(TTL_MAX);
    let server = TcpHost::start(host.clone(), "127.0.0.1:0").await;
    let addr = server.addr().to_owned();
    let mut one = Running::start(tcp_plane(&addr), record("s1", 1), config(1));
    one.founded().await;
    one.lease().await;
    server.stop().await;
    let why = one.unreachable().await;
    assert!(why.contains("control plane"), "{why}");
    one.lease_lost().await;
    let _server = TcpHost::start(host, &addr).await;
    assert!(one.lease().await > Clock.now());
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_that_comes_back_empty_is_refused_with_the_way_out() {
    let server = TcpHost::start(Host::new(TTL_MAX), "127.0.0.1:0").await;
    let addr = server.addr().to_owned();
    let mut one = Running::start(tcp_plane(&addr), record("s1", 1), config(1));
    let state = one.founded().await;
    one.lease().await;
    server.stop().await;
    one.unreachable().await;
    one.lease_lost().await;
    let empty = Host::new(TTL_MAX);
    let _server = TcpHost::start(empty.clone(), &addr).await;
    let quiet = async {
        loop {
            match one.event().await {
                ControlEvent::Lease { until } => panic!("a lease until {until} under a plane that forgot"),
                ControlEvent::Cluster(other) => panic!("another cluster: {other:?}"),
                _ => {}
            }
        }
    };
    assert!(timeout(Duration::from_secs(2), quiet).await.is_err());
    // Also not if another server has made a new cluster there meanwhile.
    let mut other = Running::start(local_plane(&empty), record("s2", 2), config(1));
    assert_ne!(other.founded().await.cluster, state.cluster);
    let quiet = async { while !matches!(one.event().await, ControlEvent::Lease { .. } | ControlEvent::Cluster(_)) {} };
    assert!(timeout(Duration::from_secs(2), quiet).await.is_err());
    other.stop().await;
    one.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_replaced_while_cut_off_stops_and_never_counts_on_a_lease_again() {
    let host = Host::new(TTL_MAX);
    let server = TcpHost::start(host.clone(), "127.0.0.1:0").await;
    let addr = server.addr().to_owned();
    let mut old = Running::start(tcp_plane(&addr), record("s1", 1), config(1));
    old.founded().await;
    old.lease().await;
    server.stop().await;
    let mut new = Running::start(local_plane(&host), record("s1", 2), config(1));
    new.lease().await;
    // Its lease has run out by then, and it has told so.
    old.lease_lost().await;
    new.stop().await;
    let _server = TcpHost::start(host, &addr).await;
    let outcome = timeout(LATE, old.task).await.expect("in time").expect("a task");
    assert!(matches!(&outcome, Err(AgentError::Superseded { name, .. }) if name == "s1"), "{outcome:?}");
    while let Ok(event) = old.events.try_recv() {
        assert!(!matches!(event, ControlEvent::Lease { .. }), "{event:?}");
    }
}

/// Whatever revision the other cluster has reached: a smaller one than was known, the same, or a greater one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_with_another_cluster_is_refused_at_every_revision() {
    let server = TcpHost::start(Host::new(TTL_MAX), "127.0.0.1:0").await;
    let addr = server.addr().to_owned();
    let mut one = Running::start(tcp_plane(&addr), record("s1", 1), config(1));
    let state = one.founded().await;
    one.lease().await;
    let known = tcp_plane(&addr).get(CLUSTER_KEY).await.expect("an answer").expect("a document").revision;
    server.stop().await;
    one.lease_lost().await;
    let host = Host::new(TTL_MAX);
    let plane = local_plane(&host);
    let other = ClusterState { cluster: "test-ffff".into(), ..ClusterState::clone(&state) }.encode();
    let mut server = None;
    for revision in 0..known.0 + 3 {
        let outcome = plane.compare_and_set(CLUSTER_KEY, Revision(revision), other.clone(), &[]).await;
        assert_eq!(outcome, Ok(CasOutcome::Done(Revision(revision + 1))));
        if server.is_none() {
            server = Some(TcpHost::start(host.clone(), &addr).await);
        }
        // Until it has come back to the plane, and then for long enough to be misled.
        while plane.leases().await.expect("leases").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        while let Ok(event) = one.events.try_recv() {
            assert!(!matches!(event, ControlEvent::Lease { .. } | ControlEvent::Cluster(_)), "{revision}: {event:?}");
        }
    }
    one.kill().await;
}

/// The plane was restored from a time before the first views: nothing in it contradicts what is known, it is just old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_restored_from_an_older_state_is_refused() {
    let server = TcpHost::start(Host::new(TTL_MAX), "127.0.0.1:0").await;
    let addr = server.addr().to_owned();
    let mut one = Running::start(tcp_plane(&addr), record("s1", 1), config(1));
    let state = one.founded().await;
    one.lease().await;
    server.stop().await;
    one.lease_lost().await;
    let host = Host::new(TTL_MAX);
    let plane = local_plane(&host);
    let unfounded = ClusterState::new(&state.cluster, 6).stars;
    let older = ClusterState { stars: unfounded, ..ClusterState::clone(&state) }.encode();
    let outcome = plane.compare_and_set(CLUSTER_KEY, Revision::ABSENT, older, &[]).await;
    assert_eq!(outcome, Ok(CasOutcome::Done(Revision(1))));
    let _server = TcpHost::start(host, &addr).await;
    while plane.leases().await.expect("leases").is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    while let Ok(event) = one.events.try_recv() {
        assert!(!matches!(event, ControlEvent::Lease { .. } | ControlEvent::Cluster(_)), "{event:?}");
    }
    one.kill().await;
}

#[tokio::test]
async fn a_server_that_does_not_fit_the_cluster_is_told_why() {
    let plane = local_plane(&Host::new(TTL_MAX));
    let mut first = Running::start(plane.clone(), record("s1", 1), config(1));
    first.founded().await;
    let mut other_stars = config(1);
    other_stars.plan.stars = 7;
    let mut other_name = config(1);
    other_name.cluster = "another".into();
    let mut no_lease = config(1);
    no_lease.lease.ttl = Duration::ZERO;
    for (wrong, expected) in [(other_stars, "6 stars"), (other_name, "\"another\""), (no_lease, "0ns")] {
        let (events, _kept) = mpsc::unbounded_channel();
        let error = Agent::new(plane.clone(), record("s2", 2), wrong, events, Word::silent())
            .register()
            .await
            .expect_err(expected);
        assert!(matches!(error, AgentError::Mismatch(_)) && error.to_string().contains(expected), "{error}");
    }
    first.stop().await;
}
