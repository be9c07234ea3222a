//! The machine as the library drives it: entries in, snapshots out.

use std::{
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, StoredMembership, TokioRuntime,
    storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::machine::{Batch, Machine, Outcome};
use crate::{
    store::{Disk, Kept, Latest, decoded, encoded, keep, sent},
    types::{Entry, Group, LogId, Membership, Site, SnapshotMeta, StorageError, StoreId},
};

openraft::declare_raft_types!(
    /// The group that replicates objects.
    pub(crate) Objects:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = StoreId,
        Node = Site,
        Entry = openraft::Entry<Objects>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = TokioRuntime,
);

impl Group for Objects {
    const NAME: &'static str = "key-value store";
    const FILE: &'static str = "objects.redb";
    const DISK_THREAD: &'static str = "raft-disk";
    const GOES_AHEAD: bool = false;
}

/// What a snapshot holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Content {
    applied: Option<LogId>,
    membership: Membership,
    machine: Machine,
}

/// A snapshot is due after so many entries, or so many bytes of them: the log is in memory. Where the machine holds more than
/// that, after as many as it holds: a snapshot writes all of it down.
const SNAPSHOT_ENTRIES: u64 = 10_000;
const SNAPSHOT_BYTES: u64 = 64 << 20;

/// The machine at one server. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SharedMachine {
    content: Arc<Mutex<Content>>,
    /// Entries and bytes that were applied since a snapshot was asked for.
    grown: Arc<Mutex<(u64, u64)>>,
    snapshot_due: Arc<Notify>,
}

impl SharedMachine {
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        let membership = StoredMembership::default();
        let content = Content { applied: None, membership, machine: Machine::new(capacity_bytes) };
        Self { content: Arc::new(Mutex::new(content)), grown: Arc::default(), snapshot_due: Arc::default() }
    }

    /// Looks at the machine.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.content().machine)
    }

    /// The last entry that was applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.content().applied
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the log is so long that a snapshot should take the place of its beginning.
    pub(crate) async fn snapshot_due(&self) {
        self.snapshot_due.notified().await;
    }

    /// So much was applied, and the machine holds `held` objects and bytes of them.
    fn grow(&self, (entries, bytes): (u64, u64), held: (u64, u64)) {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        *grown = (grown.0 + entries, grown.1 + bytes);
        if grown.0 >= SNAPSHOT_ENTRIES.max(held.0) || grown.1 >= SNAPSHOT_BYTES.max(held.1) {
            *grown = (0, 0);
            self.snapshot_due.notify_one();
        }
    }
}

/// The state machine.
pub(crate) struct State {
    machine: SharedMachine,
    disk: Disk<Objects>,
    latest: Latest,
}

impl State {
    /// The state machine that starts as this snapshot.
    pub(crate) fn new(machine: SharedMachine, disk: Disk<Objects>, snapshot: Option<Kept>) -> Result<Self, String> {
        if let Some((_, content)) = &snapshot {
            *machine.content() = decoded(content)?;
        }
        Ok(Self { machine, disk, latest: Latest::new(snapshot) })
    }
}

/// Takes a snapshot of the machine as it was when this was made.
pub(crate) struct Builder {
    content: Content,
    meta: SnapshotMeta,
    disk: Disk<Objects>,
    latest: Latest,
}

impl RaftSnapshotBuilder<Objects> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Objects>, StorageError> {
        let kept = (self.meta.clone(), Bytes::from(encoded(&self.content)));
        keep(&self.disk, &self.latest, kept.clone()).await?;
        Ok(sent(kept))
    }
}

impl RaftStateMachine<Objects> for State {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let content = self.machine.content();
        Ok((content.applied, content.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, StorageError>
    where
        I: IntoIterator<Item = Entry<Objects>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut content = self.machine.content();
        let (mut grown, mut bytes) = (0, 0);
        let apply = |entry: Entry<Objects>| {
            content.applied = Some(entry.log_id);
            grown += 1;
            match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(batch) => {
                    bytes += batch.bytes();
                    content.machine.apply(batch)
                }
                EntryPayload::Membership(membership) => {
                    content.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Vec::new()
                }
            }
        };
        let outcomes = entries.into_iter().map(apply).collect();
        let held = content.machine.held();
        drop(content);
        self.machine.grow((grown, bytes), held);
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let content = self.machine.content().clone();
        let meta = SnapshotMeta {
            last_log_id: content.applied,
            last_membership: content.membership.clone(),
            snapshot_id: content.applied.map_or_else(|| "empty".to_owned(), |applied| applied.to_string()),
        };
        Builder { content, meta, disk: self.disk.clone(), latest: self.latest.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let unusable = |why: String| StorageIOError::read_snapshot(Some(meta.signature()), &std::io::Error::other(why));
        let bytes = Bytes::from(snapshot.into_inner());
        let content: Content = decoded(&bytes).map_err(unusable)?;
        keep(&self.disk, &self.latest, (meta.clone(), bytes)).await?;
        *self.machine.content() = content;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Objects>>, StorageError> {
        Ok(self.latest.sent())
    }
}
