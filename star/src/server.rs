//! [`StarServer`]: one server of a cluster, on threads of its own.
//!
//! Two threads: the server's, which owns the sockets, the protocol and the store (see [`star_core::server`]); and the
//! agent's, which keeps the lease and follows the views, so that a busy server does not lose its lease.

use std::{
    net::TcpListener,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use star_control::{
    Agent, AgentConfig, ClusterState, ControlEvent, EmbeddedClient, Host, LeaseConfig, PlanConfig, Plane, PlaneError,
    RedisOptions, RedisPlane, ServerRecord, embedded::ClientTimes,
};
use star_core::{
    Epoch, Incarnation, ServerId, StarId, Time,
    config::{Backend, Config},
    network::{ClientOptions, TcpClient},
    protocol::Input,
    server::{BindError, ControlHost, Handle, Hello, Limits, Peer, Server, bind},
};
use star_objstore::{MappedStore, OpenError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{LocalSet, spawn_local},
};
use tracing::{Instrument, error, info, info_span, warn};

use crate::protocol::{Control, NodeConfig, StarNode};

type Node = StarNode<MappedStore>;

/// Everything that one server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where it listens: `host:port`.
    pub addr: String,
    /// The cluster's name; the same at all servers.
    pub cluster: String,
    /// The protocol's settings; who the server is gets filled in.
    pub node: NodeConfig,
    /// How much is taken from outside.
    pub limits: Limits,
    /// The file of the mapped store.
    pub store_path: PathBuf,
    /// Bytes for objects in the mapped store.
    pub store_capacity_bytes: u64,
    /// The most keys in the mapped store; `None` for what fits its capacity.
    pub store_entries_max: Option<u64>,
    /// Where views and leases are kept.
    pub control: ControlOptions,
    /// What the views should look like.
    pub plan: PlanConfig,
    /// How long leases run.
    pub lease: LeaseConfig,
    /// Whether clients may ask for faults.
    pub allows_faults: bool,
}

/// Where views and leases are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlOptions {
    /// At this server.
    Host,
    /// At another server, which listens here.
    At(String),
    /// At this Redis: `redis://[[user]:password@]host:port[/database]`.
    Redis(String),
}

impl ServerOptions {
    /// What the configuration says of the server of this name.
    pub fn from_config(config: &Config, name: &str) -> Result<Self, StartError> {
        let servers = &config.cluster.servers;
        let Some(index) = servers.iter().position(|server| server.name == name) else {
            let known: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
            return Err(StartError::UnknownServer { name: name.to_owned(), known: known.join(", ") });
        };
        let (cluster, limits, replication) = (&config.cluster, &config.limits, &config.replication);
        Ok(Self {
            name: name.to_owned(),
            addr: servers[index].addr.clone(),
            cluster: cluster.name.clone(),
            node: NodeConfig {
                key_bytes_max: limits.key_bytes_max as usize,
                value_bytes_max: limits.value_bytes_max as usize,
                buffer_bytes_max: limits.buffer_bytes_max,
                route: replication.route,
                chain_from_bytes: replication.chain_from_bytes as usize,
                piece_bytes: replication.piece_bytes as usize,
                dirty_reads: replication.dirty_reads,
                sessions_max: replication.sessions_max,
                session_age_max: Duration::from_millis(replication.session_age_ms_max),
                repair_after: Duration::from_millis(replication.repair_after_ms),
                ..NodeConfig::new(ServerId::default(), name, Incarnation::default(), cluster.stars)
            },
            limits: limits.server(),
            store_path: config.store.directory.join(&cluster.name).join(name),
            store_capacity_bytes: config.store.capacity_bytes,
            store_entries_max: (config.store.entries_max > 0).then_some(config.store.entries_max),
            control: match config.control.backend {
                Backend::Embedded if index == 0 => ControlOptions::Host,
                Backend::Embedded => ControlOptions::At(servers[0].addr.clone()),
                Backend::Redis => ControlOptions::Redis(config.control.redis_url.clone()),
            },
            plan: PlanConfig {
                stars: cluster.stars,
                initial_servers: servers.len(),
                replicas: (cluster.replicas > 0).then_some(cluster.replicas.into()),
                follow_alive: true,
            },
            lease: LeaseConfig {
                ttl: Duration::from_millis(config.control.lease_ttl_ms),
                drift_margin: Duration::from_millis(config.control.lease_drift_margin_ms),
            },
            allows_faults: config.faults.allow,
        })
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names no such server.
    #[error("the configuration names no server {name:?}; it names {known}")]
    UnknownServer {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its store cannot be made.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The control plane's settings are wrong.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The system gives no thread or no runtime.
    #[error("the system gives no room for the server's threads: {0}")]
    System(#[from] std::io::Error),
}

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
        let store = MappedStore::create(&star_objstore::Options {
            path: options.store_path.clone(),
            capacity_bytes: options.store_capacity_bytes,
            entries_max: options.store_entries_max,
            stars: options.node.stars,
            cluster: options.cluster.clone(),
            incarnation: options.node.incarnation,
        })?;
        let (plane, host) = control_plane(&options)?;
        let (report_failure, failure) = watch::channel(None);
        let (stop, stops) = watch::channel(false);
        let (started, is_started) = std::sync::mpsc::channel();
        let (name, addr) = (options.name.clone(), options.addr.clone());
        let run = Run { options, plane, host, stops, report_failure };
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

    /// Stops the server: it answers what it can, gives its lease back and removes its store. Blocks until that is done.
    pub fn stop(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        self.stop.send_replace(true);
        self.handle.stop();
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
    plane: Plane,
    /// The embedded control plane, if it is kept here.
    host: Option<Host>,
    stops: watch::Receiver<bool>,
    report_failure: watch::Sender<Option<String>>,
}

/// What ties the agent to the server.
struct Agency {
    events: mpsc::UnboundedSender<ControlEvent>,
    ready: watch::Receiver<Vec<(StarId, Epoch)>>,
    registered: oneshot::Sender<ServerId>,
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
        let (registered, is_registered) = oneshot::channel();
        let (stop_agent, agent_stops) = oneshot::channel();
        let (events, mut news) = mpsc::unbounded_channel();
        let (advance, ready) = watch::channel(Vec::new());
        let agent = self.start_agent(handle.clone(), Agency { events, ready, registered, stops: agent_stops });
        server.observe(Box::new(move |node| {
            let ready = node.may_advance();
            advance.send_if_modified(|known| std::mem::replace(known, ready) != *known);
        }));
        if self.options.allows_faults {
            server.allow_faults();
        }
        if let Some(host) = self.host.clone() {
            server.host_control(control_host(host));
        }
        let path = store.path().to_path_buf();
        let joined = match is_registered.await {
            // Registration ends with this server in the cluster's state, which names the cluster for good.
            Ok(id) => first_state(&mut news).await.map(|cluster| (id, cluster)),
            // The server was stopped, or must stop, before it could join.
            Err(_) => None,
        };
        let store = match joined {
            Some((id, cluster)) => {
                let options = &self.options;
                let incarnation = options.node.incarnation;
                info!(addr = %options.addr, %id, %incarnation, cluster = %cluster.cluster, "serving");
                let hello = Hello { cluster: cluster.cluster.clone(), to: id, server: id, incarnation };
                tell(&handle, ControlEvent::Cluster(cluster));
                let node = StarNode::new(NodeConfig { me: id, ..options.node.clone() }, store);
                let follow = spawn_local(follow_news(news, handle));
                let node = server.run(hello, node).await;
                follow.abort();
                node.into_store()
            }
            None => store,
        };
        // Dropping the store tells its readers that nobody keeps it up to date any more.
        drop(store);
        if let Err(error) = std::fs::remove_file(&path) {
            warn!(path = %path.display(), %error, "the store's file was not removed");
        }
        // Only now may others go on without this server: it answers nothing any more.
        let _ = stop_agent.send(());
        if let Ok(agent) = agent
            && agent.join().is_err()
        {
            error!("the agent's thread panicked");
        }
        info!("stopped");
    }

    /// The agent's thread: registration, lease, views.
    fn start_agent(&self, handle: Handle<Node>, agency: Agency) -> std::io::Result<JoinHandle<()>> {
        let Agency { events, ready, registered, stops } = agency;
        let options = &self.options;
        let me = ServerRecord {
            id: ServerId::default(),
            name: options.name.clone(),
            addr: options.addr.clone(),
            incarnation: options.node.incarnation,
            pid: std::process::id(),
            store: Some(options.store_path.display().to_string()),
        };
        let config = AgentConfig { cluster: options.cluster.clone(), plan: options.plan.clone(), lease: options.lease };
        let agent = Agent::new(self.plane.clone(), me, config, events, ready);
        let (mut is_stopping, report_failure) = (self.stops.clone(), self.report_failure.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let span = info_span!("agent", name = %options.name);
        let work = async move {
            let mut agent = agent;
            let id = tokio::select! {
                id = agent.register() => id,
                _ = is_stopping.wait_for(|stop| *stop) => return,
            };
            let outcome = match id {
                Ok(id) => {
                    // If nobody waits for it the server is stopping.
                    let _ = registered.send(id);
                    agent.run(async { drop(stops.await) }).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                error!(%error, "the server must stop");
                report_failure.send_replace(Some(error.to_string()));
                handle.stop();
            }
        };
        std::thread::Builder::new()
            .name(format!("agent-{}", options.name))
            .spawn(move || runtime.block_on(work.instrument(span)))
    }
}

/// The first state of the cluster that the agent speaks of; `None` if it ends before.
async fn first_state(news: &mut mpsc::UnboundedReceiver<ControlEvent>) -> Option<Arc<ClusterState>> {
    loop {
        match news.recv().await? {
            ControlEvent::Cluster(cluster) => return Some(cluster),
            ControlEvent::Waiting(why) => info!(%why, "waiting"),
            ControlEvent::Unreachable(why) => warn!(%why, "trouble with the control plane"),
            // There is no lease before the registration is over.
            ControlEvent::Lease { .. } | ControlEvent::LeaseLost => {}
        }
    }
}

/// Hands what the control plane says to the command queue.
async fn follow_news(mut news: mpsc::UnboundedReceiver<ControlEvent>, handle: Handle<Node>) {
    while let Some(event) = news.recv().await {
        tell(&handle, event);
    }
}

fn tell(handle: &Handle<Node>, event: ControlEvent) {
    match event {
        ControlEvent::Cluster(cluster) => {
            handle.set_peers(cluster.servers.iter().map(peer).collect());
            handle.input(Input::Control(Control::Cluster(cluster)));
        }
        ControlEvent::Lease { until } => handle.input(Input::Control(Control::Lease { until })),
        ControlEvent::LeaseLost => {
            warn!("the lease is lost: no reads until there is another");
            handle.input(Input::Control(Control::Lease { until: Time::ZERO }));
        }
        ControlEvent::Waiting(why) => info!(%why, "waiting"),
        ControlEvent::Unreachable(why) => warn!(%why, "trouble with the control plane"),
    }
}

fn peer(server: &ServerRecord) -> Peer {
    Peer { id: server.id, name: server.name.clone(), addr: server.addr.clone() }
}

fn control_host(host: Host) -> ControlHost {
    Rc::new(move |call| {
        let host = host.clone();
        Box::pin(async move { host.handle(&call).await })
    })
}

fn control_plane(options: &ServerOptions) -> Result<(Plane, Option<Host>), StartError> {
    Ok(match &options.control {
        ControlOptions::Host => {
            let host = Host::new(options.lease.ttl);
            (Plane::Embedded(EmbeddedClient::local(host.clone())), Some(host))
        }
        ControlOptions::At(addr) => {
            // One connection is enough, and a lost one must be noticed well within a lease.
            let network =
                ClientOptions { pool_size: 1, connect_timeout: options.lease.ttl, ..ClientOptions::default() };
            let client = TcpClient::new(addr.clone(), network);
            (Plane::Embedded(EmbeddedClient::tcp(client, addr, ClientTimes::default())), None)
        }
        ControlOptions::Redis(url) => {
            let redis = RedisOptions { ttl_max: options.lease.ttl, ..RedisOptions::new(url, &options.cluster) };
            (Plane::Redis(RedisPlane::new(redis)?), None)
        }
    })
}

/// Names this life of the server: larger than all before, as long as the machine's date does not go back.
#[allow(clippy::disallowed_methods, reason = "a life is named by the date; nothing is measured with it")]
fn new_incarnation() -> Incarnation {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Incarnation(since.as_millis() as u64)
}
