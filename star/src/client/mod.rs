//! [`StarClient`]: the SET/GET API of a cluster, for programs.

mod blocking;
mod error;
mod mapped;
mod names;
mod servers;

use std::{sync::Arc, time::Duration};

pub use blocking::BlockingClient;
use bytes::Bytes;
use compact_str::CompactString;
pub use error::ClientError;
use mapped::MappedRead;
pub use mapped::ObjectRef;
use names::Names;
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
    names: Names,
}

impl StarClient {
    /// A client of the cluster that these servers (`host:port`) belong to; one that answers is enough.
    pub async fn connect(addrs: &[String], options: Options) -> Result<Self, ClientError> {
        let servers = Servers::discover(addrs, &options).await?;
        Ok(Self { inner: Arc::new(Inner { servers, options, names: Names::new() }) })
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
        let body = RequestBody::Delete { key: Key::new(key), condition, request_id: RequestId::Unnamed };
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
        let body = RequestBody::SetMany { entries, request_id: RequestId::Unnamed };
        let request = Request { body, value: value.into() };
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
            self.inner.names.renew(&ticket);
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
        let mut may_be_done = false;
        let mut pause = Duration::from_millis(1);
        let mut server = self.inner.servers.pick();
        loop {
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

    /// Does again what servers have refused, and so not done, because they did not know this client.
    async fn ask_as_another(
        &self,
        request: Request,
        refused: Response,
        deadline: Time,
    ) -> Result<Response, ClientError> {
        let (RequestBody::SetMany { entries, .. }, ResponseBody::Many(mut answers)) = (&request.body, refused.body)
        else {
            return self.write_unnamed(request, deadline).await;
        };
        let (mut parts, mut places, mut value) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = request.value.clone();
        for (place, (entry, answer)) in entries.iter().zip(&answers).enumerate() {
            let bytes = rest.split_to((entry.value_bytes as usize).min(rest.len()));
            if names::is_forgotten(&answer.body) {
                parts.push(entry.clone());
                places.push(place);
                value.extend_from_slice(&bytes);
            }
        }
        let body = RequestBody::SetMany { entries: parts, request_id: RequestId::Unnamed };
        let again = self.write_unnamed(Request { body, value: value.into() }, deadline).await?;
        let ResponseBody::Many(again) = again.body else { return Err(ClientError::unexpected(&again.body)) };
        for (place, answer) in places.into_iter().zip(again) {
            answers[place] = answer;
        }
        Ok(Response { body: ResponseBody::Many(answers), value: Bytes::new() })
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
