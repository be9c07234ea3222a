//! A member's seat in its group: what the other members hear from it, and who it is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use openraft::error::{InstallSnapshotError, RaftError};
use star_core::message::from_postcard;

use crate::{
    links::Links,
    rpc::{Ask, MemberCall, Presence, Told},
    store::Log,
    types::{Group, Raft, Site, StoreId, place_of},
};

/// What is needed to answer other members.
pub(crate) struct Seat<G: Group> {
    pub(crate) raft: Raft<G>,
    pub(crate) log: Arc<Mutex<Log<G>>>,
    pub(crate) store: StoreId,
    /// The group in one number; calls of others are refused.
    pub(crate) plane: u64,
    /// Which links are broken on purpose.
    pub(crate) links: Links,
}

impl<G: Group> Seat<G> {
    /// Whether this member has ever voted or taken an entry.
    pub(crate) fn is_founded(&self) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).is_founded()
    }

    /// Who this member is, and what it knows of the plane.
    pub(crate) fn presence(&self) -> Presence {
        let metrics = self.raft.server_metrics();
        let members = metrics.borrow().membership_config.membership().voter_ids().collect();
        Presence { store: self.store, is_founded: self.is_founded(), members }
    }

    /// Founds the plane.
    pub(crate) async fn initialize(&self, sites: BTreeMap<StoreId, Site>) -> Result<(), String> {
        self.raft.initialize(sites).await.map_err(|error| error.to_string())
    }

    /// Answers another member's call, an encoded [`MemberCall`].
    pub(crate) async fn answer(&self, call: &[u8]) -> Told {
        let MemberCall::<G> { plane, to, ask } = match from_postcard(call) {
            Ok(call) => call,
            Err(why) => return Told::Refused(format!("this is no call of a member: {why}")),
        };
        if plane != self.plane {
            return Told::Refused("this member belongs to another plane, or is configured otherwise".into());
        }
        if to.is_some_and(|to| to != self.store) {
            return Told::Refused("this member has lost the store that is meant".into());
        }
        if ask.sender().is_some_and(|sender| self.links.is_cut(place_of(sender))) {
            return Told::Refused("the link is cut".into());
        }
        match ask {
            Ask::Probe => Told::Probe(self.presence()),
            Ask::Vote(vote) => self.raft.vote(vote).await.map_or_else(refused, Told::Vote),
            Ask::Append(append) => self.raft.append_entries(append).await.map_or_else(refused, Told::Append),
            Ask::Snapshot(part) => match self.raft.install_snapshot(part).await {
                Ok(response) => Told::Snapshot(response),
                Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => Told::Mismatch(mismatch),
                Err(error) => refused(error),
            },
        }
    }
}

fn refused(error: impl std::fmt::Display) -> Told {
    Told::Refused(error.to_string())
}
