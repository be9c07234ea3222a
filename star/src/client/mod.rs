//! [`StarClient`]: the SET/GET API of a cluster, for programs.

mod blocking;
mod error;
mod mapped;
mod servers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use blocking::BlockingClient;
use bytes::Bytes;
use compact_str::CompactString;
pub use error::ClientError;
use mapped::MappedRead;
pub use mapped::ObjectRef;
use servers::Servers;
use star_core::{
    Clock, ErrorCode, Key, RequestId, Time, Version,
    message::{Condition, ManyEntry, Request, RequestBody, Response, ResponseBody, SetEntry},
    network::ClientOptions,
    store::Encoding,
};

/// How a [`StarClient`] behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How each server is talked to.
    pub network: ClientOptions,
    /// How long an operation is tried, at one server after another, before its last error is returned.
    pub give_up_after: Duration,
    /// Which way reads go.
    pub transport: Transport,
    /// Talk to the given servers alone, not to all of the cluster that they belong to.
    pub only_given: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            network: ClientOptions::default(),
            give_up_after: Duration::from_secs(10),
            transport: Transport::Auto,
            only_given: false,
        }
    }
}

impl Options {
    /// Talk to one server alone, over TCP.
    #[must_use]
    pub fn one_server() -> Self {
        Self { transport: Transport::Tcp, only_given: true, ..Self::default() }
    }
}

/// Which way reads go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// From the mapped store of a server of this machine where there is one that can answer; else over TCP.
    #[default]
    Auto,
    /// Always over TCP.
    Tcp,
    /// From a mapped store; connecting fails if there is none. Reads that it cannot answer still go over TCP.
    Shm,
}

/// An object as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
    /// How its bytes came in.
    pub encoding: Encoding,
}

/// What came of a write with a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// The condition held: the key has this version now.
    Written(Version),
    /// It did not: the key has this version; 0 if it has no object.
    Conflict(Version),
}

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys, in order.
    pub keys: Vec<String>,
    /// Whether there may be more after the last.
    pub more: bool,
}

/// A client of a cluster. Cheap to clone; clones share connections.
///
/// Every operation is linearizable. One that fails for a passing reason is tried again at other servers, with the same
/// request id, so that a write takes effect once.
#[derive(Clone, Debug)]
pub struct StarClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    servers: Servers,
    options: Options,
    /// Drawn at random: names this client in its request ids.
    client: u64,
    writes: AtomicU64,
}

impl StarClient {
    /// A client of the cluster that these servers (`host:port`) belong to; one that answers is enough.
    pub async fn connect(addrs: &[String], options: Options) -> Result<Self, ClientError> {
        let servers = Servers::discover(addrs, &options).await?;
        let client = random_number();
        Ok(Self { inner: Arc::new(Inner { servers, options, client, writes: AtomicU64::new(0) }) })
    }

    /// Makes `value` the key's object, and returns its version.
    pub async fn set(&self, key: &str, value: impl Into<Bytes>) -> Result<Version, ClientError> {
        match self.write(key, value.into(), Encoding::Raw, Condition::Always).await? {
            CasOutcome::Written(version) => Ok(version),
            CasOutcome::Conflict(_) => Err(ClientError::unexpected("a conflict without a condition")),
        }
    }

    /// Makes `value` the key's object if the condition holds.
    pub async fn compare_and_set(
        &self,
        key: &str,
        condition: Condition,
        value: impl Into<Bytes>,
    ) -> Result<CasOutcome, ClientError> {
        self.write(key, value.into(), Encoding::Raw, condition).await
    }

    /// The most general write.
    pub async fn write(
        &self,
        key: &str,
        value: Bytes,
        encoding: Encoding,
        condition: Condition,
    ) -> Result<CasOutcome, ClientError> {
        let body = RequestBody::Set { key: Key::new(key), encoding, condition, request_id: self.next_request_id(1) };
        match self.call(Request { body, value }).await?.body {
            ResponseBody::Written { version } => Ok(CasOutcome::Written(version)),
            ResponseBody::Conflict { version } => Ok(CasOutcome::Conflict(version)),
            other => Err(ClientError::unexpected(&other)),
        }
    }

    /// The key's latest object; `None` if it has none.
    pub async fn get(&self, key: &str) -> Result<Option<Object>, ClientError> {
        let key = Key::new(key);
        match self.inner.servers.read_mapped(&key) {
            MappedRead::Answer(answer) => Ok(answer),
            MappedRead::AskServer => self.get_from_server(key).await,
        }
    }

    /// The key's latest object; `None` if it has none. From a mapped store it is not copied, whatever its size.
    pub async fn get_ref(&self, key: &str) -> Result<Option<ObjectRef>, ClientError> {
        let key = Key::new(key);
        match self.inner.servers.pin_mapped(&key) {
            MappedRead::Answer(answer) => Ok(answer),
            MappedRead::AskServer => Ok(self.get_from_server(key).await?.map(ObjectRef::Copied)),
        }
    }

    async fn get_from_server(&self, key: Key) -> Result<Option<Object>, ClientError> {
        object(self.call(RequestBody::Get { key }.into()).await?)
    }

    /// Removes the key's object if the condition holds; returns the version that was removed last, `None` if the key
    /// had no object.
    pub async fn delete(&self, key: &str, condition: Condition) -> Result<Option<CasOutcome>, ClientError> {
        let body = RequestBody::Delete { key: Key::new(key), condition, request_id: self.next_request_id(1) };
        match self.call(body.into()).await?.body {
            ResponseBody::Written { version } => Ok(Some(CasOutcome::Written(version))),
            ResponseBody::Conflict { version } => Ok(Some(CasOutcome::Conflict(version))),
            ResponseBody::NotFound => Ok(None),
            other => Err(ClientError::unexpected(&other)),
        }
    }

    /// At most `limit` (and 1000) keys that begin with `prefix` and sort after `after`, in order.
    pub async fn list(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Page, ClientError> {
        let body = RequestBody::List { prefix: prefix.into(), after: after.map(CompactString::from), limit };
        match self.call(body.into()).await?.body {
            ResponseBody::Keys { keys, more } => {
                Ok(Page { keys: keys.into_iter().map(CompactString::into_string).collect(), more })
            }
            other => Err(ClientError::unexpected(&other)),
        }
    }

    /// Several keys at once (at most 1024); each by itself is linearizable, together they are no snapshot.
    pub async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Object>>, ClientError> {
        let keys: Vec<Key> = keys.iter().map(|key| Key::new(*key)).collect();
        let answer = self.call(RequestBody::GetMany { keys }.into()).await?;
        parts(answer)?.into_iter().map(object).collect()
    }

    /// Several writes at once (at most 1024); each by itself, not as a transaction. Returns their versions in order.
    pub async fn set_many(&self, objects: &[(&str, Bytes)]) -> Result<Vec<Version>, ClientError> {
        let mut value = Vec::with_capacity(objects.iter().map(|(_, value)| value.len()).sum());
        let mut entries = Vec::with_capacity(objects.len());
        for (key, bytes) in objects {
            let value_bytes = u32::try_from(bytes.len()).map_err(|_| ClientError::unexpected("a value over 4 GiB"))?;
            entries.push(SetEntry { key: Key::new(*key), encoding: Encoding::Raw, value_bytes });
            value.extend_from_slice(bytes);
        }
        let request_id = self.next_request_id(objects.len() as u64);
        let request = Request { body: RequestBody::SetMany { entries, request_id }, value: value.into() };
        parts(self.call(request).await?)?
            .into_iter()
            .map(|answer| match answer.body {
                ResponseBody::Written { version } => Ok(version),
                other => Err(ClientError::unexpected(&other)),
            })
            .collect()
    }

    /// The status of each server as JSON text, by name; an error for those that do not answer.
    pub async fn status(&self) -> Vec<(String, Result<String, ClientError>)> {
        self.inner.servers.status().await
    }

    /// Sends a request as it is to one server after another until one answers it or the time is up.
    pub async fn call(&self, request: Request) -> Result<Response, ClientError> {
        let deadline = Clock.now() + self.inner.options.give_up_after;
        let mut pause = Duration::from_millis(1);
        let mut server = self.inner.servers.pick();
        loop {
            let error = match self.try_once(server, &request, deadline).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if !error.retry() || Clock.now() + pause >= deadline {
                return Err(error);
            }
            // A server that refuses refuses at once: the pause keeps a client from spinning through all of them.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
            server = self.inner.servers.after(server);
        }
    }

    async fn try_once(&self, server: usize, request: &Request, deadline: Time) -> Result<Response, ClientError> {
        let response = self.inner.servers.call(server, request, deadline.since(Clock.now())).await?;
        match response.body {
            ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
            // A part that was refused for a passing reason has the whole request sent again: what is done stays done.
            ResponseBody::Many(ref entries) => match passing_refusal(entries) {
                Some(failure) => Err(ClientError::Refused(failure)),
                None => Ok(response),
            },
            _ => Ok(response),
        }
    }

    /// A request id that no request had before; `parts` numbers are used up.
    fn next_request_id(&self, parts: u64) -> RequestId {
        RequestId::Counted { client: self.inner.client, number: self.inner.writes.fetch_add(parts, Ordering::Relaxed) }
    }
}

fn passing_refusal(entries: &[ManyEntry]) -> Option<star_core::Failure> {
    entries.iter().find_map(|entry| match &entry.body {
        ResponseBody::Error(failure) if failure.code.retry() && failure.code != ErrorCode::NoSpace => {
            Some(failure.clone())
        }
        _ => None,
    })
}

fn object(answer: Response) -> Result<Option<Object>, ClientError> {
    match answer.body {
        ResponseBody::Value { version, encoding } => Ok(Some(Object { value: answer.value, version, encoding })),
        ResponseBody::NotFound => Ok(None),
        ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
        other => Err(ClientError::unexpected(&other)),
    }
}

/// The answers to the parts of a request with many parts.
fn parts(answer: Response) -> Result<Vec<Response>, ClientError> {
    let ResponseBody::Many(entries) = answer.body else {
        return Err(ClientError::unexpected(&answer.body));
    };
    let mut rest = answer.value;
    entries
        .into_iter()
        .map(|ManyEntry { body, value_bytes }| {
            if value_bytes as usize > rest.len() {
                return Err(ClientError::unexpected("an answer whose parts are longer than it is"));
            }
            match body {
                ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
                body => Ok(Response { body, value: rest.split_to(value_bytes as usize) }),
            }
        })
        .collect()
}

/// A number that no other client is likely to draw: the standard library seeds its hashes from the system.
fn random_number() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(Clock.now().0);
    hasher.write_u32(std::process::id());
    hasher.finish()
}
