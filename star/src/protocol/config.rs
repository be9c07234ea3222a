//! What one server's protocol can be told to do differently.

use std::time::Duration;

pub use star_core::config::{DirtyReads, Route};
use star_core::ids::{Incarnation, ServerId};

/// The settings of a [`super::StarNode`].
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This server.
    pub me: ServerId,
    /// Its name, for people.
    pub name: String,
    /// This life of it; larger than all before.
    pub incarnation: Incarnation,
    /// Stars in the cluster.
    pub stars: u16,
    /// The longest key, in bytes.
    pub key_bytes_max: usize,
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
    /// The most bytes of values that this server holds as origin before they are committed, all stars together.
    pub buffer_bytes_max: u64,
    /// How values reach the members.
    pub route: Route,
    /// From which size on [`Route::Auto`] takes the chain, in bytes.
    pub chain_from_bytes: usize,
    /// Values longer than this travel in pieces of this size, in bytes.
    pub piece_bytes: usize,
    /// How [`Route::Auto`] finds slow links.
    pub link_watch: LinkWatch,
    /// What a read of a dirty key does.
    pub dirty_reads: DirtyReads,
    /// Per star: results remembered of typed clients, as many of requests with a text, so that a repeated request takes
    /// effect once; and keys known as changed lately.
    pub sessions_max: usize,
    /// How long results of requests with a text are remembered at most.
    pub session_age_max: Duration,
    /// An answer to a server that catches up holds objects until their bytes are more than this, in bytes.
    pub part_bytes: usize,
    /// The most keys or requests in such an answer.
    pub part_entries: usize,
    /// How many bytes of values a second a server takes over at most of stars that it comes into, all together; 0 for no limit.
    pub copy_bytes_per_second: u64,
    /// How long nothing must have moved before a server says again what may have been lost.
    pub repair_after: Duration,
    /// A mistake put in on purpose, to see that the checks find it. Never set outside of tests.
    pub bug: Option<Bug>,
}

impl NodeConfig {
    /// The defaults for this server.
    pub fn new(me: ServerId, name: impl Into<String>, incarnation: Incarnation, stars: u16) -> Self {
        Self {
            me,
            name: name.into(),
            incarnation,
            stars,
            key_bytes_max: 1 << 10,
            value_bytes_max: 64 << 20,
            buffer_bytes_max: 256 << 20,
            route: Route::Auto,
            chain_from_bytes: 256 << 10,
            piece_bytes: 256 << 10,
            link_watch: LinkWatch::default(),
            dirty_reads: DirtyReads::Wait,
            sessions_max: 1 << 16,
            session_age_max: Duration::from_secs(300),
            part_bytes: 256 << 10,
            part_entries: 1024,
            copy_bytes_per_second: 128 << 20,
            repair_after: Duration::from_millis(100),
            bug: None,
        }
    }

    /// Whether this mistake was put in.
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

/// When a link counts as slow, and for how long (see `sounding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkWatch {
    /// Links are sounded while at least so many bytes of values are under way at a server: with less nobody waits for a link.
    pub from_bytes: u64,
    /// How often.
    pub every: Duration,
    /// By how much what comes over two links must be there before what comes over one.
    pub late_by: Duration,
    /// How many soundings must have been late, beyond those that were in time.
    pub late_times: u32,
    /// For how long values go around a slow link, before it is tried again; longer each time that it is slow still.
    pub avoided_for: Duration,
}

impl Default for LinkWatch {
    /// Slow enough that a short stall, of a link or of a server's thread, changes nothing.
    fn default() -> Self {
        Self {
            from_bytes: 64 << 10,
            every: Duration::from_millis(100),
            late_by: Duration::from_millis(10),
            late_times: 4,
            avoided_for: Duration::from_secs(30),
        }
    }
}

/// Mistakes that can be planted, each of which a check must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A member acks a write before it marks the key dirty: a reader there can still see the value before.
    AckBeforeDirty,
    /// A read of a dirty key is answered at once with the value before.
    DirtyReadAtOnce,
    /// The leader gives the version of the committed object again while a write to the key is under way.
    VersionReused,
    /// The leader forgets the results of requests, so a repeated request takes effect again.
    RequestIdForgotten,
    /// Acks of older epochs are counted.
    EpochMissingFromAcks,
    /// A write is applied and answered when a majority, not every member, has it.
    MajorityCommits,
    /// A member installs the leader's stamps but keeps its own after `from` as well.
    InstallKeepsOwnStamps,
    /// A read is answered without a look at the lease.
    LeaseIgnored,
    /// A learner calls itself exact after the first part of what it lacks.
    EarlyPromotion,
    /// A joining member asks to serve as soon as it has installed its view, wherever the base is.
    BaseIgnored,
    /// A joining member answers reads.
    JoiningServesReads,
    /// A server that catches up does not hear that keys were deleted.
    ResurrectedByCatchUp,
    /// INSTALL of an older epoch, from whoever led it, is taken for that of this one.
    StaleInstallAccepted,
    /// The results of requests are forgotten when a new view comes.
    SessionsLostAtTakeover,
    /// An origin does not send its writes again that the leader has not stamped.
    OwnWritesNotResent,
    /// A write without a stamp is kept at a takeover although its origin is not a member any more.
    UnstampedKeptOfDeadOrigin,
    /// A deleted key that comes back begins with version 1 again.
    VersionFloorForgotten,
    /// A request that its client may not send again any more, or whose client is forgotten, is done as a new one.
    FloorIgnored,
    /// A server that catches up is not told the results of typed clients.
    SessionsLostAtCatchUp,
    /// What is dropped at a takeover is remembered as done.
    DroppedRemembered,
    /// A server that catches up keeps what it holds of a key from an earlier time, whatever its version.
    KeptUncompared,
    /// A server that catches up keeps the objects of keys that were deleted while it was away.
    KeptThoughDeleted,
    /// A server keeps the objects that it holds when a star is founded anew.
    FoundingKeepsObjects,
    /// How far a server is ready is noted a turn after its ack has left.
    ReadyNotedLate,
    /// A new epoch is noted a turn after the first acks in it have left.
    EpochNotedLate,
    /// A store that is being filled from another server is noted as one that holds everything that the other has.
    WholeIgnored,
    /// A star that goes on with what is in a store takes every request for a new one.
    ResumedSessionsNew,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::AckBeforeDirty,
        Self::DirtyReadAtOnce,
        Self::VersionReused,
        Self::RequestIdForgotten,
        Self::EpochMissingFromAcks,
        Self::MajorityCommits,
        Self::InstallKeepsOwnStamps,
        Self::LeaseIgnored,
        Self::EarlyPromotion,
        Self::BaseIgnored,
        Self::JoiningServesReads,
        Self::ResurrectedByCatchUp,
        Self::StaleInstallAccepted,
        Self::SessionsLostAtTakeover,
        Self::OwnWritesNotResent,
        Self::UnstampedKeptOfDeadOrigin,
        Self::VersionFloorForgotten,
        Self::FloorIgnored,
        Self::SessionsLostAtCatchUp,
        Self::DroppedRemembered,
        Self::KeptUncompared,
        Self::KeptThoughDeleted,
        Self::FoundingKeepsObjects,
        Self::ReadyNotedLate,
        Self::EpochNotedLate,
        Self::WholeIgnored,
        Self::ResumedSessionsNew,
    ];
}
