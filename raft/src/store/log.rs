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

    fn last(&self) -> Option<LogId> {
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
        self.disk.make(Change::Vote(*vote)).await.map_err(|error| StorageIOError::write_vote(&error))?;
        self.log().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.log().vote)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<G>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<G>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut log = self.log();
        let mut changes = Vec::new();
        for entry in entries {
            changes.push((entry.log_id.index, encoded(&entry)));
            log.entries.insert(entry.log_id.index, entry);
        }
        // Still under the lock: what is in memory and what is on its way to the disk come in the same order.
        self.disk.append(changes, flushed);
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.log().entries.split_off(&since.index);
        self.disk.make(Change::Truncate(since.index)).await.map_err(|error| StorageIOError::write_logs(&error).into())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        {
            let mut log = self.log();
            log.entries = log.entries.split_off(&(upto.index + 1));
            log.purged = Some(upto);
        }
        self.disk.make(Change::Purge(upto)).await.map_err(|error| StorageIOError::write_logs(&error).into())
    }
}
