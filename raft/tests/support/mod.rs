//! Members of a control plane in this process, joined by [`Wires`] that can be cut, or by TCP.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod tcp;
mod wires;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use star_control::{
    CasOutcome, ControlPlane, EmbeddedClient, PlaneError, Revision,
    embedded::{Carrier, ClusterTimes, TcpCarrier},
};
use star_core::{Clock, Time};
use star_raft::{Member, RaftHost, RaftOptions, RaftTimes, SlowDisk};
use tempfile::TempDir;

pub(crate) use self::{tcp::TcpMember, wires::Wires};

/// The longest lease.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(1);

/// Long after anything here should have happened.
pub(crate) const LATE: Duration = Duration::from_secs(20);

/// Times for tests that are not about elections: a busy machine causes none.
pub(crate) fn patient_times() -> RaftTimes {
    RaftTimes {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(700),
        answer: Duration::from_secs(5),
    }
}

/// Times of a client that waits for outcomes rather than speed.
pub(crate) fn client_times() -> ClusterTimes {
    ClusterTimes { answer: Duration::from_secs(5), ..ClusterTimes::default() }
}

/// How members and clients reach members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Wires,
    Tcp,
}

pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) wires: Arc<Wires>,
    directories: Vec<TempDir>,
    hosts: Vec<Option<Running>>,
    transport: Transport,
    times: RaftTimes,
    pub(crate) slow_disks: Vec<SlowDisk>,
}

struct Running {
    host: RaftHost,
    _server: Option<TcpMember>,
}

impl Cluster {
    /// Starts members without memory, and waits until they answer.
    pub(crate) async fn start(count: usize, transport: Transport, times: RaftTimes) -> Self {
        let mut cluster = Self::new(count, transport, times);
        for index in 0..count {
            cluster.restart(index).await;
        }
        cluster.answers().await;
        cluster
    }

    /// Members that do not run yet.
    pub(crate) fn new(count: usize, transport: Transport, times: RaftTimes) -> Self {
        let member = |index: usize| Member::new(format!("m{index}"), format!("127.0.0.1:{}", free_port()));
        Self {
            members: (0..count).map(member).collect(),
            wires: Arc::default(),
            directories: (0..count).map(|_| tempfile::tempdir().expect("a directory")).collect(),
            hosts: (0..count).map(|_| None).collect(),
            transport,
            times,
            slow_disks: (0..count).map(|_| SlowDisk::default()).collect(),
        }
    }

    pub(crate) fn options(&self, index: usize) -> RaftOptions {
        let directory = self.directories[index].path().join("control");
        let me = &self.members[index];
        let options = RaftOptions::new("test", &me.name, self.members.clone(), directory, TTL_MAX);
        RaftOptions {
            times: self.times,
            carrier: self.carrier(&me.addr),
            slow_disk: self.slow_disks[index].clone(),
            ..options
        }
    }

    fn carrier(&self, from: &str) -> Arc<dyn Carrier> {
        match self.transport {
            Transport::Wires => Arc::new(self.wires.wire(from)),
            Transport::Tcp => Arc::new(TcpCarrier::new(Duration::from_millis(500))),
        }
    }

    pub(crate) async fn restart(&mut self, index: usize) {
        let host = RaftHost::start(self.options(index)).expect("a member");
        let addr = &self.members[index].addr;
        let server = match self.transport {
            Transport::Wires => {
                self.wires.plug(addr, host.clone());
                None
            }
            Transport::Tcp => Some(TcpMember::start(host.clone(), addr).await),
        };
        self.hosts[index] = Some(Running { host, _server: server });
    }

    pub(crate) fn stop(&mut self, index: usize) {
        self.wires.unplug(&self.members[index].addr);
        if let Some(running) = self.hosts[index].take() {
            running.host.stop();
        }
    }

    /// Takes away what a member, which must not run, has on disk.
    pub(crate) fn lose_store(&mut self, index: usize) {
        self.directories[index] = tempfile::tempdir().expect("a directory");
    }

    pub(crate) fn host(&self, index: usize) -> &RaftHost {
        &self.hosts[index].as_ref().expect("it runs").host
    }

    pub(crate) fn runs(&self, index: usize) -> bool {
        self.hosts[index].is_some()
    }

    /// A client in no member's process.
    pub(crate) fn client(&self) -> EmbeddedClient {
        self.client_with(client_times())
    }

    pub(crate) fn client_with(&self, times: ClusterTimes) -> EmbeddedClient {
        let members = self.members.iter().map(|member| member.addr.clone()).collect();
        EmbeddedClient::new(self.carrier("client"), members, times)
    }

    /// A client in the process of this member.
    pub(crate) fn client_at(&self, index: usize, times: ClusterTimes) -> EmbeddedClient {
        self.host(index).client_through(self.carrier(&self.members[index].addr), times)
    }

    /// The index of the member that leads, once most of those that run agree.
    pub(crate) async fn leader(&self) -> usize {
        let began = Clock.now();
        loop {
            let running = || self.hosts.iter().flatten();
            for (index, member) in self.members.iter().enumerate() {
                let followers = running().filter(|running| running.host.leader().as_ref() == Some(member));
                if self.runs(index) && followers.count() > self.members.len() / 2 {
                    return index;
                }
            }
            assert!(Clock.now().since(began) < LATE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the plane answers, and returns when that was known.
    pub(crate) async fn answers(&self) -> Time {
        let client = self.client();
        answered(|| client.get("anything")).await;
        Clock.now()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.hosts.len() {
            self.stop(index);
        }
    }
}

/// Asks until there is an answer. On a busy machine a member may lose its leadership to a second election, and what was
/// under way then fails although nothing is wrong.
pub(crate) async fn answered<T, A: Future<Output = Result<T, PlaneError>>>(mut ask: impl FnMut() -> A) -> T {
    let began = Clock.now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.retry() && Clock.now().since(began) < LATE, "{error}"),
        }
    }
}

/// The revision of a document; 0 if there is none.
pub(crate) async fn revision(plane: &EmbeddedClient, key: &str) -> u64 {
    answered(|| plane.get(key)).await.map_or(0, |found| found.revision.0)
}

/// Writes until the outcome is known: nobody knows whether a write that failed took effect, so its second try may find
/// that the first one did. For documents with one writer.
pub(crate) async fn set_for_sure(plane: &EmbeddedClient, key: &str, expected: u64, value: &Bytes) -> CasOutcome {
    let mut tries = 0;
    let outcome = answered(|| {
        tries += 1;
        plane.compare_and_set(key, Revision(expected), value.clone(), &[])
    });
    match outcome.await {
        CasOutcome::Conflict if tries > 1 && revision(plane, key).await == expected + 1 => {
            CasOutcome::Done(Revision(expected + 1))
        }
        outcome => outcome,
    }
}

/// Waits until a control plane that has just started lets writes with lease conditions through.
pub(crate) async fn settle<P: ControlPlane>(plane: &P) {
    let unleased = ["nobody".to_owned()];
    while let CasOutcome::Leased(_) =
        plane.compare_and_set("settled", Revision::ABSENT, Bytes::new(), &unleased).await.expect("an outcome")
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that is free now; below those that systems give to outgoing connections, so that none of those takes it before
/// its member does.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 150) as u16 * 50;
    let mut candidates = std::iter::repeat_with(|| 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 7_900);
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
