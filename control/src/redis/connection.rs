//! The one connection to Redis: where it goes, and that it is made again whenever it breaks.
//!
//! To a Redis whose address is known the connection manager of the crate connects again by itself. Where sentinels say
//! which Redis is the primary, they are asked again for every new connection, because it may be another one then.

use std::{fmt::Display, sync::Arc, time::Duration};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection, SendError},
};
use tokio::{
    sync::{Mutex, OnceCell, watch},
    task::JoinSet,
};

use super::{failure::failure, url::RedisUrl};
use crate::plane::PlaneError;

pub(super) struct Connections {
    /// Where Redis is, without the password, for people.
    pub(super) plane: String,
    source: Source,
    /// How long an answer, or making a connection, may take.
    answer: Duration,
    /// Touched when Redis says that a document has changed, and when the connection breaks.
    pushes: watch::Sender<()>,
    live: Mutex<Option<Arc<Live>>>,
}

enum Source {
    Fixed(Box<Client>),
    Sentinels { addrs: Vec<ConnectionAddr>, primary: String, settings: RedisConnectionInfo },
}

/// A connection that may be in use.
pub(super) struct Live {
    pub(super) manager: ConnectionManager,
    pub(super) subscribed: OnceCell<()>,
}

impl Connections {
    pub(super) fn new(url: &str, answer: Duration) -> Result<Self, PlaneError> {
        let refused = |why: &dyn Display| {
            let forms = "redis://host:port or redis+sentinel://host:port,host:port/primary";
            PlaneError::Refused(format!("the URL of Redis is wrong: {why}; write {forms}"))
        };
        let url = RedisUrl::parse(url).map_err(|why| refused(&why))?;
        let plane = url.to_string();
        // Notifications arrive among the answers of the one connection; that needs the third version of the protocol.
        let source = match url {
            RedisUrl::Server(info) => {
                let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
                let client = Client::open(info.set_redis_settings(settings));
                Source::Fixed(Box::new(client.map_err(|error| failure(&plane, &error))?))
            }
            RedisUrl::Sentinels { addrs, primary, settings } => {
                Source::Sentinels { addrs, primary, settings: settings.set_protocol(ProtocolVersion::RESP3) }
            }
        };
        Ok(Self { plane, source, answer, pushes: watch::Sender::new(()), live: Mutex::default() })
    }

    /// Hears of every change, and of much else.
    pub(super) fn pushes(&self) -> watch::Receiver<()> {
        self.pushes.subscribe()
    }

    /// The connection; made here and not earlier, because it lives on the runtime that makes it.
    pub(super) async fn live(&self) -> Result<Arc<Live>, PlaneError> {
        let mut live = self.live.lock().await;
        if let Some(live) = &*live {
            return Ok(Arc::clone(live));
        }
        let client = match &self.source {
            Source::Fixed(client) => Client::clone(client),
            Source::Sentinels { addrs, primary, settings } => self.find(addrs, primary, settings).await?,
        };
        let touched = self.pushes.clone();
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(self.answer))
            .set_response_timeout(Some(self.answer))
            .set_min_delay(Duration::from_millis(20))
            .set_number_of_retries(1)
            .set_automatic_resubscription()
            .set_push_sender(move |_: PushInfo| {
                touched.send_replace(());
                Ok::<(), SendError>(())
            });
        let manager = client.get_connection_manager_lazy(config).map_err(|error| failure(&self.plane, &error))?;
        let made = Arc::new(Live { manager, subscribed: OnceCell::new() });
        *live = Some(Arc::clone(&made));
        Ok(made)
    }

    /// A call gave no answer that counts: where sentinels are there to be asked, the next one goes where they say.
    pub(super) async fn broken(&self, broken: &Arc<Live>) {
        if matches!(self.source, Source::Sentinels { .. }) {
            let mut live = self.live.lock().await;
            if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, broken)) {
                *live = None;
                self.pushes.send_replace(());
            }
        }
    }

    /// Asks all sentinels at once. The first one counts that names a Redis which says itself that it is a primary.
    async fn find(
        &self,
        addrs: &[ConnectionAddr],
        primary: &str,
        settings: &RedisConnectionInfo,
    ) -> Result<Client, PlaneError> {
        let mut asked = JoinSet::new();
        for addr in addrs {
            let (addr, primary, settings) = (addr.clone(), primary.to_owned(), settings.clone());
            let limit = self.answer;
            asked.spawn(async move {
                let found = tokio::time::timeout(limit, named_by(&addr, &primary, settings)).await;
                found
                    .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
                    .map_err(|why| format!("{addr}: {why}"))
            });
        }
        let mut reasons = Vec::new();
        while let Some(found) = asked.join_next().await {
            match found {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(why)) => reasons.push(why),
                Err(why) => reasons.push(why.to_string()),
            }
        }
        reasons.sort();
        let why = format!("no sentinel names a primary that can be used: {}", reasons.join("; "));
        Err(PlaneError::Unreachable { plane: self.plane.clone(), why })
    }
}

/// The primary that this sentinel names, if it is one; the error is a sentence for people.
async fn named_by(sentinel: &ConnectionAddr, primary: &str, settings: RedisConnectionInfo) -> Result<Client, String> {
    let said = |error: redis::RedisError| error.to_string();
    let sentinel = sentinel.clone().into_connection_info().map_err(said)?;
    let (_, mut connection) = connect(sentinel).await.map_err(said)?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("get-master-addr-by-name").arg(primary);
    let named: Option<(String, u16)> = ask.query_async(&mut connection).await.map_err(said)?;
    let (host, port) = named.ok_or_else(|| format!("it watches no primary called {primary:?}"))?;
    let at = ConnectionAddr::Tcp(host, port);
    let info = at.clone().into_connection_info().map_err(said)?.set_redis_settings(settings);
    let (client, mut connection) = connect(info).await.map_err(|error| format!("names {at}: {error}"))?;
    let role: Vec<redis::Value> =
        redis::cmd("ROLE").query_async(&mut connection).await.map_err(|error| format!("names {at}: {error}"))?;
    let role: String =
        role.first().map_or(Ok(String::new()), redis::from_redis_value_ref).map_err(|e| e.to_string())?;
    if role == "master" { Ok(client) } else { Err(format!("names {at}, which is a {role}")) }
}

async fn connect(info: ConnectionInfo) -> RedisResult<(Client, MultiplexedConnection)> {
    let client = Client::open(info)?;
    let connection = client.get_multiplexed_async_connection().await?;
    Ok((client, connection))
}
