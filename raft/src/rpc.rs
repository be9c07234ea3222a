//! What members say to one another: postcard inside [`star_control::embedded::Envelope::Member`].

use openraft::{
    error::SnapshotMismatch,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
};
use serde::{Deserialize, Serialize};

use crate::types::{Group, StoreId};

/// A call from one member to another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct MemberCall<G: Group> {
    /// The plane: its name, its members and its longest lease in one number. Those of another plane are refused.
    pub(crate) plane: u64,
    /// Who is meant: a store, not an address. `None` for whoever is there.
    pub(crate) to: Option<StoreId>,
    pub(crate) ask: Ask<G>,
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Ask<G: Group> {
    Probe,
    Vote(VoteRequest<StoreId>),
    Append(AppendEntriesRequest<G>),
    Snapshot(InstallSnapshotRequest<G>),
}

impl<G: Group> Ask<G> {
    /// Who asks, if that matters.
    pub(crate) fn sender(&self) -> Option<StoreId> {
        let vote = match self {
            Self::Probe => return None,
            Self::Vote(vote) => &vote.vote,
            Self::Append(append) => &append.vote,
            Self::Snapshot(part) => &part.vote,
        };
        vote.leader_id.voted_for()
    }
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Probe(Presence),
    Vote(VoteResponse<StoreId>),
    Append(AppendEntriesResponse<StoreId>),
    Snapshot(InstallSnapshotResponse<StoreId>),
    /// The snapshot's parts do not fit together: send it from its beginning.
    Mismatch(SnapshotMismatch),
    /// No, and why.
    Refused(String),
}

/// Who a member is, and what it knows of the plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Presence {
    pub(crate) store: StoreId,
    /// Whether it holds a vote or a log.
    pub(crate) is_founded: bool,
    /// The members as it knows them; empty if it does not.
    pub(crate) members: Vec<StoreId>,
}
