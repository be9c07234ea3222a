//! How far the log is on disk, for those whose word must not go out before that.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::types::LogId;

/// What the thread that writes has done.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// How many appends are on disk, in the order in which they were handed to it.
    pub(super) appends: u64,
    /// Why nothing is written any more.
    pub(super) failed: Option<Arc<str>>,
}

/// Which entries of the log are on disk. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    tail: Arc<Mutex<Tail>>,
    written: watch::Receiver<Written>,
}

#[derive(Debug, Default)]
struct Tail {
    /// Everything up to this entry is on disk.
    durable: Option<LogId>,
    /// How many appends were handed on.
    handed_on: u64,
    /// The appends that are not known to be on disk: their numbers, and the last entry of each that is in the log still.
    waiting: VecDeque<(u64, Option<LogId>)>,
}

impl Durable {
    /// Of a log that was just read, and so is on disk up to `last`.
    pub(super) fn new(last: Option<LogId>, written: watch::Receiver<Written>) -> Self {
        let tail = Tail { durable: last, ..Tail::default() };
        Self { tail: Arc::new(Mutex::new(tail)), written }
    }

    /// An append that ends with this entry is handed to the thread that writes. Called in that order.
    pub(super) fn handed_on(&self, last: LogId) {
        let mut tail = self.tail();
        tail.handed_on += 1;
        let number = tail.handed_on;
        tail.waiting.push_back((number, Some(last)));
    }

    /// The log ends with `last` now; what is appended after it is other entries under the same indexes.
    pub(super) fn truncated(&self, last: Option<LogId>) {
        let mut tail = self.tail();
        tail.settle(&self.written.borrow());
        tail.durable = tail.durable.min(last);
        tail.waiting.iter_mut().for_each(|(_, end)| *end = (*end).min(last));
    }

    /// A snapshot that is on disk holds everything up to this entry.
    pub(super) fn has(&self, upto: Option<LogId>) {
        let mut tail = self.tail();
        tail.durable = tail.durable.max(upto);
    }

    /// The last entry up to which the log is on disk.
    pub(crate) fn upto(&self) -> Option<LogId> {
        let mut tail = self.tail();
        tail.settle(&self.written.borrow());
        tail.durable
    }

    /// Why nothing is written any more.
    pub(crate) fn failed(&self) -> Option<Arc<str>> {
        self.written.borrow().failed.clone()
    }

    /// Waits until more is on disk, or it is clear that nothing will be.
    pub(crate) async fn changed(&mut self) {
        if self.written.changed().await.is_err() {
            // The thread has ended, and with it the member.
            std::future::pending::<()>().await;
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn settle(&mut self, written: &Written) {
        while let Some((number, last)) = self.waiting.front().copied()
            && number <= written.appends
        {
            self.durable = self.durable.max(last);
            self.waiting.pop_front();
        }
    }
}

/// By how much a disk is slower than it is, for tests of what a slow one does. Clones share it; 0 at first.
#[derive(Clone, Debug, Default)]
pub struct SlowDisk(Arc<AtomicU64>);

impl SlowDisk {
    /// From now on every write to disk takes so much longer.
    pub fn set(&self, longer: Duration) {
        self.0.store(longer.as_millis() as u64, Ordering::Relaxed);
    }

    #[allow(clippy::disallowed_methods, reason = "the thread that writes serves nobody else")]
    pub(super) fn wait(&self) {
        let longer = self.0.load(Ordering::Relaxed);
        if longer > 0 {
            std::thread::sleep(Duration::from_millis(longer));
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::LeaderId;

    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, 7), index)
    }

    fn wrote(written: &watch::Sender<Written>, appends: u64) {
        written.send_modify(|written| written.appends = appends);
    }

    #[test]
    fn an_entry_counts_when_its_append_is_on_disk() {
        let (written, is_written) = watch::channel(Written::default());
        let durable = Durable::new(Some(id(1, 3)), is_written);
        durable.handed_on(id(1, 5));
        durable.handed_on(id(1, 6));
        assert_eq!(durable.upto(), Some(id(1, 3)));
        wrote(&written, 1);
        assert_eq!(durable.upto(), Some(id(1, 5)));
        wrote(&written, 2);
        assert_eq!(durable.upto(), Some(id(1, 6)));
    }

    #[test]
    fn what_was_cut_off_does_not_stand_for_what_took_its_place() {
        let (written, is_written) = watch::channel(Written::default());
        let durable = Durable::new(None, is_written);
        durable.handed_on(id(1, 5));
        durable.handed_on(id(1, 9));
        // Entries 4 to 9 go, and another leader's come.
        durable.truncated(Some(id(1, 3)));
        durable.handed_on(id(2, 4));
        wrote(&written, 2);
        assert_eq!(durable.upto(), Some(id(1, 3)));
        wrote(&written, 3);
        assert_eq!(durable.upto(), Some(id(2, 4)));
        durable.truncated(Some(id(1, 2)));
        assert_eq!(durable.upto(), Some(id(1, 2)), "also what was on disk already");
        durable.has(Some(id(3, 40)));
        assert_eq!(durable.upto(), Some(id(3, 40)));
    }
}
