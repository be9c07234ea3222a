//! What one server's protocol can be told to do differently.

use std::time::Duration;

use star_core::ids::{Incarnation, ServerId};

/// How reads are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// Any node answers with the latest committed object; for a dirty key it asks the tail (§2.3). Linearizable.
    #[default]
    Apportioned,
    /// Chain replication proper (§2.2): the tail answers every read, the other nodes pass them on to it. Linearizable.
    Tail,
    /// Any node answers at once with the latest object that it knows to be committed (§2.4, eventual consistency).
    Eventual,
    /// Any node answers at once with the newest object that it has, committed or not, as long as that is not too far
    /// ahead of what is committed; and without a lease for a while, when it may be behind (§2.4, maximum-bounded
    /// inconsistency). Beyond the bounds it reads as [`Reads::Apportioned`].
    Bounded {
        /// An object may be ahead by so many versions of its key.
        versions: u64,
        /// An object may be ahead, or behind, by so much time.
        age: Duration,
    },
}

impl Reads {
    /// Whether reads are answered by the tail alone.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::Tail
    }
}

/// The way of acknowledgements from the tail to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Back along the chain, from each to the one before (§2.3).
    #[default]
    Chain,
    /// From the tail to every node at once (§4.2): fewer hops to the head, more messages of the tail.
    Direct,
}

/// The settings of a [`super::CraqNode`].
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This server.
    pub me: ServerId,
    /// Its name, for people.
    pub name: String,
    /// This life of it; larger than all before.
    pub incarnation: Incarnation,
    /// Stars in the cluster; each is a chain.
    pub stars: u16,
    /// The longest key, in bytes.
    pub key_bytes_max: usize,
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
    /// The most bytes of values that this server holds as origin before they are committed, all stars together.
    pub buffer_bytes_max: u64,
    /// How reads are answered.
    pub reads: Reads,
    /// The way of acknowledgements.
    pub acks: Acks,
    /// Values longer than this go down the chain in pieces of this size, in bytes, each passed on when it comes.
    pub piece_bytes: usize,
    /// Results remembered per star, so that a repeated request takes effect once.
    pub requests_max: usize,
    /// The latest changes of which a server that catches up may ask what they were; with older ones it begins anew.
    pub changes_max: usize,
    /// An answer to a server that catches up holds objects until their bytes are more than this, in bytes.
    pub part_bytes: usize,
    /// The most keys or requests in such an answer.
    pub part_entries: usize,
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
            reads: Reads::default(),
            acks: Acks::default(),
            piece_bytes: 256 << 10,
            requests_max: 1 << 16,
            changes_max: 1 << 16,
            part_bytes: 256 << 10,
            part_entries: 1024,
            repair_after: Duration::from_millis(100),
            bug: None,
        }
    }

    /// Whether this mistake was put in.
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

/// Mistakes that can be planted, each of which a check must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A node acknowledges a write when it has it, not when the tail has it.
    AckBeforeTail,
    /// A read of a dirty key is answered at once with the version before.
    DirtyReadAtOnce,
    /// A node that becomes the tail calls its keys clean without applying what it had pending.
    NewTailKeepsOld,
    /// A node does not send to a new successor what it had sent to the one before.
    NotResentToSuccessor,
    /// A node keeps the pending writes that the new head does not have.
    KeepsOwnPending,
    /// A tail answers questions before it has all that was committed in the views before.
    TailAnswersEarly,
    /// A read is answered without a look at the lease.
    LeaseIgnored,
    /// The head forgets the results of requests, so a repeated request takes effect again.
    RequestIdForgotten,
    /// The head gives the version of the committed object again while a write to the key is under way.
    VersionReused,
    /// A server that catches up does not hear that keys were deleted.
    ResurrectedByCatchUp,
    /// An origin does not send its writes again that the head does not have.
    OwnWritesNotResent,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::AckBeforeTail,
        Self::DirtyReadAtOnce,
        Self::NewTailKeepsOld,
        Self::NotResentToSuccessor,
        Self::KeepsOwnPending,
        Self::TailAnswersEarly,
        Self::LeaseIgnored,
        Self::RequestIdForgotten,
        Self::VersionReused,
        Self::ResurrectedByCatchUp,
        Self::OwnWritesNotResent,
    ];
}
