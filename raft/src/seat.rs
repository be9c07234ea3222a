//! A member's seat in its group: what the other members hear from it, and who it is.
//!
//! Where Raft goes ahead of the disk ([`Group::GOES_AHEAD`]), the word of this member is kept here until the disk has caught
//! up: that it holds entries ([`Seat::answer`]), and that what it says is decided ([`Seat::on_most_disks`]). The third place is the
//! network, which tells no other member that something is committed that is not on disk here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    error::{InstallSnapshotError, RaftError},
    raft::AppendEntriesResponse,
};
use star_core::message::from_postcard;
use tokio::time::timeout;

use crate::{
    links::Links,
    rpc::{Ask, MemberCall, Presence, Told},
    store::{Durable, Log},
    types::{Group, LogId, Raft, Reign, Site, StoreId, place_of},
};

/// What is needed to answer other members.
pub(crate) struct Seat<G: Group> {
    pub(crate) raft: Raft<G>,
    pub(crate) log: Arc<Mutex<Log<G>>>,
    pub(crate) durable: Durable,
    /// How long a leader that sends entries waits for the disk; then it hears how far that is. Well within a heartbeat, the
    /// time after which the leader takes its call for lost.
    pub(crate) patience: Duration,
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
            Ask::Append(append) => {
                let (prev, leader) = (append.prev_log_id, append.vote.leader_id);
                let last = append.entries.last().map(|entry| entry.log_id).or(prev);
                match self.raft.append_entries(append).await {
                    Ok(AppendEntriesResponse::Success) => self.holds(leader, prev, last).await,
                    Ok(response) => Told::Append(response),
                    Err(error) => refused(error),
                }
            }
            Ask::Snapshot(part) => match self.raft.install_snapshot(part).await {
                Ok(response) => Told::Snapshot(response),
                Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => Told::Mismatch(mismatch),
                Err(error) => refused(error),
            },
        }
    }

    /// What a leader hears whose entries after `prev`, up to `last`, are in the log here: how far they are on disk. A disk that
    /// is slower than the patience so holds up no heartbeats, and the leader goes on where the disk is.
    async fn holds(&self, leader: Reign, prev: Option<LogId>, last: Option<LogId>) -> Told {
        let (mut durable, before) = (self.durable.clone(), self.durable.upto());
        let more = async {
            while durable.upto() < last && durable.upto() == before && durable.failed().is_none() {
                durable.changed().await;
            }
        };
        let _ = timeout(self.patience, more).await;
        // Another leader may have put other entries there meanwhile, of which this one knows nothing.
        let follows = self.log.lock().unwrap_or_else(PoisonError::into_inner).vote.map(|vote| vote.leader_id);
        if follows != Some(leader) {
            return Told::Refused("this member follows another leader by now".into());
        }
        match self.durable.upto() {
            upto if upto >= last => Told::Append(AppendEntriesResponse::Success),
            // That nothing at all is there is no part of anything, and the library takes it for a mistake.
            upto if upto.is_some() && upto >= prev => Told::Append(AppendEntriesResponse::PartialSuccess(upto)),
            _ => Told::Refused("the disk is behind, so nothing can be promised".into()),
        }
    }

    /// Waits until the entry of this index, which the library takes for committed here, is on the disks of a majority. Only
    /// then may anybody be told what follows from it.
    pub(crate) async fn on_most_disks(&self, index: u64) -> Result<(), String> {
        let (mut durable, mut progress) = (self.durable.clone(), self.raft.data_metrics());
        loop {
            let others = progress.borrow_and_update().replication.clone().unwrap_or_default();
            if is_on_most_disks(index, durable.upto(), self.store, &others) {
                return Ok(());
            }
            if let Some(why) = durable.failed() {
                return Err(why.to_string());
            }
            tokio::select! {
                () = durable.changed() => {}
                changed = progress.changed() => changed.map_err(|_| "this member has stopped".to_owned())?,
            }
        }
    }
}

/// Whether the entry of this index is on disk at most members: at `me`, the leader, up to `own`, and at the others as far
/// as they have said. This member's own disk does not have to be one of them; it may be the slowest.
fn is_on_most_disks(index: u64, own: Option<LogId>, me: StoreId, matched: &BTreeMap<StoreId, Option<LogId>>) -> bool {
    let has = |upto: Option<LogId>| upto.is_some_and(|upto| upto.index >= index);
    // Where this member does not lead any more, its own disk is what it knows of.
    let others = matched.iter().filter(|(store, upto)| **store != me && has(**upto)).count();
    let members = matched.len().max(1);
    // What is on the disk of the leader and committed is on most disks: the library counts the others rightly.
    has(own) || others > members / 2
}

fn refused(error: impl std::fmt::Display) -> Told {
    Told::Refused(error.to_string())
}
