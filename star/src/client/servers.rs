//! The servers that a client knows: how it reaches them, how it hears of changes, and the mapped store that it reads from
//! by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use serde::Deserialize;
use star_control::ClusterState;
use star_core::{
    Clock, KeyRef, Time,
    message::{Local, Request, RequestBody, Response, ResponseBody, Wire, frame::FrameKind},
    network::{NetworkError, TcpClient},
};

use super::{
    ClientError, Object, Options, Transport,
    directory::{Directory, Server},
    mapped::{ManyRead, Mapped, MappedRead, ObjectRef},
};

/// At least this long passes between two questions of a client who serves what.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// And so long an operation waits for the answer.
const ASK_WITHIN: Duration = Duration::from_millis(500);

/// The servers of a cluster.
#[derive(Debug)]
pub(super) struct Servers {
    directory: RwLock<Arc<Directory>>,
    given: Vec<String>,
    options: Options,
    /// The cluster's name; `None` before its first view.
    cluster: Option<String>,
    next: AtomicUsize,
    /// When it may be asked again who serves what, as [`Time`] in a number.
    ask_at: AtomicU64,
    mapped: Mapped,
}

/// The part of a server's status that a client needs.
#[derive(Deserialize)]
struct Status {
    cluster: Option<ClusterState>,
}

impl Servers {
    /// Asks the given servers, one after another, who belongs to the cluster.
    pub(super) async fn discover(addrs: &[String], options: &Options) -> Result<Self, ClientError> {
        let mut last = "no address was given".to_owned();
        for addr in addrs {
            let client = TcpClient::new(addr.clone(), options.network.clone());
            match client.call(&RequestBody::Status.into()).await {
                Ok(Response { body: ResponseBody::Status(status), .. }) => {
                    let status: Status = serde_json::from_str(&status).map_err(ClientError::unexpected)?;
                    return Self::new(addrs, status.cluster.as_ref(), options);
                }
                Ok(other) => return Err(ClientError::unexpected(other.body)),
                Err(error) => last = error.to_string(),
            }
        }
        Err(ClientError::NoCluster { tried: addrs.join(", "), last })
    }

    fn new(addrs: &[String], cluster: Option<&ClusterState>, options: &Options) -> Result<Self, ClientError> {
        let wanted = options.transport != Transport::Tcp;
        // A store names the cluster as the configuration does, without what tells its foundations apart.
        let name = cluster.map(|one| one.name().to_owned());
        let servers = Self {
            directory: RwLock::new(Arc::new(Directory::new(addrs, cluster, options, &[]))),
            given: addrs.to_vec(),
            options: options.clone(),
            next: AtomicUsize::new(star_core::session::random_number() as usize),
            ask_at: AtomicU64::new(0),
            mapped: Mapped::new(name.clone().filter(|_| wanted)),
            cluster: name,
        };
        let why = servers.open_mapped();
        match (options.transport, why) {
            (Transport::Shm, Err(why)) => Err(ClientError::NoMappedStore(why)),
            _ => Ok(servers),
        }
    }

    /// What is known now.
    pub(super) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read())
    }

    /// Where an operation begins among servers that are as good as each other: each in its turn.
    pub(super) fn pick(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) async fn call(
        &self,
        server: &Server,
        request: &Request,
        time_left: Duration,
    ) -> Result<Response, NetworkError> {
        let timeout = time_left.min(self.options.network.request_timeout).max(Duration::from_millis(1));
        Self::exchange(server, FrameKind::Request, request, timeout).await
    }

    /// Asks a server about its own store.
    pub(super) async fn ask_local(
        &self,
        server: &Server,
        question: &Local,
        time_left: Duration,
    ) -> Result<ResponseBody, NetworkError> {
        let timeout = time_left.min(self.options.network.request_timeout).max(Duration::from_millis(1));
        self.ask_local_within(server, question, timeout).await
    }

    /// The same for a question that is answered late on purpose.
    pub(super) async fn ask_local_within(
        &self,
        server: &Server,
        question: &Local,
        timeout: Duration,
    ) -> Result<ResponseBody, NetworkError> {
        Self::exchange(server, FrameKind::Local, question, timeout).await.map(|response| response.body)
    }

    async fn exchange<M: Wire>(
        server: &Server,
        kind: FrameKind,
        message: &M,
        timeout: Duration,
    ) -> Result<Response, NetworkError> {
        let server = &server.client;
        let mut header = Vec::new();
        message.encode_header(&mut header);
        let (kind, header, tail) = server.exchange_within(kind, &header, message.tail().clone(), timeout).await?;
        let unexpected = |reason: String| NetworkError::Unexpected { addr: server.addr().to_owned(), reason };
        if kind != FrameKind::Response {
            return Err(unexpected(format!("a frame of kind {kind:?}")));
        }
        Response::decode(&header, tail).map_err(unexpected)
    }

    /// Asks a server that is up, and does not serve what was asked of it, who does. Seldom, and for one operation of many.
    pub(super) async fn ask_who_serves(&self, server: &Server, deadline: Time) {
        let (now, due) = (Clock.now(), self.ask_at.load(Ordering::Relaxed));
        let next = (now + ASK_AGAIN_AFTER).0;
        if now < Time(due) || self.ask_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let answer = self.call(server, &RequestBody::Status.into(), deadline.since(now).min(ASK_WITHIN)).await;
        // Without an answer the operation goes on as it would without this: at one server after another.
        let Ok(Response { body: ResponseBody::Status(status), .. }) = answer else { return };
        let Ok(Status { cluster: Some(cluster) }) = serde_json::from_str(&status) else { return };
        if self.cluster.as_ref().is_some_and(|name| name != cluster.name()) {
            return;
        }
        let mut directory = self.directory.write();
        let heard = Directory::new(&self.given, Some(&cluster), &self.options, directory.all());
        // Epochs grow with each change: a server that is behind knows less than this client.
        if heard.epochs() >= directory.epochs() {
            *directory = Arc::new(heard);
        }
    }

    pub(super) async fn status(&self) -> Vec<(String, Result<String, ClientError>)> {
        let mut all = Vec::new();
        for server in self.directory().all() {
            let status = match server.client.call(&RequestBody::Status.into()).await {
                Ok(Response { body: ResponseBody::Status(status), .. }) => Ok(status),
                Ok(other) => Err(ClientError::unexpected(other.body)),
                Err(error) => Err(error.into()),
            };
            all.push((server.name.clone(), status));
        }
        all
    }

    /// The server whose mapped store this client reads from, and where that store lies.
    pub(super) fn of_this_machine(&self) -> Option<(Arc<Server>, String)> {
        let path = self.mapped.path()?;
        let directory = self.directory();
        let server = directory.all().iter().find(|server| server.store.as_ref() == Some(&path))?;
        Some((Arc::clone(server), path))
    }

    /// A server of this machine, or any.
    pub(super) fn nearest(&self) -> Arc<Server> {
        self.of_this_machine().map_or_else(|| self.any(), |(server, _)| server)
    }

    fn any(&self) -> Arc<Server> {
        let directory = self.directory();
        Arc::clone(&directory.all()[self.pick() % directory.all().len()])
    }

    /// A server other than this one, if there is another.
    pub(super) fn any_but(&self, server: &Server) -> Arc<Server> {
        let any = self.any();
        if any.name == server.name { self.any() } else { any }
    }

    /// Reads from the mapped store, if it can answer at once; None says nothing.
    #[inline]
    pub(super) fn try_read_mapped(&self, key: KeyRef<'_>) -> Option<Object> {
        self.mapped.try_get(key)
    }

    /// The same in place.
    #[inline]
    pub(super) fn try_pin_mapped(&self, key: KeyRef<'_>) -> Option<ObjectRef> {
        self.mapped.try_get_ref(key).map(ObjectRef::InPlace)
    }

    /// Whether the key has an object, if the mapped store can answer.
    pub(super) fn is_mapped(&self, key: KeyRef<'_>) -> MappedRead<()> {
        self.mapped.contains(key).unwrap_or_else(|_| self.look_for_another())
    }

    /// Reads from the mapped store, if it can answer.
    #[inline]
    pub(super) fn read_mapped(&self, key: KeyRef<'_>) -> MappedRead<Object> {
        self.mapped.get(key).unwrap_or_else(|_| self.look_for_another())
    }

    /// The same for many keys, in their order.
    pub(super) fn read_many_mapped(&self, keys: &[KeyRef<'_>]) -> ManyRead {
        let read = self.mapped.get_many(keys);
        if read.lapsed {
            self.look_for_another::<Object>();
        }
        read
    }

    /// The same without a copy.
    #[inline]
    pub(super) fn pin_mapped(&self, key: KeyRef<'_>) -> MappedRead<ObjectRef> {
        self.mapped.get_ref(key).unwrap_or_else(|_| self.look_for_another())
    }

    /// The mapped store cannot answer: its server has stopped or was started anew, or it lost its lease.
    #[cold]
    fn look_for_another<T>(&self) -> MappedRead<T> {
        if self.mapped.is_due() {
            // Without one, reads go over TCP, which is right too.
            let _ = self.open_mapped();
        }
        MappedRead::AskServer
    }

    fn open_mapped(&self) -> Result<(), String> {
        let (first, directory) = (self.pick(), self.directory());
        let all = directory.all();
        let paths = (0..all.len()).filter_map(|turn| all[first.wrapping_add(turn) % all.len()].store.as_deref());
        self.mapped.open(paths)
    }
}
