//! [`StarServer`]: one server of a cluster, on threads of its own.
//!
//! The server's thread owns the sockets, the protocol and the store (see [`star_core::server`]); the agent's keeps the
//! lease and follows the views, so that a busy server does not lose its lease; and a member of the embedded control plane
//! has one for that, and one for its disk (see [`star_raft`]).

mod local;
mod options;
mod plane;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use star_control::{Agent, AgentConfig, Claim, ClusterState, ControlEvent, ServerRecord, Standing, Word};
use star_core::{
    Epoch, Incarnation, ServerId, StarId, Time,
    config::Config,
    protocol::Input,
    server::{Handle, Hello, Peer, Server, bind},
};
use star_objstore::{MappedStore, OpenError, Recovered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{LocalSet, spawn_local},
};
use tracing::{Instrument, error, info, info_span, warn};

pub use self::options::{ControlOptions, ServerOptions, StartError};
use self::plane::ControlPlane;
pub use self::plane::control_plane;
use crate::protocol::{Control, StarNode, claims};

type Node = StarNode<MappedStore>;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct StarServer {
    name: String,
    addr: String,
    handle: Handle<Node>,
    stop: watch::Sender<bool>,
    failure: watch::Receiver<Option<String>>,
    thread: Option<JoinHandle<()>>,
}

impl StarServer {
    /// Starts the server of this name: when this returns it listens, and joins its cluster by itself.
    pub fn start(config: &Config, name: &str) -> Result<Self, StartError> {
        let options = ServerOptions::from_config(config, name)?;
        let listener = bind(&options.addr)?;
        Self::start_on(listener, options)
    }

    /// Starts a server on a socket from [`bind`].
    pub fn start_on(listener: TcpListener, mut options: ServerOptions) -> Result<Self, StartError> {
        options.addr = listener.local_addr()?.to_string();
        options.node.incarnation = new_incarnation();
        options.node.name.clone_from(&options.name);
        let plane = ControlPlane::start(&options)?;
        let store = open_store(&star_objstore::Options {
            path: options.store_path.clone(),
            capacity_bytes: options.store_capacity_bytes,
            entries_max: options.store_entries_max,
            stars: options.node.stars,
            cluster: options.cluster.clone(),
            incarnation: options.node.incarnation,
            group: options.store_group,
            huge_pages: options.store_huge_pages,
        })?;
        if options.store_huge_pages {
            let (huge_bytes, file_bytes) = (store.huge_bytes(), store.file_bytes());
            info!(huge_bytes, file_bytes, "huge pages were asked for; the rest of the file lies in ordinary ones");
        }
        let (report_failure, failure) = watch::channel(None);
        let (started, is_started) = std::sync::mpsc::channel();
        let (name, addr) = (options.name.clone(), options.addr.clone());
        let (stop, stops) = watch::channel(false);
        let claims = claims(&store, options.node.stars);
        let run = Run { options, plane, claims, stops, report_failure };
        let thread = std::thread::Builder::new()
            .name(format!("star-{name}"))
            .spawn(move || run.server_thread(listener, store, &started))?;
        let handle = is_started.recv().map_err(|_| std::io::Error::other("the server's thread ended at once"))??;
        Ok(Self { name, addr, handle, stop, failure, thread: Some(thread) })
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the server listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Says why the server had to end by itself, if it did.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Breaks the link to another server, for tests: nothing is sent to it or taken from it.
    pub fn fail_link(&self, to: ServerId) {
        self.handle.fail_link(to);
    }

    /// Mends the link to another server.
    pub fn fix_link(&self, to: ServerId) {
        self.handle.fix_link(to);
    }

    /// Stops the server: it hands its part in every star over, answers what it can, gives its lease back and removes its
    /// store. Blocks until that is done; bounded by some leases, also where nobody can take over.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        // The agent hands over what the server has, and then has it stop.
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(server = %self.name, "the server's thread panicked");
        }
    }
}

impl Drop for StarServer {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// What the server's threads work with.
struct Run {
    options: ServerOptions,
    plane: ControlPlane,
    /// What the store held when it was opened.
    claims: Vec<Claim>,
    /// Whether the server is about to end.
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
    /// The server's thread: sockets, protocol, store.
    fn server_thread(
        self,
        listener: TcpListener,
        store: MappedStore,
        started: &std::sync::mpsc::Sender<std::io::Result<Handle<Node>>>,
    ) {
        let span = info_span!("server", name = %self.options.name);
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let work = async {
            match Server::new(listener, self.options.limits) {
                Ok(server) => {
                    // Nobody waits for it only if whoever started the server has gone.
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
        let (settle, settled) = watch::channel(Vec::new());
        let (keeps_store, stops) = (self.options.keeps_store, self.stops.clone());
        let word = Word { ready, cut, settled: keeps_store.then_some(settled), leave: self.stops.clone() };
        let agent = self.start_agent(handle.clone(), Agency { events, word, stops: agent_stops });
        server.report_cut(report);
        server.observe(Box::new(move |node| {
            let ready = node.may_advance();
            advance.send_if_modified(|known| std::mem::replace(known, ready) != *known);
            if *stops.borrow() {
                settle.send_replace(node.settled());
            }
        }));
        server.serve_local(Box::<local::StoreService>::default());
        if self.options.allows_faults {
            server.allow_faults();
        }
        if let Some(member) = self.plane.member.clone() {
            server.hand_control_to(Box::new(move |stream| member.take(stream)));
        }
        let path = store.path().to_path_buf();
        let node = StarNode::new(self.options.node.clone(), store);
        let (report_trouble, trouble) = watch::channel(None);
        let follow = Follow { options: self.options, trouble: report_trouble, known: None, handle: handle.clone() };
        let helpers = [spawn_local(follow.news(news)), spawn_local(plane::report(self.plane.clone(), trouble, handle))];
        let node = server.run(node).await;
        helpers.iter().for_each(tokio::task::JoinHandle::abort);
        let held = if keeps_store { node.held() } else { Vec::new() };
        // Dropping the store tells its readers that nobody keeps it up to date any more.
        drop(node.into_store());
        if !held.is_empty() {
            info!(path = %path.display(), stars = held.len(),
                "kept: nobody took over the stars of this server, so its store stays, and a start goes on with it");
        } else if let Err(error) = std::fs::remove_file(&path) {
            warn!(path = %path.display(), %error, "the store's file was not removed");
        }
        // Only now may others go on without this server: it answers nothing any more.
        let _ = stop_agent.send(());
        if let Ok(agent) = agent
            && agent.join().is_err()
        {
            error!("the agent's thread panicked");
        }
        // Last, for the agent gives the lease back through it.
        self.plane.stop();
        info!("stopped");
    }

    /// The agent's thread: registration, lease, views.
    fn start_agent(&self, handle: Handle<Node>, agency: Agency) -> std::io::Result<JoinHandle<()>> {
        let Agency { events, word, stops } = agency;
        let options = &self.options;
        let me = ServerRecord {
            id: ServerId::default(),
            name: options.name.clone(),
            addr: options.addr.clone(),
            incarnation: options.node.incarnation,
            pid: std::process::id(),
            store: Some(options.store_path.display().to_string()),
            claims: self.claims.clone(),
            ..ServerRecord::default()
        };
        let config = AgentConfig { cluster: options.cluster.clone(), plan: options.plan.clone(), lease: options.lease };
        let agent = Agent::new(self.plane.client.clone(), me, config, events, word);
        let stops_server = StopsServer(handle);
        let report_failure = self.report_failure.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let span = info_span!("agent", name = %options.name);
        let work = async move {
            if let Err(error) = agent.run(async { drop(stops.await) }).await {
                error!(%error, "the server must stop");
                report_failure.send_replace(Some(error.to_string()));
            }
            drop(stops_server);
        };
        std::thread::Builder::new()
            .name(format!("agent-{}", options.name))
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
    options: ServerOptions,
    /// What is wrong between the agent and the control plane.
    trouble: watch::Sender<Option<String>>,
    /// The cluster's last state.
    known: Option<Arc<ClusterState>>,
    handle: Handle<Node>,
}

impl Follow {
    async fn news(mut self, mut news: mpsc::UnboundedReceiver<ControlEvent>) {
        while let Some(event) = news.recv().await {
            plane::note(&self.trouble, &event);
            match event {
                ControlEvent::Cluster(cluster) => self.cluster(cluster),
                ControlEvent::Lease { until } => self.tell(Control::Lease { until }),
                ControlEvent::LeaseLost => {
                    warn!("the lease is lost: no reads until there is another");
                    self.tell(Control::Lease { until: Time::ZERO });
                }
                ControlEvent::Waiting(why) => info!(%why, "waiting"),
                ControlEvent::Unreachable(why) => warn!(%why, "trouble with the control plane"),
                ControlEvent::Awaited(Some(why)) => warn!(%why, "waiting"),
                ControlEvent::Awaited(None) => info!("no star waits for servers that have ended any more"),
                ControlEvent::Answers => info!("the control plane can be used again"),
                ControlEvent::Left => self.handle.stop(),
            }
        }
    }

    fn cluster(&mut self, cluster: Arc<ClusterState>) {
        if self.known.is_none() {
            self.join(&cluster);
        }
        tell_of_full_stops(self.known.as_deref(), &cluster);
        self.handle
            .set_peers(cluster.servers.iter().filter(|one| one.standing != Standing::Removed).map(peer).collect());
        self.known = Some(Arc::clone(&cluster));
        self.tell(Control::Cluster(cluster));
    }

    /// The first state of the cluster that the agent speaks of holds this server's number and the name of this life, and
    /// names the cluster for good.
    fn join(&self, cluster: &ClusterState) {
        let Some(record) = cluster.server_named(&self.options.name) else { return };
        let (addr, id, incarnation) = (&self.options.addr, record.id, record.incarnation);
        info!(%addr, %id, %incarnation, cluster = %cluster.cluster, "serving");
        self.handle.join(Hello { cluster: cluster.cluster.clone(), to: id, server: id, incarnation });
        self.tell(Control::Joined { id, incarnation });
    }

    fn tell(&self, control: Control) {
        self.handle.input(Input::Control(control));
    }
}

/// Says so when a star went on with what a store held after all of its servers had ended, and when it was founded anew, empty,
/// because no store certainly held everything.
fn tell_of_full_stops(before: Option<&ClusterState>, after: &ClusterState) {
    let Some(before) = before else { return };
    let (mut resumed, mut lost) = (Vec::new(), Vec::new());
    for (old, new) in before.stars.iter().zip(&after.stars) {
        if new.founded > old.founded && old.founded > Epoch(0) {
            lost.push(new.star.to_string());
        } else if new.resumed > old.resumed {
            resumed.push(new.star.to_string());
        }
    }
    if !resumed.is_empty() {
        let stars = resumed.join(" ");
        info!(%stars, "all servers of these stars had ended: they go on with what a store held");
    }
    if !lost.is_empty() {
        let stars = lost.join(" ");
        warn!(%stars, "the objects of these stars are lost: all servers that held them have ended, and no store certainly has \
             them all. They begin empty");
    }
}

fn peer(server: &ServerRecord) -> Peer {
    Peer { id: server.id, name: server.name.clone(), addr: server.addr.clone() }
}

/// The store that a life of this server left when it was killed, or a new one. What is in it is compared with what the
/// other members have before anybody reads it.
fn open_store(options: &star_objstore::Options) -> Result<MappedStore, OpenError> {
    let path = options.path.display();
    match MappedStore::open(options) {
        Ok((store, Recovered { objects, dropped, torn, .. })) => {
            info!(%path, objects, dropped, torn,
                "found the store of an earlier life: what other serving members have as well is kept; where all servers had \
                 ended, a star goes on with it if it certainly holds everything");
            Ok(store)
        }
        Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            MappedStore::create(options)
        }
        Err(error) => {
            warn!(%error, "the store of an earlier life cannot be used, a new one is made");
            MappedStore::create(options)
        }
    }
}

/// Names this life of the server: larger than all before if the machine's date has not gone back, and else made so when it
/// registers.
#[allow(clippy::disallowed_methods, reason = "a life is named by the date; nothing is measured with it")]
fn new_incarnation() -> Incarnation {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Incarnation(since.as_millis() as u64)
}
