//! A replication protocol as a running server, on threads of its own: what Star's servers and CRAQ's nodes have in common.
//!
//! The server's thread owns the sockets, the protocol and the store (see [`star_core::server`]); the agent's keeps the
//! lease and follows the views, so that a busy server does not lose its lease; and a member of the embedded control plane
//! has one for that, and one for its disk (see [`star_raft`]).

mod follow;
mod plane;

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use follow::Follow;
pub use plane::{ControlOptions, ControlPlane};
use star_control::{
    Agent, AgentConfig, Claim, ClusterState, ControlEvent, LeaseConfig, PlanConfig, PlaneError, ServerRecord, Word,
};
use star_core::{
    Epoch, Incarnation, ServerId, StarId, Time,
    protocol::Protocol,
    server::{Handle, Limits, Server},
};
use star_objstore::MappedStore;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{LocalSet, spawn_local},
};
use tracing::{Instrument, error, info, info_span, warn};

/// A protocol that keeps a mapped store and follows the views of a control plane.
pub trait Hosted: Protocol<Message: Send, Control: Send> + 'static {
    /// Tells the protocol its number and the name of this life.
    fn joined(id: ServerId, incarnation: Incarnation) -> Self::Control;

    /// Tells the protocol the cluster's latest state.
    fn cluster(state: Arc<ClusterState>) -> Self::Control;

    /// Tells the protocol until when it may answer reads.
    fn lease(until: Time) -> Self::Control;

    /// The stars in which it has come as far as it must for its next step, in their epochs.
    fn may_advance(&self) -> Vec<(StarId, Epoch)>;

    /// The stars of which all that can be noted in the store is noted, in their epochs.
    fn settled(&self) -> Vec<(StarId, Epoch)> {
        Vec::new()
    }

    /// The stars that it holds in the end, so that a later start could go on with them.
    fn held(&self) -> Vec<StarId> {
        Vec::new()
    }

    /// From which servers values come late over the links to this one, so that they go around them.
    fn slow_links(&self) -> Vec<ServerId> {
        Vec::new()
    }

    /// The store, to close it in the end.
    fn into_store(self) -> MappedStore;
}

/// Who a server is, and what it is part of.
#[derive(Debug)]
pub struct HostOptions {
    /// Its name, unique in the cluster.
    pub name: String,
    /// The cluster's name; the same at all servers.
    pub cluster: String,
    /// The name of its life; see [`new_incarnation`].
    pub incarnation: Incarnation,
    /// The file of the mapped store.
    pub store_path: PathBuf,
    /// What the store held of each star when it was opened.
    pub claims: Vec<Claim>,
    /// Whether the store stays when the server ends and nobody takes over from it.
    pub keeps_store: bool,
    /// How much is taken from outside.
    pub limits: Limits,
    /// Where views and leases are kept.
    pub plane: ControlPlane,
    /// What the views should look like.
    pub plan: PlanConfig,
    /// How long leases run.
    pub lease: LeaseConfig,
    /// Whether clients may ask for faults.
    pub allows_faults: bool,
}

/// What runs beside the protocol, on the server's thread.
pub struct Companions {
    /// Hears all that the control plane says before the protocol does.
    pub listener: Box<dyn FnMut(&ControlEvent)>,
    /// Runs as long as the server does.
    pub task: Pin<Box<dyn Future<Output = ()>>>,
}

impl Companions {
    /// None.
    pub fn none() -> Self {
        Self { listener: Box::new(|_| {}), task: Box::pin(std::future::pending()) }
    }
}

impl std::fmt::Debug for Companions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Companions").finish_non_exhaustive()
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The control plane's settings are wrong.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// Its part of the embedded control plane cannot be used.
    #[error(transparent)]
    Member(#[from] star_raft::StartError),
    /// The system gives no thread, no runtime, or no room for a directory.
    #[error("the system gives no room for the server's threads or files: {0}")]
    System(#[from] std::io::Error),
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Host<P: Hosted> {
    name: String,
    addr: String,
    handle: Handle<P>,
    stop: watch::Sender<bool>,
    failure: watch::Receiver<Option<String>>,
    thread: Option<JoinHandle<()>>,
}

impl<P: Hosted> Host<P> {
    /// Starts a server on a socket from [`star_core::server::bind`]: when this returns it listens, and joins its cluster by
    /// itself. `protocol` and `companions` are made on the server's thread.
    pub fn start(
        listener: TcpListener,
        options: HostOptions,
        protocol: impl FnOnce() -> P + Send + 'static,
        companions: impl FnOnce(&mut Server<P>) -> Companions + Send + 'static,
    ) -> Result<Self, HostError> {
        let (name, addr) = (options.name.clone(), listener.local_addr()?.to_string());
        let (report_failure, failure) = watch::channel(None);
        let (stop, stops) = watch::channel(false);
        let limits = options.limits;
        let run = Run { addr: addr.clone(), options, stops, report_failure };
        let (handle, thread) = spawn_server(&name, listener, limits, async move |mut server| {
            let companions = companions(&mut server);
            run.serve(server, protocol(), companions).await;
        })?;
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

impl<P: Hosted> Drop for Host<P> {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// Runs a server on a thread of its own: `work` is to run it to its end. When this returns the server listens.
pub fn spawn_server<P: Protocol<Message: Send, Control: Send> + 'static>(
    name: &str,
    listener: TcpListener,
    limits: Limits,
    work: impl AsyncFnOnce(Server<P>) + Send + 'static,
) -> std::io::Result<(Handle<P>, JoinHandle<()>)> {
    let (started, is_started) = std::sync::mpsc::channel();
    let span = info_span!("server", name);
    let thread = std::thread::Builder::new().name(format!("server-{name}")).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let work = async {
            match Server::new(listener, limits) {
                Ok(server) => {
                    // Nobody waits for it only if whoever started the server has gone.
                    let _ = started.send(Ok(server.handle()));
                    work(server).await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        LocalSet::new().block_on(&runtime, work.instrument(span));
    })?;
    let handle = is_started.recv().map_err(|_| std::io::Error::other("the server's thread ended at once"))??;
    Ok((handle, thread))
}

/// What the server's threads work with.
struct Run {
    addr: String,
    options: HostOptions,
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
    async fn serve<P: Hosted>(self, mut server: Server<P>, protocol: P, companions: Companions) {
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
        let mut slow = Vec::new();
        server.observe(Box::new(move |protocol| {
            tell_of_slow_links(&mut slow, protocol.slow_links());
            let ready = protocol.may_advance();
            advance.send_if_modified(|known| std::mem::replace(known, ready) != *known);
            if *stops.borrow() {
                settle.send_replace(protocol.settled());
            }
        }));
        if self.options.allows_faults {
            server.allow_faults();
        }
        if let Some(member) = self.options.plane.member.clone() {
            server.hand_control_to(Box::new(move |stream| member.take(stream)));
        }
        let HostOptions { name, plane, store_path, .. } = self.options;
        let Companions { listener, task } = companions;
        let follow = Follow { name, addr: self.addr, has_joined: false, listener, handle };
        let helpers = [spawn_local(follow.news(news)), spawn_local(task)];
        let protocol = server.run(protocol).await;
        helpers.iter().for_each(tokio::task::JoinHandle::abort);
        let held = if keeps_store { protocol.held() } else { Vec::new() };
        // Dropping the store tells its readers that nobody keeps it up to date any more.
        drop(protocol.into_store());
        let path = store_path.display();
        if !held.is_empty() {
            info!(%path, stars = held.len(),
                "kept: nobody took over the stars of this server, so its store stays, and a start goes on with it");
        } else if let Err(error) = std::fs::remove_file(&store_path) {
            warn!(%path, %error, "the store's file was not removed");
        }
        // Only now may others go on without this server: it answers nothing any more.
        let _ = stop_agent.send(());
        if let Ok(agent) = agent
            && agent.join().is_err()
        {
            error!("the agent's thread panicked");
        }
        // Last, for the agent gives the lease back through it.
        plane.stop();
        info!("stopped");
    }

    /// The agent's thread: registration, lease, views.
    fn start_agent<P: Hosted>(&self, handle: Handle<P>, agency: Agency) -> std::io::Result<JoinHandle<()>> {
        let Agency { events, word, stops } = agency;
        let options = &self.options;
        let me = ServerRecord {
            id: ServerId::default(),
            name: options.name.clone(),
            addr: self.addr.clone(),
            incarnation: options.incarnation,
            pid: std::process::id(),
            store: Some(options.store_path.display().to_string()),
            claims: options.claims.clone(),
            ..ServerRecord::default()
        };
        let config = AgentConfig { cluster: options.cluster.clone(), plan: options.plan.clone(), lease: options.lease };
        let agent = Agent::new(options.plane.client.clone(), me, config, events, word);
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

/// Says once that a link has become slow, and once that it is used again.
fn tell_of_slow_links(known: &mut Vec<ServerId>, now: Vec<ServerId>) {
    for server in now.iter().filter(|server| !known.contains(server)) {
        info!(%server, "values come late over the link from this server: they go around it for a while");
    }
    for server in known.iter().filter(|server| !now.contains(server)) {
        info!(%server, "values come over the link from this server again");
    }
    *known = now;
}

/// Stops the server when the agent's thread ends, however it ends: nobody else would.
struct StopsServer<P: Hosted>(Handle<P>);

impl<P: Hosted> Drop for StopsServer<P> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Names a life of a server: larger than all before if the machine's date has not gone back, and else made so when it
/// registers.
#[allow(clippy::disallowed_methods, reason = "a life is named by the date; nothing is measured with it")]
pub fn new_incarnation() -> Incarnation {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Incarnation(since.as_millis() as u64)
}
