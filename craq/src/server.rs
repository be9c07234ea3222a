//! [`CraqServer`]: one node, on threads of its own, as Star's server is: one thread owns the sockets, the protocol and
//! the store; the agent's keeps the lease and follows the views.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use star_control::{
    Agent, AgentConfig, ClusterState, ControlEvent, LeaseConfig, PlanConfig, Plane, PlaneError, RedisOptions,
    RedisPlane, ServerRecord, Standing, Word, embedded::ClusterTimes,
};
use star_core::{
    Epoch, Incarnation, ServerId, StarId, Time,
    config::GroupAccess,
    protocol::Input,
    server::{BindError, Handle, Hello, Limits, Peer, Server},
};
use star_objstore::{MappedStore, OpenError};
use star_raft::{Member, RaftHost, RaftOptions, remote_client};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{LocalSet, spawn_local},
};
use tracing::{Instrument, error, info, info_span, warn};

use crate::protocol::{Control, CraqNode, NodeConfig};

type Node = CraqNode<MappedStore>;

/// Everything that one node needs to know before it starts.
#[derive(Clone, Debug)]
pub struct CraqOptions {
    /// The protocol's settings and the node's name, unique in the cluster; number and life get filled in.
    pub node: NodeConfig,
    /// The cluster's name; the same at all nodes.
    pub cluster: String,
    /// How much is taken from outside.
    pub limits: Limits,
    /// The file of the mapped store.
    pub store_path: PathBuf,
    /// Bytes for objects in the mapped store.
    pub store_capacity_bytes: u64,
    /// Where views and leases are kept.
    pub control: ControlOptions,
    /// What the views should look like; each star of it is a chain.
    pub plan: PlanConfig,
    /// How long leases run.
    pub lease: LeaseConfig,
    /// Whether clients may ask for faults.
    pub allows_faults: bool,
}

/// Where views and leases are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlOptions {
    /// At these members: a coordinator, or nodes of the cluster.
    Embedded {
        /// 1, 3 or 5 of them; the same at all nodes.
        members: Vec<Member>,
        /// Where a node that is one of them keeps its part.
        directory: PathBuf,
    },
    /// At this Redis: `redis://[[user]:password@]host:port[/database]`.
    Redis(String),
}

/// Why a node or a coordinator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its store cannot be made.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The control plane's settings are wrong.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// Its part of the embedded control plane cannot be used.
    #[error(transparent)]
    Member(#[from] star_raft::StartError),
    /// The system gives no thread, no runtime, or no room for the store's directory.
    #[error("the system gives no room for the server's threads or files: {0}")]
    System(#[from] std::io::Error),
}

/// A running node. Dropping it stops it.
#[derive(Debug)]
pub struct CraqServer {
    name: String,
    addr: String,
    handle: Handle<Node>,
    stop: watch::Sender<bool>,
    failure: watch::Receiver<Option<String>>,
    thread: Option<JoinHandle<()>>,
}

impl CraqServer {
    /// Starts a node on a socket from [`star_core::server::bind`]; it joins its chains by itself.
    pub fn start_on(listener: TcpListener, mut options: CraqOptions) -> Result<Self, StartError> {
        let addr = listener.local_addr()?.to_string();
        options.node.incarnation = new_incarnation();
        let (plane, member) = control_plane(&options)?;
        if let Some(directory) = options.store_path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let store = MappedStore::create(&star_objstore::Options {
            path: options.store_path.clone(),
            capacity_bytes: options.store_capacity_bytes,
            entries_max: None,
            stars: options.node.stars,
            cluster: options.cluster.clone(),
            incarnation: options.node.incarnation,
            group: GroupAccess::None,
            huge_pages: false,
        })?;
        let (report_failure, failure) = watch::channel(None);
        let (stop, stops) = watch::channel(false);
        let (started, is_started) = std::sync::mpsc::channel();
        let name = options.node.name.clone();
        let run = Run { addr: addr.clone(), options, plane, member, stops, report_failure };
        let thread = std::thread::Builder::new()
            .name(format!("craq-{name}"))
            .spawn(move || run.server_thread(listener, store, &started))?;
        let handle = is_started.recv().map_err(|_| std::io::Error::other("the server's thread ended at once"))??;
        Ok(Self { name, addr, handle, stop, failure, thread: Some(thread) })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the node listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Says why the node had to end by itself, if it did.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Breaks the link to another node, for tests: nothing is sent to it or taken from it.
    pub fn fail_link(&self, to: ServerId) {
        self.handle.fail_link(to);
    }

    /// Mends the link to another node.
    pub fn fix_link(&self, to: ServerId) {
        self.handle.fix_link(to);
    }

    /// Stops the node: it hands its place in every chain over, answers what it can, gives its lease back and removes its
    /// store. Blocks until that is done; bounded by some leases, also where nobody can take over.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        // The agent hands over what the node has, and then has it stop.
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(server = %self.name, "the server's thread panicked");
        }
    }
}

impl Drop for CraqServer {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// What the node's threads work with.
struct Run {
    addr: String,
    options: CraqOptions,
    plane: Plane,
    /// The part of the embedded control plane that is kept here.
    member: Option<RaftHost>,
    /// Whether the node is about to end.
    stops: watch::Receiver<bool>,
    report_failure: watch::Sender<Option<String>>,
}

/// What ties the agent to the server.
struct Agency {
    events: mpsc::UnboundedSender<ControlEvent>,
    word: Word,
    stops: oneshot::Receiver<()>,
}

impl Run {
    /// The node's thread: sockets, protocol, store.
    fn server_thread(
        self,
        listener: TcpListener,
        store: MappedStore,
        started: &std::sync::mpsc::Sender<std::io::Result<Handle<Node>>>,
    ) {
        let span = info_span!("node", name = %self.options.node.name);
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let work = async {
            match Server::new(listener, self.options.limits) {
                Ok(server) => {
                    // Nobody waits for it only if whoever started the node has gone.
                    let _ = started.send(Ok(server.handle()));
                    self.serve(server, store).await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        LocalSet::new().block_on(&runtime, work.instrument(span));
    }

    async fn serve(self, mut server: Server<Node>, store: MappedStore) {
        let handle = server.handle();
        let (stop_agent, agent_stops) = oneshot::channel();
        let (events, news) = mpsc::unbounded_channel();
        let (advance, ready) = watch::channel(Vec::<(StarId, Epoch)>::new());
        let (report, cut) = watch::channel(BTreeMap::new());
        let word = Word { ready, cut, settled: None, leave: self.stops.clone() };
        let agent = self.start_agent(handle.clone(), Agency { events, word, stops: agent_stops });
        server.report_cut(report);
        server.observe(Box::new(move |node| {
            let ready = node.may_advance();
            advance.send_if_modified(|known| std::mem::replace(known, ready) != *known);
        }));
        if self.options.allows_faults {
            server.allow_faults();
        }
        if let Some(member) = self.member.clone() {
            server.hand_control_to(Box::new(move |stream| member.take(stream)));
        }
        let path = store.path().to_path_buf();
        let node = CraqNode::new(self.options.node.clone(), store);
        let name = self.options.node.name;
        let follow = spawn_local(Follow { name, addr: self.addr, has_joined: false, handle }.news(news));
        let node = server.run(node).await;
        follow.abort();
        // Dropping the store tells its readers that nobody keeps it up to date any more.
        drop(node.into_store());
        if let Err(error) = std::fs::remove_file(&path) {
            warn!(path = %path.display(), %error, "the store's file was not removed");
        }
        // Only now may others go on without this node: it answers nothing any more.
        let _ = stop_agent.send(());
        if let Ok(agent) = agent
            && agent.join().is_err()
        {
            error!("the agent's thread panicked");
        }
        // Last, for the agent gives the lease back through it.
        if let Some(member) = self.member {
            member.stop();
        }
        info!("stopped");
    }

    /// The agent's thread: registration, lease, views.
    fn start_agent(&self, handle: Handle<Node>, agency: Agency) -> std::io::Result<JoinHandle<()>> {
        let Agency { events, word, stops } = agency;
        let options = &self.options;
        let me = ServerRecord {
            id: ServerId::default(),
            name: options.node.name.clone(),
            addr: self.addr.clone(),
            incarnation: options.node.incarnation,
            pid: std::process::id(),
            store: Some(options.store_path.display().to_string()),
            ..ServerRecord::default()
        };
        let config = AgentConfig { cluster: options.cluster.clone(), plan: options.plan.clone(), lease: options.lease };
        let agent = Agent::new(self.plane.clone(), me, config, events, word);
        let report_failure = self.report_failure.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let span = info_span!("agent", name = %options.node.name);
        let stops_server = StopsServer(handle);
        let work = async move {
            if let Err(error) = agent.run(async { drop(stops.await) }).await {
                error!(%error, "the node must stop");
                report_failure.send_replace(Some(error.to_string()));
            }
            drop(stops_server);
        };
        std::thread::Builder::new()
            .name(format!("agent-{}", options.node.name))
            .spawn(move || runtime.block_on(work.instrument(span)))
    }
}

/// Stops the server when the agent's thread ends, however it ends: nobody else would.
struct StopsServer(Handle<Node>);

impl Drop for StopsServer {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Hands what the control plane says to the command queue.
struct Follow {
    name: String,
    addr: String,
    has_joined: bool,
    handle: Handle<Node>,
}

impl Follow {
    async fn news(mut self, mut news: mpsc::UnboundedReceiver<ControlEvent>) {
        while let Some(event) = news.recv().await {
            match event {
                ControlEvent::Cluster(cluster) => self.cluster(cluster),
                ControlEvent::Lease { until } => self.tell(Control::Lease { until }),
                ControlEvent::LeaseLost => {
                    warn!("the lease is lost: no reads until there is another");
                    self.tell(Control::Lease { until: Time::ZERO });
                }
                ControlEvent::Answers => info!("the control plane can be used again"),
                ControlEvent::Left => self.handle.stop(),
                ControlEvent::Waiting(why) => info!(%why, "waiting"),
                // Nodes note nothing in a store that could be gone on with.
                ControlEvent::Awaited(why) => info!(?why, "waiting"),
                ControlEvent::Unreachable(why) => warn!(%why, "trouble with the control plane"),
            }
        }
    }

    fn cluster(&mut self, cluster: Arc<ClusterState>) {
        // The first state that the agent speaks of holds this node's number and the name of this life, and names the
        // cluster for good.
        if let Some(me) = cluster.server_named(&self.name)
            && !std::mem::replace(&mut self.has_joined, true)
        {
            let (id, incarnation, addr) = (me.id, me.incarnation, &self.addr);
            info!(%addr, %id, %incarnation, cluster = %cluster.cluster, "serving");
            self.handle.join(Hello { cluster: cluster.cluster.clone(), to: id, server: id, incarnation });
            self.tell(Control::Joined { id, incarnation });
        }
        let peers = cluster.servers.iter().filter(|one| one.standing != Standing::Removed).map(peer).collect();
        self.handle.set_peers(peers);
        self.tell(Control::Cluster(cluster));
    }

    fn tell(&self, control: Control) {
        self.handle.input(Input::Control(control));
    }
}

fn peer(server: &ServerRecord) -> Peer {
    Peer { id: server.id, name: server.name.clone(), addr: server.addr.clone() }
}

/// A client of the control plane, and the part of it that is kept here, if any.
fn control_plane(options: &CraqOptions) -> Result<(Plane, Option<RaftHost>), StartError> {
    let (times, ttl_max, name) = (ClusterTimes::default(), options.lease.ttl, &options.node.name);
    Ok(match &options.control {
        ControlOptions::Embedded { members, directory } => {
            if members.iter().all(|member| member.name != *name) {
                return Ok((Plane::Embedded(remote_client(members, times)), None));
            }
            let part = RaftOptions::new(&options.cluster, name, members.clone(), directory, ttl_max);
            let member = RaftHost::start(part)?;
            (Plane::Embedded(member.client(times)), Some(member))
        }
        ControlOptions::Redis(url) => {
            let redis = RedisOptions { ttl_max, ..RedisOptions::new(url, &options.cluster) };
            (Plane::Redis(RedisPlane::new(redis)?), None)
        }
    })
}

/// Names this life of the node: larger than all before, as long as the machine's date does not go back.
#[allow(clippy::disallowed_methods, reason = "a life is named by the date; nothing is measured with it")]
fn new_incarnation() -> Incarnation {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Incarnation(since.as_millis() as u64)
}
