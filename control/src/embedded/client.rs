//! The client of an embedded control plane, in the same process or across the network.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use star_core::{
    ids::Incarnation,
    message::{frame::FrameKind, from_postcard, to_postcard},
    network::TcpClient,
};

use super::{Call, Carrier, ClusterTimes, Host, cluster::Cluster};
use crate::{
    ControlPlane,
    machine::{Answer, Command},
    plane::{Acquired, CasOutcome, Lease, PlaneError, Renewed, Revision, Versioned, newer},
};

/// How long a client waits for a host.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimes {
    /// For an answer. Default: 1 s.
    pub answer: Duration,
    /// For a change of a watched document, until it asks again. Default: 10 s.
    pub watch: Duration,
}

impl Default for ClientTimes {
    fn default() -> Self {
        Self { answer: Duration::from_secs(1), watch: Duration::from_secs(10) }
    }
}

/// The control plane that a [`Host`] holds. Clones share its connections.
#[derive(Clone, Debug)]
pub struct EmbeddedClient {
    transport: Transport,
    times: ClientTimes,
}

#[derive(Clone, Debug)]
enum Transport {
    /// The host is in this process.
    Local(Host),
    /// The host is behind this client; `plane` is its address, for people.
    Tcp { client: TcpClient, plane: String },
    /// Several members keep the plane together.
    Cluster(Arc<Cluster>),
}

impl EmbeddedClient {
    /// A client of a host in this process: what the server that hosts the control plane uses itself.
    pub fn local(host: Host) -> Self {
        Self { transport: Transport::Local(host), times: ClientTimes::default() }
    }

    /// A client of the host at the server `plane` (`host:port`), reached through `client`.
    pub fn tcp(client: TcpClient, plane: impl Into<String>, times: ClientTimes) -> Self {
        Self { transport: Transport::Tcp { client, plane: plane.into() }, times }
    }

    /// A client of the plane that the members at these addresses (`host:port`) keep together, reached through `carrier`.
    /// It finds the one that leads by itself.
    pub fn cluster(carrier: Arc<dyn Carrier>, members: Vec<String>, times: ClusterTimes) -> Self {
        let client = ClientTimes { answer: times.answer, watch: times.watch };
        Self { transport: Transport::Cluster(Arc::new(Cluster::new(carrier, members, times))), times: client }
    }

    async fn apply(&self, command: Command) -> Result<Answer, PlaneError> {
        self.call(&Call::Apply(command), self.times.answer).await
    }

    async fn call(&self, call: &Call, within: Duration) -> Result<Answer, PlaneError> {
        match self.ask_host(call, within).await? {
            Ok(Answer::Refused(why)) => Err(PlaneError::Refused(why)),
            Ok(Answer::Busy) => Err(PlaneError::Unreachable { plane: self.plane(), why: "it is too busy".into() }),
            Ok(answer) => Ok(answer),
            Err(why) => Err(PlaneError::Corrupt { plane: self.plane(), why }),
        }
    }

    /// The answer of a single host; the inner error says what is wrong with the bytes that came back.
    async fn ask_host(&self, call: &Call, within: Duration) -> Result<Result<Answer, String>, PlaneError> {
        let mut bytes = Vec::new();
        to_postcard(call, &mut bytes);
        let answer = match &self.transport {
            Transport::Local(host) => Bytes::from(host.handle(&bytes).await),
            Transport::Tcp { client, plane } => {
                let unreachable = |why: String| PlaneError::Unreachable { plane: plane.clone(), why };
                match client.exchange_within(FrameKind::Control, &bytes, Bytes::new(), within).await {
                    Ok((FrameKind::ControlAnswer, header, _)) => header,
                    Ok((kind, ..)) => {
                        return Err(unreachable(format!("that server does not host it (it sent a {kind:?} frame)")));
                    }
                    Err(error) => return Err(unreachable(error.to_string())),
                }
            }
            Transport::Cluster(cluster) => return Ok(Ok(cluster.call(call).await?)),
        };
        Ok(from_postcard(&answer))
    }

    fn plane(&self) -> String {
        match &self.transport {
            Transport::Local(_) => "this server".into(),
            Transport::Tcp { plane, .. } => plane.clone(),
            Transport::Cluster(cluster) => cluster.name(),
        }
    }

    fn wrong(&self, answer: &Answer) -> PlaneError {
        PlaneError::Corrupt { plane: self.plane(), why: format!("an answer to something else: {answer:?}") }
    }
}

impl ControlPlane for EmbeddedClient {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, PlaneError> {
        match self.apply(Command::Get { key: key.to_owned() }).await? {
            Answer::Document(document) => Ok(document),
            other => Err(self.wrong(&other)),
        }
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        unleased: &[String],
    ) -> Result<CasOutcome, PlaneError> {
        let unleased = unleased.to_vec();
        match self.apply(Command::CompareAndSet { key: key.to_owned(), expected, value, unleased }).await? {
            Answer::Set(outcome) => Ok(outcome),
            other => Err(self.wrong(&other)),
        }
    }

    async fn changed(&self, key: &str, after: Revision) -> Result<Versioned, PlaneError> {
        let call = Call::Watch { key: key.to_owned(), after, wait: self.times.watch };
        loop {
            match self.call(&call, self.times.watch + self.times.answer).await? {
                Answer::Document(document) => {
                    if let Some(news) = newer(key, after, document)? {
                        return Ok(news);
                    }
                }
                other => return Err(self.wrong(&other)),
            }
        }
    }

    async fn acquire(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Acquired, PlaneError> {
        match self.apply(Command::Acquire { name: name.to_owned(), holder, ttl }).await? {
            Answer::Acquired(acquired) => Ok(acquired),
            other => Err(self.wrong(&other)),
        }
    }

    async fn renew(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Renewed, PlaneError> {
        match self.apply(Command::Renew { name: name.to_owned(), holder, ttl }).await? {
            Answer::Renewed(renewed) => Ok(renewed),
            other => Err(self.wrong(&other)),
        }
    }

    async fn release(&self, name: &str, holder: Incarnation) -> Result<(), PlaneError> {
        match self.apply(Command::Release { name: name.to_owned(), holder }).await? {
            Answer::Released => Ok(()),
            other => Err(self.wrong(&other)),
        }
    }

    async fn leases(&self) -> Result<Vec<Lease>, PlaneError> {
        match self.apply(Command::Leases).await? {
            Answer::Leases(leases) => Ok(leases),
            other => Err(self.wrong(&other)),
        }
    }
}
