//! The servers of a cluster, by name.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::JoinSet;

use super::{ClientOptions, NetworkError, TcpClient};
use crate::message::{Request, Response};

/// Sends requests to servers by name, whatever their addresses. Cheap to clone; clones share connections and links.
#[derive(Clone, Debug)]
pub struct ConnectionStub {
    links: Arc<BTreeMap<String, Link>>,
}

#[derive(Debug)]
struct Link {
    client: TcpClient,
    failed: AtomicBool,
}

impl ConnectionStub {
    /// A stub for these servers, as pairs of name and address (`host:port`). Connects when first used, or in
    /// [`ConnectionStub::initiate_connections`].
    pub fn new(servers: impl IntoIterator<Item = (String, String)>, options: &ClientOptions) -> Self {
        let links = servers.into_iter().map(|(name, addr)| {
            let client = TcpClient::new(addr, options.clone());
            (name, Link { client, failed: AtomicBool::new(false) })
        });
        Self { links: Arc::new(links.collect()) }
    }

    /// The names of the servers, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.keys().map(String::as_str)
    }

    /// Sends a request to a server and waits for its answer.
    pub async fn send(&self, name: &str, request: &Request) -> Result<Response, NetworkError> {
        self.link(name)?.working(name)?.call(request).await
    }

    /// Sends a request to all servers at the same time, and waits until each has answered or failed.
    pub async fn broadcast(&self, request: &Request) -> BTreeMap<String, Result<Response, NetworkError>> {
        self.with_each(|client| {
            let request = request.clone();
            async move { client.call(&request).await }
        })
        .await
    }

    /// Connects to all servers; the error names each one that could not be reached. To be called while a cluster
    /// forms, before anything is sent.
    pub async fn initiate_connections(&self) -> Result<(), NetworkError> {
        let outcomes = self.with_each(|client| async move { client.connect().await }).await;
        let servers = outcomes.len();
        let failed: Vec<_> = outcomes.into_iter().filter_map(|(name, outcome)| Some((name, outcome.err()?))).collect();
        if failed.is_empty() { Ok(()) } else { Err(NetworkError::NotConnected { servers, failed }) }
    }

    /// Switches the link to a server off, as if its cable were cut: requests under way fail, new ones at once.
    pub fn fail_link(&self, name: &str) -> Result<(), NetworkError> {
        let link = self.link(name)?;
        link.failed.store(true, Ordering::SeqCst);
        link.client.disconnect(&NetworkError::LinkFailed { name: name.to_owned() });
        Ok(())
    }

    /// Switches the link to a server on again.
    pub fn fix_link(&self, name: &str) -> Result<(), NetworkError> {
        self.link(name)?.failed.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn link(&self, name: &str) -> Result<&Link, NetworkError> {
        self.links.get(name).ok_or_else(|| {
            let known = self.names().collect::<Vec<_>>().join(", ");
            NetworkError::UnknownServer { name: name.to_owned(), known }
        })
    }

    async fn with_each<T, F, Fut>(&self, act: F) -> BTreeMap<String, Result<T, NetworkError>>
    where
        T: Send + 'static,
        F: Fn(TcpClient) -> Fut,
        Fut: Future<Output = Result<T, NetworkError>> + Send + 'static,
    {
        let mut outcomes = BTreeMap::new();
        let mut tasks = JoinSet::new();
        for (name, link) in self.links.iter() {
            match link.working(name) {
                Ok(client) => {
                    let (name, act) = (name.clone(), act(client.clone()));
                    tasks.spawn(async move { (name, act.await) });
                }
                Err(error) => {
                    outcomes.insert(name.clone(), Err(error));
                }
            }
        }
        outcomes.extend(tasks.join_all().await);
        outcomes
    }
}

impl Link {
    fn working(&self, name: &str) -> Result<&TcpClient, NetworkError> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(NetworkError::LinkFailed { name: name.to_owned() });
        }
        Ok(&self.client)
    }
}
