//! The control plane as the rest of the system sees it: documents that change by compare-and-set, and leases.

use std::{fmt, future::Future, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use star_core::ids::Incarnation;

use crate::{EmbeddedClient, RedisPlane};

/// The longest key of a document and the longest name of a lease, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest value of a document, in bytes: it travels as the header of one frame.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// What people can do about a control plane that lost what it knew.
pub(crate) const WAY_OUT: &str = "nothing is read or written until its latest data are restored: then all goes on by itself; \
     where they are lost, stop all servers, empty it, and start them again: all objects are lost then";

/// Counts the changes of one document: 1, 2, 3 … It never goes backwards. 0 stands for "no such document".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// There is no document yet.
    pub const ABSENT: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A document at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// How often it has changed.
    pub revision: Revision,
    /// What it holds.
    pub value: Bytes,
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CasOutcome {
    /// Done: the document has this revision now.
    Done(Revision),
    /// Not done: the document has another revision than expected. Read it again and think again.
    Conflict,
    /// Not done: this lease is held, or may be (the plane has just started and does not know). Try again later.
    Leased(String),
}

/// What became of an attempt to take a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acquired {
    /// Taken, for the whole time asked for. It counts only after the views were read anew: see [`crate::lease`].
    Held,
    /// Somebody else has it.
    Refused {
        /// Who has it.
        holder: Incarnation,
        /// How long it still runs, unless it is renewed.
        remaining: Duration,
    },
}

/// What became of an attempt to renew a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewed {
    /// It runs for the whole time asked for, and has been held without a gap since it was acquired.
    Held,
    /// It is not held by this holder: it ran out, was released, or is somebody else's. Acquire it again.
    Lost,
}

/// A lease that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// What it is a lease of: for servers, their name.
    pub name: String,
    /// Who has it.
    pub holder: Incarnation,
    /// How long it still runs, unless it is renewed.
    pub remaining: Duration,
}

/// Why the control plane did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaneError {
    /// No answer, or not in time. What was asked may or may not have been done: read again, then try again.
    #[error("the control plane at {plane} gave no answer: {why}; it is tried again until it is back")]
    Unreachable {
        /// Where it should be.
        plane: String,
        /// What happened.
        why: String,
    },
    /// The plane understood and will not do it: mend the request or the configuration.
    #[error("the control plane refused: {0}")]
    Refused(String),
    /// What is stored, or what came back, cannot be read: somebody else writes there, or a newer version.
    #[error("the control plane at {plane} holds something that is not ours: {why}; look at it before going on")]
    Corrupt {
        /// Where it is.
        plane: String,
        /// What is wrong with it.
        why: String,
    },
    /// A document has an older revision than one that was seen before: the plane has lost memory.
    #[error(
        "document {key:?} was at revision {known} and is at {found} now: the control plane lost what it knew; \
         {way_out}",
        way_out = WAY_OUT
    )]
    WentBack {
        /// The document.
        key: String,
        /// The revision that was seen before.
        known: Revision,
        /// The revision it has now; 0 if it is gone.
        found: Revision,
    },
}

impl PlaneError {
    /// Whether the same request may succeed later without anybody mending anything.
    pub fn retry(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// What servers need of a control plane. Every operation is atomic and linearizable; every one may be asked again.
///
/// All waiting is cancel-safe: a dropped future leaves nothing behind, but what it asked for may have been done.
pub trait ControlPlane: Clone + Send + Sync + 'static {
    /// The document under this key; `None` if there never was one.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Versioned>, PlaneError>> + Send;

    /// Sets the document if it is at revision `expected` ([`Revision::ABSENT`]: if there is none) and none of the leases
    /// named by `unleased` is held at that very instant. So a view without a server is never installed while that
    /// server's lease runs.
    fn compare_and_set(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        unleased: &[String],
    ) -> impl Future<Output = Result<CasOutcome, PlaneError>> + Send;

    /// Waits until the document's revision is greater than `after`, and gives the latest one; those between may be
    /// skipped. [`PlaneError::WentBack`] if its revision is smaller than `after`.
    fn changed(&self, key: &str, after: Revision) -> impl Future<Output = Result<Versioned, PlaneError>> + Send;

    /// Takes a lease that nobody holds, or takes the holder's own anew, for `ttl` from now.
    fn acquire(
        &self,
        name: &str,
        holder: Incarnation,
        ttl: Duration,
    ) -> impl Future<Output = Result<Acquired, PlaneError>> + Send;

    /// Makes a lease that this very holder holds now run for `ttl` from now. A lease that ran out is never renewed.
    fn renew(
        &self,
        name: &str,
        holder: Incarnation,
        ttl: Duration,
    ) -> impl Future<Output = Result<Renewed, PlaneError>> + Send;

    /// Ends a lease at once, if this holder has it.
    fn release(&self, name: &str, holder: Incarnation) -> impl Future<Output = Result<(), PlaneError>> + Send;

    /// The leases that are held now, ordered by name.
    fn leases(&self) -> impl Future<Output = Result<Vec<Lease>, PlaneError>> + Send;
}

/// The backends, chosen by configuration.
#[derive(Clone, Debug)]
pub enum Plane {
    /// Hosted by the servers themselves.
    Embedded(EmbeddedClient),
    /// A Redis server.
    Redis(RedisPlane),
}

macro_rules! forward {
    ($self:ident, $plane:ident => $call:expr) => {
        match $self {
            Self::Embedded($plane) => $call.await,
            Self::Redis($plane) => $call.await,
        }
    };
}

impl ControlPlane for Plane {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, PlaneError> {
        forward!(self, plane => plane.get(key))
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        unleased: &[String],
    ) -> Result<CasOutcome, PlaneError> {
        forward!(self, plane => plane.compare_and_set(key, expected, value, unleased))
    }

    async fn changed(&self, key: &str, after: Revision) -> Result<Versioned, PlaneError> {
        forward!(self, plane => plane.changed(key, after))
    }

    async fn acquire(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Acquired, PlaneError> {
        forward!(self, plane => plane.acquire(name, holder, ttl))
    }

    async fn renew(&self, name: &str, holder: Incarnation, ttl: Duration) -> Result<Renewed, PlaneError> {
        forward!(self, plane => plane.renew(name, holder, ttl))
    }

    async fn release(&self, name: &str, holder: Incarnation) -> Result<(), PlaneError> {
        forward!(self, plane => plane.release(name, holder))
    }

    async fn leases(&self) -> Result<Vec<Lease>, PlaneError> {
        forward!(self, plane => plane.leases())
    }
}

/// What both backends demand of a key of a document or a name of a lease; the error is a sentence for people.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, this one has {}: choose another", name.len()));
    }
    Ok(())
}

/// What both backends demand of a value.
pub(crate) fn check_value(value: &[u8]) -> Result<(), String> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("a value has at most {VALUE_BYTES_MAX} bytes, this one has {}", value.len()));
    }
    Ok(())
}

/// What both backends demand of the time of a lease. The upper bound is what they wait after a start without memory.
pub(crate) fn check_ttl(ttl: Duration, ttl_max: Duration) -> Result<(), String> {
    if ttl < Duration::from_millis(1) || ttl > ttl_max {
        return Err(format!(
            "a lease runs for 1ms to {ttl_max:?} here, not {ttl:?}: set the same lease time everywhere"
        ));
    }
    Ok(())
}

/// Whether a watcher that knows `after` has something to hear.
pub(crate) fn newer(key: &str, after: Revision, found: Option<Versioned>) -> Result<Option<Versioned>, PlaneError> {
    let revision = found.as_ref().map_or(Revision::ABSENT, |found| found.revision);
    if revision < after {
        return Err(PlaneError::WentBack { key: key.to_owned(), known: after, found: revision });
    }
    Ok(found.filter(|_| revision > after))
}
