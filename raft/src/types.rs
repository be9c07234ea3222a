//! What Raft is told about this plane.

use std::{fmt, io::Cursor};

use openraft::{LeaderId, RaftTypeConfig, TokioRuntime};
use serde::{Deserialize, Serialize};
use star_control::machine::{Answer, Command};
use star_core::Time;

/// What a group of members replicates: the plane, or the objects of [`crate::kv`]. Disk, network and founding are the
/// same for both.
pub(crate) trait Group:
    RaftTypeConfig<
        D: Clone + fmt::Debug,
        NodeId = StoreId,
        Node = Site,
        Entry = openraft::Entry<Self>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = TokioRuntime,
    >
{
    /// What it is called in messages.
    const NAME: &'static str;
    /// The file in a member's directory.
    const FILE: &'static str;
    /// The thread that writes it.
    const DISK_THREAD: &'static str;
    /// Whether Raft goes on before an entry is on disk; who says that it is safe waits for that then ([`crate::seat`]).
    const GOES_AHEAD: bool;
}

impl Group for Types {
    const NAME: &'static str = "control plane";
    const FILE: &'static str = "control.redb";
    const DISK_THREAD: &'static str = "control-disk";
    const GOES_AHEAD: bool = true;
}

/// Names a member by its store, drawn at random when that was made: a member that lost its store is another one, and can
/// neither vote nor ack in the name of the old one.
///
/// It begins with the member's place in the configuration. Members ask for votes in that order, and of two that ask in the
/// same term Raft prefers the greater one: so whoever asks later, because the first had too short a log, is not held up by
/// the vote that the first gave itself.
pub(crate) type StoreId = u64;

/// The number of a new store of the member at this place.
pub(crate) fn store_id(place: usize, random: u64) -> StoreId {
    (place as u64) << 56 | random >> 8
}

/// The place in the configuration of the member that has this store.
pub(crate) fn place_of(store: StoreId) -> usize {
    (store >> 56) as usize
}

/// Who leads, and in which term: everything in the log was appended under one reign.
pub(crate) type Reign = LeaderId<StoreId>;

pub(crate) type LogId = openraft::LogId<StoreId>;
pub(crate) type Entry<G = Types> = openraft::Entry<G>;
pub(crate) type Vote = openraft::Vote<StoreId>;
pub(crate) type Membership = openraft::StoredMembership<StoreId, Site>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<StoreId, Site>;
pub(crate) type StorageError = openraft::StorageError<StoreId>;
pub(crate) type Raft<G = Types> = openraft::Raft<G>;

openraft::declare_raft_types!(
    /// The types of this plane.
    pub(crate) Types:
        D = Proposal,
        R = Option<Answer>,
        NodeId = StoreId,
        Node = Site,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// Where a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    /// `host:port`.
    pub(crate) addr: String,
}

/// What the log holds: a command and when it was proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) stamp: Stamp,
    pub(crate) command: Command,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.command, self.stamp.at)
    }
}

/// A reading of the plane's time by the member that proposes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// The reign of the last entry that the member had applied. The reading counts under that reign alone.
    pub(crate) reign: Option<Reign>,
    pub(crate) at: Time,
}
