//! The servers that a client knows: how it reaches them, and the mapped store that it reads from by itself.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde::Deserialize;
use star_control::ClusterState;
use star_core::{
    Key,
    message::{Request, RequestBody, Response, ResponseBody, Wire, frame::FrameKind},
    network::{NetworkError, TcpClient},
};

use super::{
    ClientError, Object, Options, Transport,
    mapped::{Mapped, MappedRead, ObjectRef},
};

/// The servers of a cluster.
#[derive(Debug)]
pub(super) struct Servers {
    all: Vec<Server>,
    request_timeout: Duration,
    next: AtomicUsize,
    mapped: Mapped,
}

#[derive(Debug)]
struct Server {
    name: String,
    client: TcpClient,
    store: Option<String>,
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
        let server = |name: &str, addr: &str, store: Option<&String>| Server {
            name: name.to_owned(),
            client: TcpClient::new(addr.to_owned(), options.network.clone()),
            store: store.cloned(),
        };
        let known = cluster.map(|cluster| cluster.servers.as_slice()).unwrap_or_default();
        let given = |addr: &String| {
            let known = known.iter().find(|one| one.addr == *addr);
            server(known.map_or(addr, |one| &one.name), addr, known.and_then(|one| one.store.as_ref()))
        };
        let servers: Vec<Server> = if known.is_empty() || options.only_given {
            addrs.iter().map(given).collect()
        } else {
            known.iter().map(|one| server(&one.name, &one.addr, one.store.as_ref())).collect()
        };
        let wanted = options.transport != Transport::Tcp;
        let servers = Self {
            next: AtomicUsize::new(star_core::session::random_number() as usize),
            all: servers,
            request_timeout: options.network.request_timeout,
            // A store names the cluster as the configuration does, without what tells its foundations apart.
            mapped: Mapped::new(cluster.filter(|_| wanted).map(|one| one.name().to_owned())),
        };
        let why = servers.open_mapped();
        match (options.transport, why) {
            (Transport::Shm, Err(why)) => Err(ClientError::NoMappedStore(why)),
            _ => Ok(servers),
        }
    }

    /// Any server: each in its turn.
    pub(super) fn pick(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()
    }

    /// The server to try after another.
    pub(super) fn after(&self, server: usize) -> usize {
        (server + 1) % self.all.len()
    }

    pub(super) async fn call(
        &self,
        server: usize,
        request: &Request,
        time_left: Duration,
    ) -> Result<Response, NetworkError> {
        let server = &self.all[server].client;
        let mut header = Vec::new();
        request.encode_header(&mut header);
        let timeout = time_left.min(self.request_timeout).max(Duration::from_millis(1));
        let (kind, header, tail) =
            server.exchange_within(FrameKind::Request, &header, request.value.clone(), timeout).await?;
        let unexpected = |reason: String| NetworkError::Unexpected { addr: server.addr().to_owned(), reason };
        if kind != FrameKind::Response {
            return Err(unexpected(format!("a frame of kind {kind:?}")));
        }
        Response::decode(&header, tail).map_err(unexpected)
    }

    pub(super) async fn status(&self) -> Vec<(String, Result<String, ClientError>)> {
        let mut all = Vec::new();
        for server in &self.all {
            let status = match server.client.call(&RequestBody::Status.into()).await {
                Ok(Response { body: ResponseBody::Status(status), .. }) => Ok(status),
                Ok(other) => Err(ClientError::unexpected(other.body)),
                Err(error) => Err(error.into()),
            };
            all.push((server.name.clone(), status));
        }
        all
    }

    /// Reads from the mapped store, if it can answer.
    #[inline]
    pub(super) fn read_mapped(&self, key: &Key) -> MappedRead<Object> {
        self.mapped.get(key).unwrap_or_else(|_| self.look_for_another())
    }

    /// The same without a copy.
    #[inline]
    pub(super) fn pin_mapped(&self, key: &Key) -> MappedRead<ObjectRef> {
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
        let first = self.pick();
        let paths = (0..self.all.len()).filter_map(|i| self.all[(first + i) % self.all.len()].store.as_deref());
        self.mapped.open(paths)
    }
}
