//! The replica as `openraft` uses it: in memory, with snapshots on disk. After a start it is the latest snapshot, and
//! what the log holds beyond it is applied again once the leader says how far it is committed.

use std::{
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError, storage::RaftStateMachine};
use star_control::{CasOutcome, machine::Answer};
use star_core::Clock;
use tokio::sync::watch;

use super::{
    Kept, decoded,
    disk::{Change, Disk},
    encoded,
};
use crate::{
    replica::{Content, Replica},
    types::{Entry, Group, LogId, Membership, SnapshotMeta, StorageError, StoreId, Types},
};

/// The replica and what wakes those who watch its documents. Clones share it.
#[derive(Clone)]
pub(crate) struct SharedReplica {
    me: StoreId,
    replica: Arc<Mutex<Replica>>,
    changes: watch::Sender<()>,
}

impl SharedReplica {
    /// The replica of this member, which knows nothing yet; it gives leases of at most `ttl_max`.
    pub(crate) fn new(me: StoreId, ttl_max: Duration) -> Self {
        let replica = Replica::new(me, ttl_max, Clock.now());
        Self { me, replica: Arc::new(Mutex::new(replica)), changes: watch::Sender::new(()) }
    }

    /// Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes what a snapshot holds.
    fn restore(&self, content: Content) {
        *self.lock() = Replica::restored(self.me, Clock.now(), content);
    }

    /// Touched after every change of a document.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

/// The state machine.
pub(crate) struct StateStore {
    replica: SharedReplica,
    disk: Disk,
    latest: Latest,
}

impl StateStore {
    /// The state machine that starts as this snapshot.
    pub(crate) fn new(replica: SharedReplica, disk: Disk, snapshot: Option<Kept>) -> Result<Self, String> {
        if let Some((_, content)) = &snapshot {
            replica.restore(decoded(content)?);
        }
        Ok(Self { replica, disk, latest: Latest::new(snapshot) })
    }
}

/// Takes a snapshot of the replica as it was when this was made.
pub(crate) struct Builder {
    content: Content,
    meta: SnapshotMeta,
    disk: Disk,
    latest: Latest,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let kept = (self.meta.clone(), Bytes::from(encoded(&self.content)));
        keep(&self.disk, &self.latest, kept.clone()).await?;
        Ok(sent(kept))
    }
}

impl RaftStateMachine<Types> for StateStore {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let replica = self.replica.lock();
        Ok((replica.applied(), replica.membership().clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Option<Answer>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let answers: Vec<_> = {
            let mut replica = self.replica.lock();
            entries.into_iter().map(|entry| replica.apply(Clock.now(), entry)).collect()
        };
        if answers.iter().any(|answer| matches!(answer, Some(Answer::Set(CasOutcome::Done(_))))) {
            self.replica.changes.send_replace(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let replica = self.replica.lock();
        let applied = replica.applied();
        let meta = SnapshotMeta {
            last_log_id: applied,
            last_membership: replica.membership().clone(),
            snapshot_id: applied.map_or_else(|| "empty".to_owned(), |applied| applied.to_string()),
        };
        Builder { content: replica.content(), meta, disk: self.disk.clone(), latest: self.latest.clone() }
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
        let content = decoded(&bytes).map_err(unusable)?;
        self.replica.restore(content);
        keep(&self.disk, &self.latest, (meta.clone(), bytes)).await?;
        self.replica.changes.send_replace(());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        Ok(self.latest.sent())
    }
}

/// The latest snapshot that is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Latest(Arc<Mutex<Option<Kept>>>);

impl Latest {
    pub(crate) fn new(kept: Option<Kept>) -> Self {
        Self(Arc::new(Mutex::new(kept)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the library's words.
    pub(crate) fn sent<G: Group>(&self) -> Option<Snapshot<G>> {
        self.lock().clone().map(sent)
    }
}

/// Writes a snapshot down, unless a later one is there. Whoever asks for the latest meanwhile has the one before, and does not wait
/// for the disk: in its turn stand entries that are to be applied.
pub(crate) async fn keep<G: Group>(disk: &Disk<G>, latest: &Latest, kept: Kept) -> Result<(), StorageError> {
    let failed = |error: std::io::Error| StorageIOError::write_snapshot(Some(kept.0.signature()), &error);
    disk.make(Change::Snapshot(kept.0.last_log_id, encoded(&kept))).await.map_err(failed)?;
    disk.durable().has(kept.0.last_log_id);
    let mut latest = latest.lock();
    if latest.as_ref().is_none_or(|(meta, _)| meta.last_log_id <= kept.0.last_log_id) {
        *latest = Some(kept);
    }
    Ok(())
}

/// A snapshot in the library's words.
pub(crate) fn sent<G: Group>((meta, content): Kept) -> Snapshot<G> {
    Snapshot { meta, snapshot: Box::new(Cursor::new(content.into())) }
}
