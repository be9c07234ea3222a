//! [`RaftHost`]: one member on a thread of its own, so that a busy server loses no election.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use openraft::{Config, SnapshotPolicy};
use star_control::{
    EmbeddedClient,
    embedded::{Carried, Carrier, ClusterTimes, Reply, TcpCarrier},
};
use star_core::message::to_postcard;
use tokio::{runtime, sync::watch};
use tracing::{Instrument, error, info_span};

use crate::{
    door::{Answers, Door},
    founding,
    links::Links,
    network::Network,
    options::{Member, RaftOptions, StartError},
    rpc::Told,
    seat::Seat,
    serve::Service,
    store::{self, Opened, SharedReplica, StateStore},
    types::Raft,
};

/// A snapshot is taken after so many entries …
const SNAPSHOT_EVERY: u64 = 1000;
/// … and so many are kept before it, for members that are only a little behind.
const ENTRIES_KEPT: u64 = 200;
/// How long a member may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// How far a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// The plane is not founded yet: its first start needs all members.
    Founding {
        /// The names of those that are not there.
        missing: Vec<String>,
    },
    /// It takes part.
    Member,
    /// It takes no part, and will not: its store is not the one that the others know. Its server can still be a client.
    Stranger {
        /// What happened, and what to do.
        why: String,
    },
    /// It takes no part any more: its store failed, or there is a mistake in the code. Restart the server.
    Failed {
        /// What happened.
        why: String,
    },
}

/// One member of the control plane. Clones share it; it stops when the last one is dropped.
#[derive(Clone)]
pub struct RaftHost(Arc<Owner>);

struct Owner {
    service: Arc<Service>,
    door: Door<Service>,
    runtime: runtime::Handle,
    state: watch::Receiver<MemberState>,
    members: Vec<Member>,
    mine: usize,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for RaftHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftHost").field("me", &self.0.members[self.0.mine]).finish_non_exhaustive()
    }
}

impl RaftHost {
    /// Starts a member. When this returns it answers calls; it takes part as soon as [`RaftHost::state`] says so, and the
    /// plane answers once a majority does. Reads its store, so it may block for some milliseconds.
    pub fn start(options: RaftOptions) -> Result<Self, StartError> {
        let mine = options.check()?;
        let opened = store::open(&options.directory, options.plane(), mine, options.slow_disk.clone())?;
        let system = |error: std::io::Error| StartError::System(error.to_string());
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        let handle = runtime.handle().clone();
        let (stop, stops) = watch::channel(false);
        let (report, state) = watch::channel(MemberState::Founding { missing: Vec::new() });
        let (started, is_started) = std::sync::mpsc::channel();
        let members = options.members.clone();
        let span = info_span!("control", name = %options.me);
        let thread = std::thread::Builder::new().name(format!("control-{}", options.me)).spawn(move || {
            let Opened { store, log, disk, snapshot, thread: disk_thread } = opened;
            let parts = Parts { store, log, disk, snapshot };
            runtime.block_on(run(options, mine, parts, started, report, stops).instrument(span));
            // What the tasks hold of the store goes with them, and so the store's thread ends.
            runtime.shutdown_timeout(STOP_LIMIT);
            if disk_thread.join().is_err() {
                error!("the thread that writes the control plane's log panicked");
            }
        });
        let thread = thread.map_err(system)?;
        let ended = || StartError::System("it ended at once".into());
        let service = is_started.recv().map_err(|_| ended()).flatten()?;
        let (thread, door) = (Mutex::new(Some(thread)), Door::new(Arc::clone(&service)));
        Ok(Self(Arc::new(Owner { service, door, runtime: handle, state, members, mine, stop, thread })))
    }

    /// Answers one call: the header of a frame of kind `Control` in, the header of a `ControlAnswer` out. The work is done
    /// on the member's own thread; the future may be polled anywhere.
    ///
    /// A call that watches a document may take as long as 30 s, so calls must not wait for one another. Whatever comes in,
    /// there is an answer; dropping the future leaves nothing behind, but what it asked for may have been done.
    pub fn handle(&self, call: Bytes) -> impl Future<Output = Vec<u8>> + Send + 'static + use<> {
        let service = Arc::clone(&self.0.service);
        let unfinished = unfinished(&call);
        let answer = Task(self.0.runtime.spawn(async move { service.handle(&call).await }));
        async move { answer.await.unwrap_or(unfinished) }
    }

    /// Serves a connection that calls come on: frames of kind `Control` in, `ControlAnswer` out. The stream must not block;
    /// the work is done on the member's own thread.
    pub fn take(&self, stream: std::net::TcpStream) {
        self.0.runtime.spawn(self.0.door.clone().serve(stream));
    }

    /// A client that asks this member without a detour, and the others over TCP.
    pub fn client(&self, times: ClusterTimes) -> EmbeddedClient {
        self.client_through(Arc::new(TcpCarrier::new(times.attempt * 2)), times)
    }

    /// Like [`RaftHost::client`], but `carrier` brings the calls to other members.
    pub fn client_through(&self, carrier: Arc<dyn Carrier>, times: ClusterTimes) -> EmbeddedClient {
        let addr = self.0.members[self.0.mine].addr.clone();
        let mut members: Vec<_> = self.0.members.iter().map(|member| member.addr.clone()).collect();
        members.rotate_left(self.0.mine);
        EmbeddedClient::new(Arc::new(LocalFirst { host: self.clone(), addr, carrier }), members, times)
    }

    /// How far this member is.
    pub fn state(&self) -> watch::Receiver<MemberState> {
        self.0.state.clone()
    }

    /// The member that leads, as far as this one knows.
    pub fn leader(&self) -> Option<Member> {
        let metrics = self.0.service.seat.raft.server_metrics();
        let metrics = metrics.borrow();
        let site = metrics.current_leader.and_then(|leader| metrics.membership_config.membership().get_node(&leader));
        site.map(|site| Member::new(&site.name, &site.addr))
    }

    /// Stops the member. Blocks until its thread has ended and its store is closed.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// A client of the plane that these members keep, for a server that is no member itself.
pub fn remote_client(members: &[Member], times: ClusterTimes) -> EmbeddedClient {
    let members = members.iter().map(|member| member.addr.clone()).collect();
    EmbeddedClient::new(Arc::new(TcpCarrier::new(times.attempt * 2)), members, times)
}

impl Owner {
    fn stop(&self) {
        self.stop.send_replace(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the control plane's thread panicked");
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What was read from the store.
struct Parts {
    store: u64,
    log: store::LogStore,
    disk: store::Disk,
    snapshot: Option<store::Kept>,
}

/// The member's thread.
async fn run(
    options: RaftOptions,
    mine: usize,
    parts: Parts,
    started: std::sync::mpsc::Sender<Result<Arc<Service>, StartError>>,
    report: watch::Sender<MemberState>,
    mut stops: watch::Receiver<bool>,
) {
    let durable = parts.disk.durable().clone();
    let network = Network { carrier: Arc::clone(&options.carrier), plane: options.plane(), durable };
    let service = match start_raft(&options, mine, parts, network.clone()).await {
        Ok(service) => Arc::new(service),
        Err(error) => return drop(started.send(Err(error))),
    };
    // Nobody waits for it only if whoever started the member has gone.
    let _ = started.send(Ok(Arc::clone(&service)));
    drop(started);
    let (mut metrics, mut stops_later) = (service.seat.raft.metrics(), stops.clone());
    let founding = founding::found(&service.seat, &network, &options.members, mine, &report);
    let failure = async {
        match metrics.wait_for(|metrics| metrics.running_state.is_err()).await {
            Ok(metrics) => metrics.running_state.as_ref().err().map(ToString::to_string),
            Err(_) => None,
        }
    };
    tokio::select! {
        _ = stops.wait_for(|stop| *stop) => {}
        () = async { founding.await; std::future::pending().await } => {}
        why = failure => {
            let why = why.unwrap_or_else(|| "it ended".into());
            error!(%why, "this member of the control plane has failed");
            report.send_replace(MemberState::Failed { why });
            let _ = stops_later.wait_for(|stop| *stop).await;
        }
    }
    let _ = tokio::time::timeout(STOP_LIMIT, service.seat.raft.shutdown()).await;
}

async fn start_raft(options: &RaftOptions, mine: usize, parts: Parts, network: Network) -> Result<Service, StartError> {
    let system = |why: String| StartError::System(why);
    let Parts { store, log, disk, snapshot } = parts;
    let durable = disk.durable().clone();
    let replica = SharedReplica::new(store, options.ttl_max);
    let state = StateStore::new(replica.clone(), disk, snapshot)
        .map_err(|why| StartError::Store { path: options.directory.clone(), why })?;
    let config = config(options, mine).validate().map_err(|error| system(error.to_string()))?;
    let shared = log.shared();
    let raft = Raft::new(store, Arc::new(config), network, log, state)
        .await
        .map_err(|error| StartError::Store { path: options.directory.clone(), why: error.to_string() })?;
    let (plane, patience) = (options.plane(), options.times.patience());
    let seat = Seat { raft, log: shared, durable, patience, store, plane, links: Links::default() };
    Ok(Service::new(seat, replica, options.times.answer))
}

fn config(options: &RaftOptions, mine: usize) -> Config {
    let milliseconds = |time: Duration| time.as_millis() as u64;
    let (election_min, election_max) = options.times.election_of(mine, options.members.len());
    Config {
        cluster_name: options.cluster.clone(),
        heartbeat_interval: milliseconds(options.times.heartbeat),
        election_timeout_min: milliseconds(election_min),
        election_timeout_max: milliseconds(election_max),
        install_snapshot_timeout: milliseconds(options.times.answer.max(Duration::from_secs(2))),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        snapshot_max_chunk_size: 1 << 20,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        max_payload_entries: 64,
        ..Config::default()
    }
}

/// What is answered to a call when the member stops before it is done.
fn unfinished(call: &[u8]) -> Vec<u8> {
    /// The first byte of an encoded `Envelope::Member`.
    const MEMBER: u8 = 1;
    let why = "this member of the control plane has stopped";
    let mut answer = Vec::new();
    if call.first() == Some(&MEMBER) {
        to_postcard(&Told::Refused(why.into()), &mut answer);
    } else {
        to_postcard(&Reply::Unsure(why.into()), &mut answer);
    }
    answer
}

/// A task that ends with whoever waits for it.
struct Task(tokio::task::JoinHandle<Vec<u8>>);

impl Future for Task {
    type Output = Option<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks a member of this process without the network.
#[derive(Debug)]
struct LocalFirst {
    host: RaftHost,
    addr: String,
    carrier: Arc<dyn Carrier>,
}

impl Carrier for LocalFirst {
    fn exchange<'a>(&'a self, addr: &'a str, call: Bytes, limit: Duration) -> Carried<'a> {
        if addr != self.addr {
            return self.carrier.exchange(addr, call, limit);
        }
        let answer = self.host.handle(call);
        Box::pin(async move {
            let late = |_| star_control::embedded::CarryError::NoAnswer("this server's member is too slow".into());
            tokio::time::timeout(limit, answer).await.map(Bytes::from).map_err(late)
        })
    }
}
