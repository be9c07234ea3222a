//! The server around a protocol: it accepts, decodes, steps the protocol and writes what comes of it.
//!
//! One server is one thread. Its tasks share one state: each connection's task reads all that is there and steps the
//! protocol at once; when all that were ready have run, one task ends the turn and writes one batch to each connection.
//! So nothing is handed from thread to thread, and batches grow by themselves under load, without a timer. Whatever
//! comes from outside (the control plane, a shell, a signal) arrives in the *command queue*.

mod connection;
mod faults;
mod io;
mod links;
mod local;
mod outbox;
mod reach;
mod read_size;
mod turn;

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use faults::Faults;
use io::{ConnectionId, Io};
pub use local::{LocalOutcome, LocalService};
use reach::Reach;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc, watch},
    task::{JoinHandle, spawn_local},
};
use tracing::{debug, info, warn};

use crate::{
    ids::{Incarnation, ServerId},
    protocol::{Input, Protocol, TICK_MS},
    time::{Clock, Time},
};

/// What a server says of itself when it connects to another.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hello {
    /// The cluster, told apart from earlier ones of the same name; servers of different clusters refuse each other.
    pub cluster: String,
    /// The server that is connected to.
    pub to: ServerId,
    /// The server that connects.
    pub server: ServerId,
    /// Its life.
    pub incarnation: Incarnation,
}

/// Another server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// Where it listens: `host:port`.
    pub addr: String,
}

/// How much a server takes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest frame (header and tail, or JSON text), in bytes.
    pub frame_bytes_max: u64,
    /// The most open connections.
    pub connections_max: usize,
    /// The most unanswered requests of one connection; it is not read from while it has that many.
    pub requests_under_way_max: usize,
    /// The most bytes that wait for one connection to take them.
    pub outbox_bytes_max: usize,
    /// The most bytes of frames that are not whole yet, all connections together.
    pub partial_bytes_max: usize,
    /// How long a frame may take to become whole.
    pub partial_age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 96 << 20,
            connections_max: 4096,
            requests_under_way_max: 4096,
            outbox_bytes_max: 256 << 20,
            partial_bytes_max: 512 << 20,
            partial_age_max: Duration::from_secs(30),
        }
    }
}

/// Takes connections to the control plane that this server keeps: those whose first frame is one of kind `Control`. Not a
/// byte of them was read.
pub type ControlDoor = Box<dyn Fn(std::net::TcpStream)>;

/// Looks at a protocol from time to time.
pub type Observer<P> = Box<dyn FnMut(&P)>;

/// What the command queue carries.
enum Command<P: Protocol> {
    Join(Hello),
    Input(Input<P::Message, P::Control>),
    Peers(Vec<Peer>),
    FailLink(ServerId, bool),
    Stop,
}

/// The command queue's open end. Any thread may hold one.
pub struct Handle<P: Protocol> {
    queue: mpsc::UnboundedSender<Command<P>>,
}

impl<P: Protocol> Clone for Handle<P> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<P: Protocol> std::fmt::Debug for Handle<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl<P: Protocol> Handle<P> {
    /// Says who the server is, now that it belongs to a cluster: from now on it takes messages of other servers, and may
    /// be told of them. Only the first time counts.
    pub fn join(&self, hello: Hello) {
        self.send(Command::Join(hello));
    }

    /// Hands an input to the protocol.
    pub fn input(&self, input: Input<P::Message, P::Control>) {
        self.send(Command::Input(input));
    }

    /// Says which servers there are (this one may be among them); links to others are dropped. Means nothing before
    /// [`Self::join`].
    pub fn set_peers(&self, peers: Vec<Peer>) {
        self.send(Command::Peers(peers));
    }

    /// Breaks the link to a server until [`Self::fix_link`]: nothing is sent to it, and nothing taken from it.
    pub fn fail_link(&self, to: ServerId) {
        self.send(Command::FailLink(to, true));
    }

    /// Mends a link that [`Self::fail_link`] broke.
    pub fn fix_link(&self, to: ServerId) {
        self.send(Command::FailLink(to, false));
    }

    /// Ends the server once what waits has been written.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command<P>) {
        // A server that has ended needs no more commands.
        let _ = self.queue.send(command);
    }
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken.
    #[error("{addr} is in use by another process; stop it, or choose another address")]
    InUse {
        /// The address.
        addr: String,
    },
    /// The address cannot be used.
    #[error("cannot listen on {addr}: {source}")]
    Io {
        /// The address.
        addr: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Begins to listen, so that a taken address is known before anything else is done.
pub fn bind(addr: &str) -> Result<std::net::TcpListener, BindError> {
    let listen = || {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AddrInUse => BindError::InUse { addr: addr.to_owned() },
        _ => BindError::Io { addr: addr.to_owned(), source },
    })
}

/// A server that listens, and serves once it runs.
pub struct Server<P: Protocol> {
    listener: TcpListener,
    limits: Limits,
    control_door: Option<ControlDoor>,
    observer: Option<Observer<P>>,
    local: Option<Box<dyn LocalService<P>>>,
    reporter: Option<watch::Sender<BTreeMap<ServerId, Time>>>,
    allows_faults: bool,
    queue: mpsc::UnboundedReceiver<Command<P>>,
    handle: Handle<P>,
}

/// What the tasks of a running server share.
pub(crate) struct Shared<P: Protocol> {
    state: RefCell<State<P>>,
    turn: Notify,
    clock: Clock,
    /// Who this server is, once it has joined a cluster.
    hello: OnceCell<Hello>,
    has_joined: Notify,
    limits: Limits,
    control_door: Option<ControlDoor>,
}

pub(crate) struct State<P> {
    protocol: P,
    local: Option<Box<dyn LocalService<P>>>,
    io: Io,
    faults: Faults,
    reach: Reach,
    turn_is_due: bool,
    /// Whether what may wait a little will be sent.
    later_is_due: bool,
}

impl<P: Protocol + 'static> Server<P> {
    /// A server that accepts from `listener` (see [`bind`]). Must be called in a runtime.
    pub fn new(listener: std::net::TcpListener, limits: Limits) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let (sender, queue) = mpsc::unbounded_channel();
        let handle = Handle { queue: sender };
        Ok(Self {
            listener,
            limits,
            control_door: None,
            observer: None,
            local: None,
            reporter: None,
            allows_faults: false,
            queue,
            handle,
        })
    }

    /// The command queue's open end.
    pub fn handle(&self) -> Handle<P> {
        self.handle.clone()
    }

    /// Has the server hand on connections to the control plane, from its start on.
    pub fn hand_control_to(&mut self, door: ControlDoor) {
        self.control_door = Some(door);
    }

    /// Has `observer` look at the protocol after every tick.
    pub fn observe(&mut self, observer: Observer<P>) {
        self.observer = Some(observer);
    }

    /// Has `service` answer questions about the server's own store; without one they are refused.
    pub fn serve_local(&mut self, service: Box<dyn LocalService<P>>) {
        self.local = Some(service);
    }

    /// Has the server say which others it cannot reach, and since when.
    pub fn report_cut(&mut self, reporter: watch::Sender<BTreeMap<ServerId, Time>>) {
        self.reporter = Some(reporter);
    }

    /// Has clients break links and end the process as they like: for tests.
    pub fn allow_faults(&mut self) {
        self.allows_faults = true;
    }

    /// Serves until [`Handle::stop`], then gives the protocol back. Clients and the control plane are served at once, other
    /// servers from [`Handle::join`] on. Must run in a `LocalSet`.
    pub async fn run(self, protocol: P) -> P {
        let state = State {
            protocol,
            local: self.local,
            io: Io::new(self.limits),
            faults: Faults::new(self.allows_faults),
            reach: Reach::default(),
            turn_is_due: false,
            later_is_due: false,
        };
        let shared = Rc::new(Shared {
            state: RefCell::new(state),
            turn: Notify::new(),
            clock: Clock,
            hello: OnceCell::new(),
            has_joined: Notify::new(),
            limits: self.limits,
            control_door: self.control_door,
        });
        let tasks = [
            spawn_local(accept(Rc::clone(&shared), self.listener)),
            spawn_local(turn::end_turns(Rc::clone(&shared))),
            spawn_local(tick(Rc::clone(&shared), self.observer, self.reporter)),
            spawn_local(look_after_connections(Rc::clone(&shared))),
        ];
        drain_queue(&shared, self.queue).await;
        tasks.iter().for_each(JoinHandle::abort);
        connection::close_all(&shared).await;
        for task in tasks {
            // An aborted task is what was asked for.
            let _ = task.await;
        }
        match Rc::try_unwrap(shared) {
            Ok(shared) => shared.state.into_inner().protocol,
            Err(_) => unreachable!("every task of the server has ended"),
        }
    }
}

impl<P: Protocol> Shared<P> {
    /// Waits until this server knows who it is.
    pub(crate) async fn joined(&self) -> &Hello {
        loop {
            if let Some(hello) = self.hello.get() {
                return hello;
            }
            self.has_joined.notified().await;
        }
    }

    /// Steps the protocol, and has the turn ended once everything that is ready has run.
    pub(crate) fn step(&self, input: Input<P::Message, P::Control>) {
        let mut state = self.state.borrow_mut();
        let State { protocol, io, .. } = &mut *state;
        protocol.step(self.clock.now(), input, io);
        self.turn_due(&mut state);
    }

    /// Steps the protocol through inputs that came together, and leaves none of them.
    pub(crate) fn step_all(&self, inputs: &mut Vec<Input<P::Message, P::Control>>) {
        let mut state = self.state.borrow_mut();
        let State { protocol, io, .. } = &mut *state;
        if inputs.len() > 1 {
            protocol.expect(inputs);
        }
        let now = self.clock.now();
        inputs.drain(..).for_each(|input| protocol.step(now, input, io));
        self.turn_due(&mut state);
    }

    /// Has the turn ended soon.
    pub(crate) fn turn_due(&self, state: &mut State<P>) {
        if !std::mem::replace(&mut state.turn_is_due, true) {
            self.turn.notify_one();
        }
    }

    /// Does something with the connections, and has what it wrote sent.
    pub(crate) fn with_io<T>(&self, act: impl FnOnce(&mut Io) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let result = act(&mut state.io);
        self.turn_due(&mut state);
        result
    }
}

/// The command thread's loop of the seed: drains the queue in batches.
async fn drain_queue<P: Protocol + 'static>(shared: &Rc<Shared<P>>, mut queue: mpsc::UnboundedReceiver<Command<P>>) {
    let mut links = links::Links::default();
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 256).await > 0 {
        for command in batch.drain(..) {
            match command {
                Command::Join(hello) => {
                    shared.hello.get_or_init(|| hello);
                    shared.has_joined.notify_waiters();
                }
                Command::Input(input) => shared.step(input),
                Command::Peers(mut peers) => {
                    let Some(hello) = shared.hello.get() else { continue };
                    peers.retain(|peer| peer.id != hello.server);
                    let now = shared.clock.now();
                    let mut state = shared.state.borrow_mut();
                    state.faults.learn(peers.iter());
                    state.reach.set(peers.iter().map(|peer| peer.id), now);
                    drop(state);
                    links.set(shared, peers);
                }
                Command::FailLink(to, failed) => shared.with_io(|io| io.fail_link(to, failed)),
                Command::Stop => {
                    // What was said to the other servers goes out before the links go, also what could have waited.
                    shared.with_io(Io::send_what_waits);
                    turn::end_turn(shared);
                    return links.stop(shared).await;
                }
            }
        }
    }
}

async fn tick<P: Protocol + 'static>(
    shared: Rc<Shared<P>>,
    mut observer: Option<Observer<P>>,
    reporter: Option<watch::Sender<BTreeMap<ServerId, Time>>>,
) {
    let mut timer = tokio::time::interval(Duration::from_millis(TICK_MS));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        shared.step(Input::Tick);
        if let Some(observe) = &mut observer {
            observe(&shared.state.borrow().protocol);
        }
        if let Some(reporter) = &reporter {
            let cut = shared.state.borrow().reach.cut(shared.clock.now());
            reporter.send_if_modified(|known| std::mem::replace(known, cut) != *known);
        }
    }
}

async fn accept<P: Protocol + 'static>(shared: Rc<Shared<P>>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => connection::accepted(&shared, stream, from),
            Err(error) => {
                // Out of file descriptors, most likely: others must close some first.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Once a second: closes connections whose frame does not become whole.
async fn look_after_connections<P: Protocol + 'static>(shared: Rc<Shared<P>>) {
    let mut timer = tokio::time::interval(Duration::from_secs(1));
    loop {
        timer.tick().await;
        let age_max_s = shared.limits.partial_age_max.as_secs() as u32;
        shared.with_io(|io| {
            for id in io.ids() {
                let Some(connection) = io.get(id).filter(|connection| connection.partial_bytes > 0) else { continue };
                connection.partial_age_s += 1;
                if connection.partial_age_s > age_max_s {
                    info!("closing a connection that began a frame and did not end it within {age_max_s} s");
                    io.close(id);
                }
            }
        });
    }
}

/// Logs why a connection ended, where that is worth a word.
fn log_end(who: impl std::fmt::Display, error: &std::io::Error) {
    debug!(%who, %error, "a connection ended");
}
