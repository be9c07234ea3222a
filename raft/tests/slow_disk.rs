//! Members whose disks take long for every write: leases are renewed in time, and nobody takes the leader for dead.

mod support;

use std::time::Duration;

use bytes::Bytes;
use star_control::{
    Agent, AgentConfig, CasOutcome, ControlEvent, ControlPlane, LeaseConfig, PlanConfig, Revision, ServerRecord, Word,
    embedded::ClusterTimes,
};
use star_core::{Clock, Incarnation, ServerId, Time};
use star_raft::RaftTimes;
use support::{Cluster, LATE, TTL_MAX, Transport, revision, set_for_sure};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// How much longer each write to disk takes.
const SLOWER: Duration = Duration::from_millis(250);

/// A leader is missed after 0.6 s: sooner than two writes to disk are done, and not as soon as a busy machine is slow itself.
fn times() -> RaftTimes {
    RaftTimes {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(390),
        ..RaftTimes::default()
    }
}

/// An agent in the process of a member, and what it tells its server.
struct Server {
    events: mpsc::UnboundedReceiver<ControlEvent>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    until: Time,
}

impl Server {
    fn start(cluster: &Cluster, index: usize) -> Self {
        let lease = LeaseConfig { ttl: TTL_MAX, drift_margin: TTL_MAX / 10 };
        // As servers have it, but that a lease is longer here, and so may answers take.
        let times = ClusterTimes { late: lease.useful(), ..ClusterTimes::default() };
        let name = cluster.members[index].name.clone();
        let me = ServerRecord { name, incarnation: Incarnation(1), id: ServerId(0), ..ServerRecord::default() };
        let plan = PlanConfig { stars: 1, initial_servers: 3, replicas: None, follow_alive: true };
        let (sender, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let config = AgentConfig { cluster: "test".into(), plan, lease };
        let agent = Agent::new(cluster.client_at(index, times), me, config, sender, Word::silent());
        let task = tokio::spawn(async move {
            agent.run(async move { drop(stopped.await) }).await.expect("a clean end");
        });
        Self { events, stop, task, until: Time::ZERO }
    }

    async fn lease(&mut self) {
        loop {
            match timeout(LATE, self.events.recv()).await.expect("in time").expect("a living agent") {
                ControlEvent::Lease { until } => return self.until = until,
                event => println!("{event:?}"),
            }
        }
    }

    /// Goes through what was told until now: the lease was held all along.
    fn held_its_lease(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                ControlEvent::Lease { until } => self.until = until,
                ControlEvent::LeaseLost => panic!("it lost its lease"),
                _ => {}
            }
        }
        assert!(Clock.now() < self.until, "its lease is over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_kept_and_the_leader_stays_while_every_write_to_disk_is_slow() {
    let cluster = Cluster::start(3, Transport::Tcp, times()).await;
    let leader = cluster.leader().await;
    let mut servers: Vec<_> = (0..3).map(|index| Server::start(&cluster, index)).collect();
    for server in &mut servers {
        server.lease().await;
    }
    cluster.slow_disks.iter().for_each(|disk| disk.set(SLOWER));
    let ends = Clock.now() + Duration::from_secs(6);
    while Clock.now() < ends {
        tokio::time::sleep(Duration::from_millis(20)).await;
        servers.iter_mut().for_each(Server::held_its_lease);
    }
    assert_eq!(cluster.leader().await, leader, "heartbeats do not wait for the disk");
    cluster.slow_disks.iter().for_each(|disk| disk.set(Duration::ZERO));
    for server in servers {
        let _ = server.stop.send(());
        timeout(LATE, server.task).await.expect("in time").expect("a task");
    }
}

/// Votes and the first entries of all wait for disks that take longer than a leader waits for an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_is_founded_on_slow_disks() {
    let mut cluster = Cluster::new(3, Transport::Wires, times());
    cluster.slow_disks.iter().for_each(|disk| disk.set(Duration::from_millis(60)));
    for index in 0..3 {
        cluster.restart(index).await;
    }
    let plane = cluster.client_with(patient_client());
    set_for_sure(&plane, "k", 0, &Bytes::from_static(b"v")).await;
    assert_eq!(revision(&plane, "k").await, 1);
}

/// Raft goes ahead of the disk, and its members' words do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_hears_of_a_write_before_it_is_on_the_disks_of_a_majority() {
    for (count, is_leader_slow) in [(1, true), (3, true), (3, false)] {
        let cluster = Cluster::start(count, Transport::Wires, times()).await;
        let plane = cluster.client_with(patient_client());
        let leader = cluster.leader().await;
        let slow = cluster.slow_disks.iter().enumerate().filter(|(index, _)| is_leader_slow || *index != leader);
        slow.for_each(|(_, disk)| disk.set(SLOWER));
        let began = Clock.now();
        let write = plane.compare_and_set("k", Revision::ABSENT, Bytes::from_static(b"v"), &[]);
        let read = async {
            while revision(&plane, "k").await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Clock.now()
        };
        let told = async { (write.await, Clock.now()) };
        let ((outcome, told), read) = tokio::join!(told, read);
        assert_eq!(outcome, Ok(CasOutcome::Done(Revision(1))));
        for at in [told, read] {
            assert!(at.since(began) >= SLOWER, "{count}, {is_leader_slow}: after {:?}", at.since(began));
        }
    }
}

/// As if it were stuck: the others are a majority, and the leader need not count itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_own_disk_is_stuck_goes_on_with_those_of_the_others() {
    let cluster = Cluster::start(3, Transport::Wires, times()).await;
    let plane = cluster.client_with(patient_client());
    let leader = cluster.leader().await;
    let stuck = Duration::from_secs(4);
    cluster.slow_disks[leader].set(stuck);
    let began = Clock.now();
    for expected in 0..10 {
        set_for_sure(&plane, "k", expected, &Bytes::from_static(b"v")).await;
    }
    assert_eq!(revision(&plane, "k").await, 10);
    assert!(Clock.now().since(began) < stuck, "{:?}", Clock.now().since(began));
    assert_eq!(cluster.leader().await, leader);
    cluster.slow_disks[leader].set(Duration::ZERO);
}

fn patient_client() -> ClusterTimes {
    ClusterTimes { answer: LATE, late: LATE, ..ClusterTimes::default() }
}
