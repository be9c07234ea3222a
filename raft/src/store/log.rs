//! Log and vote: read from memory, where all of the log is, and written through to disk.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{
    disk::{Change, Disk},
    encoded,
};
use crate::types::{Entry, Group, LogId, StorageError, Types, Vote};

/// What is on disk, or on its way there.
#[derive(Debug)]
pub(crate) struct Log<G: Group = Types> {
    pub(crate) entries: BTreeMap<u64, Entry<G>>,
    pub(crate) purged: Option<LogId>,
    pub(crate) vote: Option<Vote>,
}

impl<G: Group> Default for Log<G> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), purged: None, vote: None }
    }
}

impl<G: Group> Log<G> {
    /// Whether this member has ever voted or taken an entry.
    pub(crate) fn is_founded(&self) -> bool {
        self.vote.is_some() || self.purged.is_some() || !self.entries.is_empty()
    }

    /// The log's last entry.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|entry| entry.log_id).or(self.purged)
    }
}

/// The log as `openraft` uses it. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore<G: Group = Types> {
    log: Arc<Mutex<Log<G>>>,
    disk: Disk<G>,
}

impl<G: Group> LogStore<G> {
    pub(super) fn new(log: Log<G>, disk: Disk<G>) -> Self {
        Self { log: Arc::new(Mutex::new(log)), disk }
    }

    /// Makes a change that need not be on disk before anything else goes on: what comes later on disk comes after it.
    async fn change(&self, change: Change) -> Result<(), StorageError> {
        if G::GOES_AHEAD {
            self.disk.hand_on(change);
            return Ok(());
        }
        self.disk.make(change).await.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    /// After a failed write nobody knows what is on disk, so the member must end.
    fn check(&self) -> std::io::Result<()> {
        self.disk.durable().failed().map_or(Ok(()), |why| Err(std::io::Error::other(why.to_string())))
    }

    /// What is in memory, for a look at it.
    pub(crate) fn shared(&self) -> Arc<Mutex<Log<G>>> {
        Arc::clone(&self.log)
    }

    fn log(&self) -> MutexGuard<'_, Log<G>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<G: Group> RaftLogReader<G> for LogStore<G> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<G>>, StorageError> {
        Ok(self.log().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl<G: Group> RaftLogStorage<G> for LogStore<G> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<G>, StorageError> {
        let log = self.log();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let known = self.log().vote.replace(*vote);
        // That the one it voted for leads now binds it to nothing new: it need not wait for the disk to know that again.
        if G::GOES_AHEAD && known.is_some_and(|known| known.leader_id == vote.leader_id) {
            self.check().map_err(|error| StorageIOError::write_vote(&error))?;
            self.disk.hand_on(Change::Vote(*vote));
            return Ok(());
        }
        self.disk.make(Change::Vote(*vote)).await.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.log().vote)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<G>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<G>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.check().map_err(|error| StorageIOError::write_logs(&error))?;
        let mut log = self.log();
        let mut changes = Vec::new();
        for entry in entries {
            changes.push((entry.log_id.index, encoded(&entry)));
            log.entries.insert(entry.log_id.index, entry);
        }
        // Still under the lock: what is in memory and what is on its way to the disk come in the same order.
        if let Some(last) = log.last() {
            self.disk.durable().handed_on(last);
        }
        if G::GOES_AHEAD {
            self.disk.append(changes, None);
            // Heartbeats must not wait behind the disk. Whoever says that an entry is safe looks whether it is: the seat.
            flushed.log_io_completed(Ok(()));
        } else {
            self.disk.append(changes, Some(flushed));
        }
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        {
            let mut log = self.log();
            log.entries.split_off(&since.index);
            self.disk.durable().truncated(log.last());
        }
        self.change(Change::Truncate(since.index)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        {
            let mut log = self.log();
            log.entries = log.entries.split_off(&(upto.index + 1));
            log.purged = Some(upto);
        }
        self.change(Change::Purge(upto)).await
    }
}
