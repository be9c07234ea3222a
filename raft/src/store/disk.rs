//! The thread that writes: changes in the order in which they come, all that wait in one transaction.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

use openraft::storage::LogFlushed;
use redb::{Database, WriteTransaction};
use tokio::sync::{oneshot, watch};

use super::{
    FACTS, LOG,
    durable::{Durable, SlowDisk, Written},
    encoded, text,
};
use crate::types::{Group, LogId, Types, Vote};

/// The most changes in one transaction, so that the first does not wait for ever for the last.
const BATCH_MAX: usize = 256;

/// One change of what is on disk.
#[derive(Debug)]
pub(crate) enum Change {
    /// Entries by index.
    Append(Vec<(u64, Vec<u8>)>),
    /// Removes the entry of this index, and all after it.
    Truncate(u64),
    /// Removes this entry and all before it: as soon as a snapshot that holds them is on disk.
    Purge(LogId),
    Vote(Vote),
    /// Up to which entry it goes, and an encoded [`super::Kept`]. Nothing if the one on disk goes further.
    Snapshot(Option<LogId>, Vec<u8>),
}

/// What may be removed of the log's beginning. The library has a snapshot that comes from a leader written and the log cut at the
/// same time; a member that ended between the two would come up with neither.
struct Purges {
    /// The snapshot that is on disk goes up to here.
    covered: Option<LogId>,
    /// Up to here is to be removed when it is covered.
    wanted: Option<LogId>,
}

impl Purges {
    /// What is to be removed now.
    fn due(&mut self) -> Option<LogId> {
        self.wanted.take_if(|wanted| Some(*wanted) <= self.covered)
    }
}

/// Who wants to know that a change is on disk.
enum Waiter<G: Group> {
    Log(LogFlushed<G>),
    Call(oneshot::Sender<Result<(), io::Error>>),
    /// Nobody, or whoever looks at [`super::Durable`].
    None,
}

/// The way to the thread that writes. It ends when the last of these is dropped.
#[derive(Clone)]
pub(crate) struct Disk<G: Group = Types> {
    changes: Sender<(Change, Waiter<G>)>,
    durable: Durable,
}

impl<G: Group> Disk<G> {
    /// The log that is on disk ends with `last`, and the snapshot holds what is up to `covered`.
    pub(super) fn start(
        database: Database,
        last: Option<LogId>,
        covered: Option<LogId>,
        slow: SlowDisk,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let purges = Purges { covered, wanted: None };
        let (changes, received) = channel();
        let (report, written) = watch::channel(Written::default());
        let thread = std::thread::Builder::new().name(G::DISK_THREAD.into());
        let thread = thread.spawn(move || run(&database, purges, &received, &report, &slow))?;
        Ok((Self { changes, durable: Durable::new(last.max(covered), written) }, thread))
    }

    /// Which of the log is on disk.
    pub(crate) fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Makes a change, and waits until it is on disk.
    pub(crate) async fn make(&self, change: Change) -> io::Result<()> {
        let (done, is_done) = oneshot::channel();
        let gone = || io::Error::other("the thread that writes has ended");
        self.changes.send((change, Waiter::Call(done))).map_err(|_| gone())?;
        is_done.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Appends entries; `flushed`, if it is there, hears when they are on disk.
    pub(crate) fn append(&self, entries: Vec<(u64, Vec<u8>)>, flushed: Option<LogFlushed<G>>) {
        let waiter = flushed.map_or(Waiter::None, Waiter::Log);
        if let Err(unsent) = self.changes.send((Change::Append(entries), waiter)) {
            unsent.0.1.tell(Err("the thread that writes has ended"));
        }
    }

    /// Has a change made after those that were handed on before, and before those that come later.
    pub(crate) fn hand_on(&self, change: Change) {
        // A thread that has ended is noticed by whoever has to know that something is on disk.
        let _ = self.changes.send((change, Waiter::None));
    }
}

impl<G: Group> Waiter<G> {
    fn tell(self, outcome: Result<(), &str>) {
        let outcome = outcome.map_err(|why| io::Error::other(why.to_owned()));
        match self {
            Self::Log(flushed) => flushed.log_io_completed(outcome),
            // Whoever does not wait any more is not told.
            Self::Call(done) => drop(done.send(outcome)),
            Self::None => {}
        }
    }
}

fn run<G: Group>(
    database: &Database,
    mut purges: Purges,
    changes: &Receiver<(Change, Waiter<G>)>,
    report: &watch::Sender<Written>,
    slow: &SlowDisk,
) {
    let mut failed: Option<String> = None;
    while let Ok(first) = changes.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(changes.try_iter().take(BATCH_MAX - 1)).collect();
        // After a failed write nobody knows what is on disk, so nothing is written on top of it.
        if failed.is_none() {
            failed = write(database, &mut purges, batch.iter().map(|(change, _)| change)).err();
            slow.wait();
        }
        let appends = batch.iter().filter(|(change, _)| matches!(change, Change::Append(_))).count() as u64;
        report.send_modify(|written| match &failed {
            None => written.appends += appends,
            Some(why) => written.failed = Some(why.as_str().into()),
        });
        for (_, waiter) in batch {
            waiter.tell(failed.as_deref().map_or(Ok(()), Err));
        }
    }
}

fn write<'a>(
    database: &Database,
    purges: &mut Purges,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), String> {
    let transaction = database.begin_write().map_err(text)?;
    for change in changes {
        apply(&transaction, purges, change)?;
    }
    // The default durability: on disk when this returns.
    transaction.commit().map_err(text)
}

fn apply(transaction: &WriteTransaction, purges: &mut Purges, change: &Change) -> Result<(), String> {
    let mut log = transaction.open_table(LOG).map_err(text)?;
    let mut facts = transaction.open_table(FACTS).map_err(text)?;
    match change {
        Change::Append(entries) => {
            for (index, entry) in entries {
                log.insert(index, entry.as_slice()).map_err(text)?;
            }
        }
        Change::Truncate(index) => log.retain_in(*index.., |_, _| false).map_err(text)?,
        Change::Purge(upto) => purges.wanted = purges.wanted.max(Some(*upto)),
        Change::Vote(vote) => {
            facts.insert("vote", &*encoded(vote)).map_err(text)?;
        }
        // One that was taken here must not take the place of a later one, which came from the leader meanwhile.
        Change::Snapshot(upto, snapshot) if *upto >= purges.covered => {
            facts.insert("snapshot", snapshot.as_slice()).map_err(text)?;
            purges.covered = *upto;
        }
        Change::Snapshot(..) => {}
    }
    if let Some(upto) = purges.due() {
        log.retain_in(..=upto.index, |_, _| false).map_err(text)?;
        facts.insert("purged", &*encoded(&upto)).map_err(text)?;
    }
    Ok(())
}
