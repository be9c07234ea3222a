//! A control plane that answers late: leases are kept all the same.

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use star_control::{
    Acquired, Agent, AgentConfig, CasOutcome, ControlEvent, ControlPlane, EmbeddedClient, Lease, LeaseConfig,
    PlanConfig, PlaneError, Renewed, Revision, ServerRecord, Versioned, Word,
    embedded::{Carried, Carrier, CarryError, ClusterTimes},
};
use star_core::{Clock, Incarnation, ServerId};
use support::{Host, TTL_MAX, local_plane};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

/// Long after anything here should have happened.
const PATIENCE: Duration = Duration::from_secs(20);

/// A plane that does what it is asked at once, and says so late.
#[derive(Clone)]
struct Late(EmbeddedClient, Duration);

impl Late {
    async fn late<T>(&self, call: impl Future<Output = T>) -> T {
        let answer = call.await;
        sleep(self.1).await;
        answer
    }
}

impl ControlPlane for Late {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, PlaneError> {
        self.late(self.0.get(key)).await
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        unleased: &[String],
    ) -> Result<CasOutcome, PlaneError> {
        self.late(self.0.compare_and_set(key, expected, value, unleased)).await
    }

    async fn changed(&self, key: &str, after: Revision) -> Result<Versioned, PlaneError> {
        self.late(self.0.changed(key, after)).await
    }

    async fn acquire(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Acquired, PlaneError> {
        self.late(self.0.acquire(name, holder, ttl)).await
    }

    async fn renew(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Renewed, PlaneError> {
        self.late(self.0.renew(name, holder, ttl)).await
    }

    async fn release(&self, name: &str, holder: Incarnation) -> Result<(), PlaneError> {
        self.late(self.0.release(name, holder)).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, PlaneError> {
        self.late(self.0.leases()).await
    }
}

/// An answer after 350 ms comes too late for the next renewal, and in time for the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_keeps_its_lease_while_the_plane_answers_late() {
    let lease = LeaseConfig::default();
    let plane = Late(local_plane(&Host::new(TTL_MAX)), Duration::from_millis(350));
    let me =
        ServerRecord { name: "s1".into(), incarnation: Incarnation(1), id: ServerId(0), ..ServerRecord::default() };
    let plan = PlanConfig { stars: 1, initial_servers: 1, replicas: None, follow_alive: true };
    let (sender, mut events) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let agent = Agent::new(plane, me, AgentConfig { cluster: "test".into(), plan, lease }, sender, Word::silent());
    let task = tokio::spawn(agent.run(async move { drop(stopped.await) }));
    let until = async {
        loop {
            if let ControlEvent::Lease { until } = events.recv().await.expect("a living agent") {
                return until;
            }
        }
    };
    let mut until = timeout(PATIENCE, until).await.expect("a lease");
    let ends = Clock.now() + Duration::from_secs(5);
    while let Some(event) = timeout(PATIENCE, events.recv()).await.expect("an event") {
        match event {
            ControlEvent::LeaseLost => panic!("the lease was lost"),
            ControlEvent::Unreachable(why) => panic!("the plane does answer: {why}"),
            ControlEvent::Lease { until: next } => {
                let now = Clock.now();
                assert!(now < until, "it ran out at {until}, {:?} ago", now.since(until));
                assert!(next > until, "an older answer took away what a newer one gave");
                assert!(next < now + lease.ttl, "it counts from the sending of the request");
                until = next;
                if now >= ends {
                    break;
                }
            }
            _ => {}
        }
    }
    let _ = stop.send(());
    timeout(PATIENCE, task).await.expect("in time").expect("a task").expect("a clean end");
}

/// Two members, of which the first leads and answers after 300 ms; counts what it was asked.
#[derive(Debug)]
struct SlowLeader {
    host: Host,
    asked: std::sync::atomic::AtomicU32,
}

impl Carrier for SlowLeader {
    fn exchange<'a>(&'a self, addr: &'a str, call: Bytes, limit: Duration) -> Carried<'a> {
        Box::pin(async move {
            if addr != "leader" {
                let mut answer = Vec::new();
                let reply = star_control::embedded::Reply::NotLeader { leader: Some("leader".into()) };
                star_core::message::to_postcard(&reply, &mut answer);
                return Ok(answer.into());
            }
            self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let answer = async {
                sleep(Duration::from_millis(300)).await;
                self.host.handle(&call).await.into()
            };
            timeout(limit, answer).await.map_err(|_| CarryError::NoAnswer("too slow".into()))
        })
    }
}

#[tokio::test]
async fn a_leader_that_answers_late_is_waited_for_and_not_asked_twice() {
    let leader = Arc::new(SlowLeader { host: Host::new(TTL_MAX), asked: 0.into() });
    let members = vec!["leader".to_owned(), "follower".to_owned()];
    let plane = EmbeddedClient::new(Arc::clone(&leader) as Arc<dyn Carrier>, members, ClusterTimes::default());
    let held = plane.acquire("s", Incarnation(1), TTL_MAX).await;
    assert_eq!(held, Ok(Acquired::Held));
    assert_eq!(leader.asked.load(std::sync::atomic::Ordering::Relaxed), 1);
}
