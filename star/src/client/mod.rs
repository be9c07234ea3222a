//! [`StarClient`]: the SET/GET API of a cluster, for programs.

mod blocking;
mod directory;
mod error;
mod list;
mod many;
mod mapped;
mod names;
mod room;
mod servers;
mod subscribe;
mod value;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use blocking::BlockingClient;
use bytes::Bytes;
use directory::{Attempt, Server};
pub use error::ClientError;
pub use list::Page;
use mapped::MappedRead;
pub use mapped::ObjectRef;
use names::{Names, Ticket};
pub use room::Room;
use servers::Servers;
use star_core::{
    Clock, ErrorCode, Key, KeyRef, RequestId, Time, Version,
    message::{Condition, Request, RequestBody, Response, ResponseBody},
    network::ClientOptions,
    store::Encoding,
};
pub use subscribe::{Event, Subscription};
pub use value::Value;

/// The pause after a failed attempt, which doubles each time, and its bound.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

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
    pub value: Value,
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
    names: Names,
    /// Requests that are under way.
    under_way: AtomicUsize,
}

/// Counts a request as long as it is under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    /// One more; says how many there were.
    fn begin(count: &'a AtomicUsize) -> (Self, usize) {
        (Self(count), count.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StarClient {
    /// A write of a value of this length goes to its key's leader first, two message delays from its answer instead of three,
    /// while no more requests than this are under way. With more, batches at every server are worth more than a delay; and
    /// longer values are spread over the links of all servers.
    pub const fn leader_first_under_way_max(value_bytes: usize) -> usize {
        match value_bytes {
            0..=4096 => 16,
            4097..=65_536 => 4,
            _ => 0,
        }
    }

    /// A client of the cluster that these servers (`host:port`) belong to; one that answers is enough.
    pub async fn connect(addrs: &[String], options: Options) -> Result<Self, ClientError> {
        let servers = Servers::discover(addrs, &options).await?;
        let (names, under_way) = (Names::new(), AtomicUsize::new(0));
        Ok(Self { inner: Arc::new(Inner { servers, options, names, under_way }) })
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
        let body = RequestBody::Set { key: Key::new(key), encoding, condition, request_id: RequestId::Unnamed };
        outcome(self.call(Request { body, value }).await?.body)
    }

    /// Whether the key has an object.
    pub async fn contains(&self, key: &str) -> Result<bool, ClientError> {
        let key = KeyRef::new(key);
        match self.inner.servers.is_mapped(key) {
            MappedRead::Answer(answer) => Ok(answer.is_some()),
            MappedRead::AskServer => Ok(self.get_from_server(key.to_key()).await?.is_some()),
        }
    }

    /// The key's latest object; `None` if it has none.
    #[inline]
    pub async fn get(&self, key: &str) -> Result<Option<Object>, ClientError> {
        let key = KeyRef::new(key);
        if let Some(object) = self.inner.servers.try_read_mapped(key) {
            return Ok(Some(object));
        }
        match self.inner.servers.read_mapped(key) {
            MappedRead::Answer(answer) => Ok(answer),
            // What waits is apart, and on the heap: a read that does not wait must not make room for it.
            MappedRead::AskServer => Box::pin(self.get_from_server(key.to_key())).await,
        }
    }

    /// The key's latest object; `None` if it has none. From a mapped store it is not copied, whatever its size.
    #[inline]
    pub async fn get_ref(&self, key: &str) -> Result<Option<ObjectRef>, ClientError> {
        let key = KeyRef::new(key);
        if let Some(object) = self.inner.servers.try_pin_mapped(key) {
            return Ok(Some(object));
        }
        match self.inner.servers.pin_mapped(key) {
            MappedRead::Answer(answer) => Ok(answer),
            MappedRead::AskServer => {
                Ok(Box::pin(self.get_from_server(key.to_key())).await?.map(|object| ObjectRef::Copied(object.into())))
            }
        }
    }

    async fn get_from_server(&self, key: Key) -> Result<Option<Object>, ClientError> {
        object(self.call(RequestBody::Get { key }.into()).await?)
    }

    /// Removes the key's object if the condition holds; returns the version that was removed last, `None` if the key
    /// had no object.
    pub async fn delete(&self, key: &str, condition: Condition) -> Result<Option<CasOutcome>, ClientError> {
        let body = RequestBody::Delete { key: Key::new(key), condition, request_id: RequestId::Unnamed };
        match self.call(body.into()).await?.body {
            ResponseBody::Written { version } => Ok(Some(CasOutcome::Written(version))),
            ResponseBody::Conflict { version } => Ok(Some(CasOutcome::Conflict(version))),
            ResponseBody::NotFound => Ok(None),
            other => Err(ClientError::unexpected(&other)),
        }
    }

    /// The status of each server as JSON text, by name; an error for those that do not answer.
    pub async fn status(&self) -> Vec<(String, Result<String, ClientError>)> {
        self.inner.servers.status().await
    }

    /// Sends a request to one server after another until one answers it or the time is up. A write that is
    /// [`RequestId::Unnamed`] gets a name first; any other request goes as it is.
    pub async fn call(&self, mut request: Request) -> Result<Response, ClientError> {
        let deadline = Clock.now() + self.inner.options.give_up_after;
        match names::request_id(&mut request.body) {
            Some((RequestId::Unnamed, _)) => self.write_unnamed(request, deadline).await,
            _ => self.call_named(&request, deadline).await.0,
        }
    }

    async fn write_unnamed(&self, mut request: Request, deadline: Time) -> Result<Response, ClientError> {
        let Some((request_id, count)) = names::request_id(&mut request.body) else {
            return Err(ClientError::unexpected("a write that is none"));
        };
        let ticket = self.inner.names.take(count, deadline).await?;
        *request_id = ticket.request_id();
        let (answer, may_be_done) = self.call_named(&request, deadline).await;
        self.finish_write(request, &ticket, answer, may_be_done, deadline).await
    }

    /// What is to be told of a write after its last answer; one whose name the servers do not know gets another.
    async fn finish_write(
        &self,
        request: Request,
        ticket: &Ticket,
        answer: Result<Response, ClientError>,
        may_be_done: bool,
        deadline: Time,
    ) -> Result<Response, ClientError> {
        let response = match answer {
            Err(ClientError::Refused(failure)) if failure.code == ErrorCode::Forgotten => {
                Response { body: ResponseBody::Error(failure), value: Bytes::new() }
            }
            Ok(response) => response,
            Err(error) => return Err(error),
        };
        let is_forgotten = match &response.body {
            ResponseBody::Many(parts) => parts.iter().any(|part| names::is_forgotten(&part.body)),
            body => names::is_forgotten(body),
        };
        if is_forgotten {
            self.inner.names.renew(ticket);
        }
        match response.body {
            // One that was sent before may have been done then.
            _ if is_forgotten && !may_be_done && Clock.now() < deadline => {
                Box::pin(self.ask_as_another(request, response, deadline)).await
            }
            ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
            _ => Ok(response),
        }
    }

    /// Sends a request as it is; says, too, whether it may have been done before its last answer.
    async fn call_named(&self, request: &Request, deadline: Time) -> (Result<Response, ClientError>, bool) {
        let (answer, may_be_done) = self.call_whole(request, deadline).await;
        match answer {
            Ok(response) if many::is_refused_in_part(&response.body) => {
                let (answer, part_may_be_done) = self.ask_again_for_parts(request, response, deadline).await;
                (answer, may_be_done || part_may_be_done)
            }
            answer => (answer, may_be_done),
        }
    }

    /// The same for a request of which parts may be refused.
    async fn call_whole(&self, request: &Request, deadline: Time) -> (Result<Response, ClientError>, bool) {
        let mut may_be_done = false;
        let mut pause = PAUSE_MIN;
        let (_under_way, others) = UnderWay::begin(&self.inner.under_way);
        let leader_first = !matches!(request.body, RequestBody::Get { .. })
            && others < Self::leader_first_under_way_max(request.value.len());
        let mut attempt = Attempt { first: self.inner.servers.pick(), number: 0, leader_first };
        loop {
            let directory = self.inner.servers.directory();
            let star = one_key(&request.body).and_then(|key| directory.star_of(key));
            let server = directory.choose(star, attempt);
            let error = match self.try_once(server, request, deadline).await {
                Ok(response) => return (Ok(response), may_be_done),
                Err(error) => error,
            };
            if !error.retry() || Clock.now() + pause >= deadline {
                return (Err(error), may_be_done);
            }
            may_be_done |= match &error {
                ClientError::Refused(failure) => {
                    failure.code == ErrorCode::Unfinished || matches!(request.body, RequestBody::SetMany { .. })
                }
                ClientError::Network(error) => error.may_have_been_done(),
                _ => true,
            };
            // A server that refuses refuses at once: the pause keeps a client from spinning through all of them.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            attempt.number += 1;
            if matches!(error, ClientError::Network(_)) {
                // Whoever is next may know already who leads instead of a server that is gone.
                self.inner.servers.ask_who_serves(directory.choose(star, attempt), deadline).await;
            }
        }
    }

    async fn try_once(&self, server: &Server, request: &Request, deadline: Time) -> Result<Response, ClientError> {
        let response = self.inner.servers.call(server, request, deadline.since(Clock.now())).await?;
        let refusal = match response.body {
            ResponseBody::Error(failure) => failure,
            // A part of such a request has no name by which it could be sent again alone.
            ResponseBody::Many(ref entries) if many::has_text_id(&request.body) => match many::passing_refusal(entries)
            {
                Some(failure) => failure,
                None => return Ok(response),
            },
            _ => return Ok(response),
        };
        if refusal.code == ErrorCode::NotServing {
            self.inner.servers.ask_who_serves(server, deadline).await;
        }
        Err(ClientError::Refused(refusal))
    }
}

/// The key of a request that is about one.
fn one_key(body: &RequestBody) -> Option<&Key> {
    match body {
        RequestBody::Get { key } | RequestBody::Set { key, .. } | RequestBody::Delete { key, .. } => Some(key),
        _ => None,
    }
}

/// What came of a write.
fn outcome(body: ResponseBody) -> Result<CasOutcome, ClientError> {
    match body {
        ResponseBody::Written { version } => Ok(CasOutcome::Written(version)),
        ResponseBody::Conflict { version } => Ok(CasOutcome::Conflict(version)),
        other => Err(ClientError::unexpected(&other)),
    }
}

fn object(answer: Response) -> Result<Option<Object>, ClientError> {
    match answer.body {
        ResponseBody::Value { version, encoding } => Ok(Some(Object { value: answer.value.into(), version, encoding })),
        ResponseBody::NotFound => Ok(None),
        ResponseBody::Error(failure) => Err(ClientError::Refused(failure)),
        other => Err(ClientError::unexpected(&other)),
    }
}
