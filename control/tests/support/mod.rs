//! Real backends for the tests: a host in this process, a host behind a socket, and a Redis server.
#![allow(dead_code, reason = "every test takes what it needs")]

mod host;
mod redis_server;
mod tcp_host;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use star_control::{
    CasOutcome, ControlPlane, EmbeddedClient, RedisOptions, RedisPlane, Revision,
    embedded::{ClusterTimes, TcpCarrier},
};

pub(crate) use self::{host::Host, redis_server::RedisServer, tcp_host::TcpHost};

/// The longest lease at every backend here.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(1);

/// A control plane with what it runs on, which ends when this is dropped.
pub(crate) trait Backend {
    type Plane: ControlPlane;

    /// Starts a control plane that knows nothing.
    async fn start() -> Self;

    /// A client of it.
    fn plane(&self) -> Self::Plane;
}

/// A host in this process.
pub(crate) struct Local(Host);

impl Backend for Local {
    type Plane = EmbeddedClient;

    async fn start() -> Self {
        Self(Host::new(TTL_MAX))
    }

    fn plane(&self) -> EmbeddedClient {
        local_plane(&self.0)
    }
}

/// A host behind a socket.
pub(crate) struct Tcp(pub(crate) TcpHost);

impl Backend for Tcp {
    type Plane = EmbeddedClient;

    async fn start() -> Self {
        Self(TcpHost::start(Host::new(TTL_MAX), "127.0.0.1:0").await)
    }

    fn plane(&self) -> EmbeddedClient {
        tcp_plane(self.0.addr())
    }
}

/// A client in the host's process.
pub(crate) fn local_plane(host: &Host) -> EmbeddedClient {
    EmbeddedClient::new(Arc::new(host.clone()), vec!["here".to_owned()], times())
}

/// A client of the host at this address.
pub(crate) fn tcp_plane(addr: &str) -> EmbeddedClient {
    EmbeddedClient::new(Arc::new(TcpCarrier::new(Duration::from_secs(5))), vec![addr.to_owned()], times())
}

fn times() -> ClusterTimes {
    let long = Duration::from_secs(5);
    ClusterTimes { answer: long, attempt: long, ..ClusterTimes::default() }
}

/// A Redis server.
pub(crate) struct Redis(pub(crate) RedisServer);

impl Backend for Redis {
    type Plane = RedisPlane;

    async fn start() -> Self {
        Self(RedisServer::start(None).await)
    }

    fn plane(&self) -> RedisPlane {
        redis_plane(&self.0.url())
    }
}

/// A client of the Redis at this URL that hears of changes by notification: its poll comes too late for any test.
pub(crate) fn redis_plane(url: &str) -> RedisPlane {
    let (answer, poll) = (Duration::from_secs(5), Duration::from_mins(1));
    let options = RedisOptions { ttl_max: TTL_MAX, answer, poll, ..RedisOptions::new(url, "test") };
    RedisPlane::new(options).expect("a good URL")
}

/// Waits until a control plane that has just started lets writes with lease conditions through.
pub(crate) async fn settle<P: ControlPlane>(plane: &P) {
    let unleased = ["nobody".to_owned()];
    while let CasOutcome::Leased(_) =
        plane.compare_and_set("settled", Revision::ABSENT, Bytes::new(), &unleased).await.expect("an outcome")
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
