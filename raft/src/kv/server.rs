//! [`KvServer`]: one server of the group on a thread of its own, which runs its sockets, Raft and the objects.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, PoisonError, mpsc as std_mpsc},
    thread::JoinHandle,
    time::Duration,
};

use openraft::{Config, EntryPayload, SnapshotPolicy};
use star_control::embedded::{Envelope, TcpCarrier};
use star_core::{
    message::{from_postcard, to_postcard},
    server::{BindError, Handle, Limits, Server, bind},
};
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::{LocalSet, spawn_local},
};
use tracing::{Instrument, error, info_span, warn};

use super::{
    desk::Desk,
    state::{Objects, SharedMachine, State},
    status::Status,
    worker::Worker,
};
use crate::{
    door::{self, Door},
    founding,
    host::MemberState,
    links::{LinkedCarrier, Links},
    network::Network,
    options::{Member, RaftTimes, StartError},
    rpc::Told,
    seat::Seat,
    store::{self, Opened, SlowDisk},
    types::Raft,
};

/// The most servers of a group.
pub const SERVERS_MAX: usize = 9;
/// How many entries are kept behind a snapshot, for servers that are only a little behind.
const ENTRIES_KEPT: u64 = 500;
/// How long a server may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What a server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct KvOptions {
    /// Where all servers listen (`host:port`), in the order of their numbers. Fixed at the first start.
    pub servers: Vec<String>,
    /// Which of them this is, from 0.
    pub me: usize,
    /// Where log, vote and snapshots are kept; made if need be. Nobody else may use it.
    pub directory: PathBuf,
    /// The most bytes of keys and values. Fixed at the first start.
    pub capacity_bytes: u64,
    /// When servers give each other up.
    pub times: RaftTimes,
}

impl KvOptions {
    /// A server with room for 256 MiB, and times for disks and machines that are busy.
    pub fn new(servers: Vec<String>, me: usize, directory: impl Into<PathBuf>) -> Self {
        let times = RaftTimes {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(780),
            answer: Duration::from_secs(3),
        };
        Self { servers, me, directory: directory.into(), capacity_bytes: 256 << 20, times }
    }

    fn members(&self) -> Vec<Member> {
        let numbered = self.servers.iter().enumerate();
        numbered.map(|(place, addr)| Member::new(format!("server {}", place + 1), addr)).collect()
    }

    /// What all servers must agree on, in one number.
    fn group(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&store::encoded(&("kv", &self.servers, self.capacity_bytes)))
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The options make no sense.
    #[error("a group has 1 to {SERVERS_MAX} servers, and this is one of them: {0} of {1} is not")]
    Options(usize, usize),
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its directory cannot be used.
    #[error(
        "the log in {path} cannot be used: {why}. If another server uses it, stop that one; if it is damaged, restore it"
    )]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The directory belongs to another group.
    #[error(
        "{0} belongs to a group of other servers, or with another capacity: configure those, or take another directory"
    )]
    OtherGroup(PathBuf),
    /// The system gives no thread or runtime.
    #[error("the system gives no room for the server's threads: {0}")]
    System(String),
}

impl From<StartError> for KvError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store { path, why } => Self::Store { path, why },
            StartError::OtherPlane { path } => Self::OtherGroup(path),
            other => Self::System(other.to_string()),
        }
    }
}

/// A running server. Dropping it stops it.
pub struct KvServer {
    addr: String,
    parts: Parts,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for KvServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// What the thread shares with whoever started it.
#[derive(Clone)]
struct Parts {
    handle: Handle<Desk>,
    seat: Arc<Seat<Objects>>,
    machine: SharedMachine,
}

impl KvServer {
    /// Starts a server. When this returns it listens; it answers as soon as a majority runs (all, the first time).
    pub fn start(options: KvOptions) -> Result<Self, KvError> {
        let (me, servers) = (options.me, options.servers.len());
        if servers == 0 || servers > SERVERS_MAX || me >= servers {
            return Err(KvError::Options(me + 1, servers));
        }
        let addr = options.servers[me].clone();
        let listener = bind(&addr)?;
        let opened = store::open::<Objects>(&options.directory, options.group(), me, SlowDisk::default())?;
        let system = |error: std::io::Error| KvError::System(error.to_string());
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        let (started, is_started) = std_mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("raft-{}", me + 1)).spawn(move || {
            let Opened { store, log, disk, snapshot, thread: disk_thread } = opened;
            let kept = (store, log, disk, snapshot);
            let work = run(listener, options, kept, started).instrument(info_span!("raft", server = me + 1));
            LocalSet::new().block_on(&runtime, work);
            // What the tasks hold of the store goes with them, and so the store's thread ends.
            runtime.shutdown_timeout(STOP_LIMIT);
            if disk_thread.join().is_err() {
                error!("the thread that writes the log panicked");
            }
        });
        let thread = thread.map_err(system)?;
        let parts = is_started.recv().map_err(|_| KvError::System("it ended at once".into())).flatten()?;
        Ok(Self { addr, parts, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Breaks the link to the server of this place (from 0), for tests: nothing is sent to it, and nothing taken from it.
    pub fn fail_link(&self, place: usize) {
        self.parts.seat.links.set_cut(place, true);
    }

    /// Mends the link to a server.
    pub fn fix_link(&self, place: usize) {
        self.parts.seat.links.set_cut(place, false);
    }

    /// The log, an entry a line: its place, its term, and the writes in it. What a snapshot has taken the place of is one
    /// line.
    pub fn log_lines(&self) -> Vec<String> {
        let log = self.parts.seat.log.lock().unwrap_or_else(PoisonError::into_inner);
        let purged = log.purged.map(|purged| format!("up to {} in the snapshot", purged.index));
        let entry = |entry: &crate::types::Entry<Objects>| {
            let what = match &entry.payload {
                EntryPayload::Blank => "(a leader begins)".to_owned(),
                EntryPayload::Normal(batch) => batch.to_string(),
                EntryPayload::Membership(_) => "(the servers)".to_owned(),
            };
            format!("{} term {}: {what}", entry.log_id.index, entry.log_id.leader_id.term)
        };
        purged.into_iter().chain(log.entries.values().map(entry)).collect()
    }

    /// The objects that this server has applied, one a line: key, value, version.
    pub fn object_lines(&self) -> Vec<String> {
        let line = |(key, object): (&star_core::Key, &super::machine::Object)| {
            format!("{} {object} (version {})", key.as_str(), object.version)
        };
        self.parts.machine.look(|machine| machine.objects().map(line).collect())
    }
}

impl Drop for KvServer {
    fn drop(&mut self) {
        self.parts.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the server's thread panicked");
        }
    }
}

/// What was read from the disk.
type Kept = (u64, store::LogStore<Objects>, store::Disk<Objects>, Option<store::Kept>);

/// The server's thread.
async fn run(listener: TcpListener, options: KvOptions, kept: Kept, started: std_mpsc::Sender<Result<Parts, KvError>>) {
    let begun = async {
        let server = Server::new(listener, Limits::default()).map_err(|error| KvError::System(error.to_string()))?;
        let (seat, machine, network) = start_raft(&options, kept).await?;
        Ok((server, Arc::new(seat), machine, network))
    };
    let (mut server, seat, machine, network) = match begun.await {
        Ok(begun) => begun,
        Err(error) => return drop(started.send(Err(error))),
    };
    let handle = server.handle();
    let door = Door::new(Arc::new(Members(Arc::clone(&seat))));
    server.hand_control_to(Box::new(move |stream| drop(tokio::spawn(door.clone().serve(stream)))));
    let (hand_on, work) = mpsc::unbounded_channel();
    let status = Arc::new(Status::default());
    status.begin(format!("raft-{}", options.me + 1), seat.raft.metrics(), machine.clone());
    let parts = Parts { handle: handle.clone(), seat: Arc::clone(&seat), machine: machine.clone() };
    // Nobody waits for it only if whoever started the server has gone.
    let _ = started.send(Ok(parts));
    let (servers, answer) = (options.servers.len(), options.times.answer);
    let worker = Worker { seat: Arc::clone(&seat), machine: machine.clone(), handle, servers, answer };
    let tasks = [
        spawn_local(worker.run(work)),
        spawn_local(take_snapshots(seat.raft.clone(), machine)),
        spawn_local(found(Arc::clone(&seat), network, options)),
    ];
    server.run(Desk::new(hand_on, status)).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let _ = tokio::time::timeout(STOP_LIMIT, seat.raft.shutdown()).await;
}

async fn start_raft(options: &KvOptions, kept: Kept) -> Result<(Seat<Objects>, SharedMachine, Network), KvError> {
    let unusable = |why: String| KvError::Store { path: options.directory.clone(), why };
    let (store, log, disk, snapshot) = kept;
    let links = Links::default();
    let carrier = Arc::new(TcpCarrier::new(options.times.election_max * 4));
    let carrier = LinkedCarrier { carrier, links: links.clone(), addrs: options.servers.clone() };
    let durable = disk.durable().clone();
    let network = Network { carrier: Arc::new(carrier), plane: options.group(), durable: durable.clone() };
    let machine = SharedMachine::new(options.capacity_bytes);
    let state = State::new(machine.clone(), disk, snapshot).map_err(unusable)?;
    let config = config(options).validate().map_err(|error| KvError::System(error.to_string()))?;
    let shared = log.shared();
    let raft = Raft::new(store, Arc::new(config), network.clone(), log, state)
        .await
        .map_err(|error| unusable(error.to_string()))?;
    let (plane, patience) = (options.group(), options.times.patience());
    Ok((Seat { raft, log: shared, durable, patience, store, plane, links }, machine, network))
}

fn config(options: &KvOptions) -> Config {
    let milliseconds = |time: Duration| time.as_millis() as u64;
    let (election_min, election_max) = options.times.election_of(options.me, options.servers.len());
    Config {
        cluster_name: "kv".to_owned(),
        heartbeat_interval: milliseconds(options.times.heartbeat),
        election_timeout_min: milliseconds(election_min),
        election_timeout_max: milliseconds(election_max),
        install_snapshot_timeout: milliseconds(options.times.answer),
        // By the bytes of the log as well, which the library does not count.
        snapshot_policy: SnapshotPolicy::Never,
        snapshot_max_chunk_size: 1 << 20,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        max_payload_entries: 256,
        ..Config::default()
    }
}

async fn take_snapshots(raft: Raft<Objects>, machine: SharedMachine) {
    loop {
        machine.snapshot_due().await;
        if let Err(error) = raft.trigger().snapshot().await {
            return warn!(%error, "no snapshots any more");
        }
    }
}

async fn found(seat: Arc<Seat<Objects>>, network: Network, options: KvOptions) {
    let (report, _state) = watch::channel(MemberState::Founding { missing: Vec::new() });
    founding::found(&seat, &network, &options.members(), options.me, &report).await;
}

/// Answers other servers.
struct Members(Arc<Seat<Objects>>);

impl door::Answers for Members {
    async fn handle(&self, call: &[u8]) -> Vec<u8> {
        let told = match from_postcard(call) {
            Ok(Envelope::Member(call)) => self.0.answer(call).await,
            Ok(Envelope::Client(_)) => Told::Refused("this is no control plane: it keeps objects".into()),
            Err(why) => Told::Refused(format!("this is no call of a server: {why}")),
        };
        let mut answer = Vec::new();
        to_postcard(&told, &mut answer);
        answer
    }
}
