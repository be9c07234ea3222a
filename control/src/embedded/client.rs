//! The client of an embedded control plane: the operations of [`ControlPlane`] as calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use star_core::ids::Incarnation;

use super::{Call, Carrier, ClusterTimes, cluster::Cluster};
use crate::{
    ControlPlane,
    machine::{Answer, Command},
    plane::{Acquired, CasOutcome, Lease, PlaneError, Renewed, Revision, Versioned, newer},
};

/// The control plane that servers keep together. Clones share its connections.
#[derive(Clone, Debug)]
pub struct EmbeddedClient(Arc<Cluster>);

impl EmbeddedClient {
    /// A client of the plane that the members at these addresses (`host:port`) keep together, reached through `carrier`.
    /// It finds the one that leads by itself.
    pub fn new(carrier: Arc<dyn Carrier>, members: Vec<String>, times: ClusterTimes) -> Self {
        Self(Arc::new(Cluster::new(carrier, members, times)))
    }

    async fn apply(&self, command: Command) -> Result<Answer, PlaneError> {
        self.call(&Call::Apply(command)).await
    }

    async fn call(&self, call: &Call) -> Result<Answer, PlaneError> {
        match self.0.call(call).await? {
            Answer::Refused(why) => Err(PlaneError::Refused(why)),
            Answer::Busy => Err(PlaneError::Unreachable { plane: self.0.name(), why: "it is too busy".into() }),
            answer => Ok(answer),
        }
    }

    fn wrong(&self, answer: &Answer) -> PlaneError {
        PlaneError::Corrupt { plane: self.0.name(), why: format!("an answer to something else: {answer:?}") }
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
        let call = Call::Watch { key: key.to_owned(), after, wait: self.0.watch() };
        loop {
            match self.call(&call).await? {
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
