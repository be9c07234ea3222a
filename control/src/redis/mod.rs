//! The control plane on a Redis server: documents are hashes, leases are keys with a time to live, and every operation
//! that must be atomic is one script.
//!
//! ```text
//! {star:CLUSTER}:document:KEY   hash    revision, value
//! {star:CLUSTER}:lease:NAME     string  the holder; runs out by itself
//! {star:CLUSTER}:leases         set     the names of leases that may be held
//! {star:CLUSTER}:changes        channel the key of a document that has changed
//! ```
//!
//! The braces keep all keys of a cluster on one node of a Redis that is spread over several.

mod connection;
mod failure;
mod scripts;
mod url;

use std::{fmt, sync::Arc, time::Duration};

use ::redis::{RedisResult, ScriptInvocation};
use bytes::Bytes;
use star_core::ids::Incarnation;

use self::{
    connection::{Connections, Live},
    failure::failure,
    scripts::Scripts,
};
use crate::{
    ControlPlane,
    plane::{
        Acquired, CasOutcome, Lease, PlaneError, Renewed, Revision, Versioned, check_name, check_ttl, check_value,
        newer,
    },
};

/// Which Redis, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://[[user]:password@]host:port[/database]`, or, where sentinels know which Redis is the primary,
    /// `redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/primary[/database]`.
    pub url: String,
    /// The cluster: many can share a Redis.
    pub cluster: String,
    /// The longest lease; and how long after a start of Redis nobody may be taken out of a view. Default: 10 s.
    pub ttl_max: Duration,
    /// How long an answer may take. Default: 500 ms.
    pub answer: Duration,
    /// How often a watched document is looked at in case a notification was lost. Default: 250 ms.
    pub poll: Duration,
}

impl RedisOptions {
    /// The defaults, for this Redis and this cluster.
    pub fn new(url: impl Into<String>, cluster: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            cluster: cluster.into(),
            ttl_max: Duration::from_secs(10),
            answer: Duration::from_millis(500),
            poll: Duration::from_millis(250),
        }
    }
}

/// The control plane that a Redis server holds. Clones share one connection, which is made when it is first needed and
/// made again whenever it breaks.
#[derive(Clone)]
pub struct RedisPlane(Arc<Shared>);

struct Shared {
    options: RedisOptions,
    prefix: String,
    connections: Connections,
    scripts: Scripts,
}

impl fmt::Debug for RedisPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPlane")
            .field("plane", &self.0.connections.plane)
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}

impl RedisPlane {
    /// A control plane on this Redis; it need not run yet. All calls belong on one tokio runtime.
    pub fn new(options: RedisOptions) -> Result<Self, PlaneError> {
        check_name(&options.cluster).map_err(PlaneError::Refused)?;
        Ok(Self(Arc::new(Shared {
            prefix: format!("{{star:{}}}", options.cluster),
            connections: Connections::new(&options.url, options.answer)?,
            options,
            scripts: Scripts::new(),
        })))
    }

    fn document(&self, key: &str) -> String {
        format!("{}:document:{key}", self.0.prefix)
    }

    fn lease_prefix(&self) -> String {
        format!("{}:lease:", self.0.prefix)
    }

    fn lease(&self, name: &str) -> String {
        format!("{}:lease:{name}", self.0.prefix)
    }

    fn leases_key(&self) -> String {
        format!("{}:leases", self.0.prefix)
    }

    fn channel(&self) -> String {
        format!("{}:changes", self.0.prefix)
    }

    fn life(&self) -> String {
        format!("{}:life", self.0.prefix)
    }

    async fn run<T: ::redis::FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, PlaneError> {
        let live = self.0.connections.live().await?;
        let mut connection = live.manager.clone();
        self.in_time(&live, script.invoke_async(&mut connection)).await
    }

    /// Bounds the whole of a call: the wait for a new connection, the loading of a script, and the answer.
    async fn in_time<T>(&self, live: &Arc<Live>, call: impl Future<Output = RedisResult<T>>) -> Result<T, PlaneError> {
        let (limit, plane) = (self.0.options.answer * 2, &self.0.connections.plane);
        let outcome = match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| failure(plane, &error)),
            Err(_) => {
                Err(PlaneError::Unreachable { plane: plane.clone(), why: format!("it took longer than {limit:?}") })
            }
        };
        if outcome.as_ref().is_err_and(PlaneError::retry) {
            self.0.connections.broken(live).await;
        }
        outcome
    }

    async fn subscribe(&self) -> Result<(), PlaneError> {
        let live = self.0.connections.live().await?;
        let subscribe = || async {
            let mut connection = live.manager.clone();
            self.in_time(&live, connection.subscribe(self.channel())).await
        };
        live.subscribed.get_or_try_init(subscribe).await.copied()
    }

    fn check_ttl(&self, ttl: Duration) -> Result<u64, PlaneError> {
        check_ttl(ttl, self.0.options.ttl_max).map_err(PlaneError::Refused)?;
        Ok(ttl.as_millis() as u64)
    }

    fn corrupt(&self, why: String) -> PlaneError {
        PlaneError::Corrupt { plane: self.0.connections.plane.clone(), why }
    }

    fn holder(&self, text: &str) -> Result<Incarnation, PlaneError> {
        let parsed = text.parse().map(Incarnation);
        parsed.map_err(|_| self.corrupt(format!("the holder of a lease is {text:?}, not a number")))
    }
}

impl ControlPlane for RedisPlane {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, PlaneError> {
        let mut script = self.0.scripts.get.prepare_invoke();
        script.key(self.document(key));
        let found: (Option<u64>, Option<Vec<u8>>) = self.run(&script).await?;
        match found {
            (None, None) => Ok(None),
            (Some(revision), Some(value)) => Ok(Some(Versioned { revision: Revision(revision), value: value.into() })),
            _ => Err(self.corrupt(format!("the hash {:?} lacks its revision or its value", self.document(key)))),
        }
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        unleased: &[String],
    ) -> Result<CasOutcome, PlaneError> {
        check_name(key).and_then(|()| check_value(&value)).map_err(PlaneError::Refused)?;
        let mut script = self.0.scripts.compare_and_set.prepare_invoke();
        script.key(self.document(key)).key(self.life());
        for name in unleased {
            script.key(self.lease(name));
        }
        let ttl_max_ms = self.0.options.ttl_max.as_millis() as u64;
        script.arg(expected.0).arg(value.as_ref()).arg(ttl_max_ms).arg(self.channel()).arg(key);
        let (outcome, number): (String, u64) = self.run(&script).await?;
        match outcome.as_str() {
            "done" => Ok(CasOutcome::Done(Revision(number))),
            "conflict" => Ok(CasOutcome::Conflict),
            _ => match unleased.get((number as usize).wrapping_sub(1)) {
                Some(name) => Ok(CasOutcome::Leased(name.clone())),
                None => Err(self.corrupt(format!("an answer to something else: {outcome} {number}"))),
            },
        }
    }

    async fn changed(&self, key: &str, after: Revision) -> Result<Versioned, PlaneError> {
        // Listening before looking: a change between the two is heard.
        let mut pushes = self.0.connections.pushes();
        loop {
            // Again where the connection is another one.
            self.subscribe().await?;
            pushes.mark_unchanged();
            if let Some(news) = newer(key, after, self.get(key).await?)? {
                return Ok(news);
            }
            // A notification lost with a connection only delays: the next look finds the change.
            let _ = tokio::time::timeout(self.0.options.poll, pushes.changed()).await;
        }
    }

    async fn acquire(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Acquired, PlaneError> {
        check_name(name).map_err(PlaneError::Refused)?;
        let ttl_ms = self.check_ttl(ttl)?;
        let mut script = self.0.scripts.acquire.prepare_invoke();
        script.key(self.lease(name)).key(self.leases_key()).arg(holder.0).arg(ttl_ms).arg(name);
        let (found, remaining_ms): (String, i64) = self.run(&script).await?;
        let found = self.holder(&found)?;
        if found == holder {
            return Ok(Acquired::Held);
        }
        Ok(Acquired::Refused { holder: found, remaining: milliseconds(remaining_ms) })
    }

    async fn renew(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Renewed, PlaneError> {
        let ttl_ms = self.check_ttl(ttl)?;
        let mut script = self.0.scripts.renew.prepare_invoke();
        script.key(self.lease(name)).arg(holder.0).arg(ttl_ms);
        let held: bool = self.run(&script).await?;
        Ok(if held { Renewed::Held } else { Renewed::Lost })
    }

    async fn release(&self, name: &str, holder: Incarnation) -> Result<(), PlaneError> {
        let mut script = self.0.scripts.release.prepare_invoke();
        script.key(self.lease(name)).key(self.leases_key()).arg(holder.0).arg(name);
        self.run::<i64>(&script).await.map(|_| ())
    }

    async fn leases(&self) -> Result<Vec<Lease>, PlaneError> {
        let mut script = self.0.scripts.leases.prepare_invoke();
        script.key(self.leases_key()).arg(self.lease_prefix());
        let found: Vec<(String, String, i64)> = self.run(&script).await?;
        let mut leases = found
            .into_iter()
            .map(|(name, holder, remaining_ms)| {
                let holder = self.holder(&holder)?;
                Ok(Lease { name, holder, remaining: milliseconds(remaining_ms) })
            })
            .collect::<Result<Vec<_>, PlaneError>>()?;
        leases.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(leases)
    }
}

/// Redis answers with a negative number where there is no time to live.
fn milliseconds(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}
