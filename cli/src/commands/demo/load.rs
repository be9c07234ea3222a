//! The clients: writers that store, change and put back the objects, and readers that read all the time.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use star_core::Version;
use tokio::task::{JoinHandle, JoinSet, spawn_local};

use super::{
    progress::{Progress, Stage, objects},
    shared::{Change, Outcome, Shared},
    tree::Tree,
};
use crate::{error::CliError, output};

/// Writers; each has its own share of the objects, so that it knows what they must hold.
const WRITERS: usize = 4;
/// Readers over TCP at each server.
const READERS: usize = 2;
/// Objects that all writers change, by compare-and-set: each holds a number that counts the changes.
pub(super) const COUNTERS: usize = 8;
/// Objects larger than this are changed less often, so that they do not take all the time.
const LARGE_BYTES: usize = 256 << 10;
/// Mapped reads in a row, before the others have their turn for a millisecond.
const MAPPED_READS: usize = 4;

/// Numbers of clients in the history: writers from 0, readers, mapped readers.
const FIRST_READER: u32 = 100;
const FIRST_MAPPED_READER: u32 = 200;

/// The clients, and what they know of the objects.
#[derive(Clone)]
pub(super) struct Load(Rc<Inner>);

struct Inner {
    shared: Rc<Shared>,
    tree: Rc<Tree>,
    /// What each object of the tree must hold now, with its version; `None`: it was deleted.
    expected: RefCell<Vec<Option<(Bytes, Version)>>>,
    /// Times that a counter was raised.
    increments: Cell<u64>,
    over: Cell<bool>,
}

impl Load {
    pub(super) fn new(shared: Rc<Shared>, tree: Rc<Tree>) -> Self {
        let expected = RefCell::new(vec![None; tree.files.len()]);
        Self(Rc::new(Inner { shared, tree, expected, increments: Cell::new(0), over: Cell::new(false) }))
    }

    /// What an object must hold now.
    pub(super) fn expected(&self, file: usize) -> Option<Bytes> {
        self.0.expected.borrow()[file].as_ref().map(|(value, _)| value.clone())
    }

    /// Times that a counter was raised.
    pub(super) fn increments(&self) -> u64 {
        self.0.increments.get()
    }

    /// Starts readers at every server; they go on until [`Self::stop`].
    pub(super) fn start_readers(&self) -> Vec<JoinHandle<Result<(), CliError>>> {
        let servers = self.0.shared.servers.len();
        let mut readers = Vec::new();
        for number in 0..servers * READERS {
            readers.push(spawn_local(Rc::clone(&self.0).read_all_the_time(number)));
        }
        for server in 0..servers {
            readers.push(spawn_local(Rc::clone(&self.0).read_mapped_all_the_time(server)));
        }
        readers
    }

    /// Ends the readers.
    pub(super) fn stop(&self) {
        self.0.over.set(true);
    }

    /// Stores every file.
    pub(super) async fn store_all(&self, progress: &Progress) -> Result<(), CliError> {
        let count = self.0.tree.files.len();
        let stage = Rc::new(progress.stage("storing", count as u64));
        let watch = Rc::clone(&stage);
        self.all_writers(move |inner, writer| Rc::clone(&inner).restore(writer, Rc::clone(&watch))).await?;
        finish(stage, &format!("stored {}, {}", objects(count), output::bytes(self.0.tree.bytes)));
        Ok(())
    }

    /// Overwrites, deletes, compares-and-sets for so long.
    pub(super) async fn change(&self, time: Duration, progress: &Progress) -> Result<(), CliError> {
        let stage = progress.stage("changing under load", time.as_millis().max(1) as u64);
        let shared = &self.0.shared;
        let (begin, before) = (shared.now(), self.counts());
        let work = self.all_writers(move |inner, writer| inner.change_for(writer, time));
        let watch = async {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let passed = shared.now().since(begin);
                stage.set(passed.as_millis() as u64);
                stage.say(rates(before, self.counts(), passed));
            }
        };
        tokio::select! {
            done = work => done?,
            () = watch => {}
        }
        let after = self.counts();
        let text = rates(before, after, shared.now().since(begin));
        let writes = output::count(after.1 - before.1);
        stage.done(&format!("{writes} writes and {} reads: {text}", output::count(after.0 - before.0)));
        Ok(())
    }

    /// Makes every object what its file is, and removes the counters.
    pub(super) async fn put_back(&self, progress: &Progress) -> Result<(), CliError> {
        let stage = Rc::new(progress.stage("putting back", self.0.tree.files.len() as u64));
        let watch = Rc::clone(&stage);
        self.all_writers(move |inner, writer| Rc::clone(&inner).restore(writer, Rc::clone(&watch))).await?;
        for counter in 0..COUNTERS {
            self.0.shared.write(0, &counter_key(counter), Change::Delete).await?;
        }
        finish(stage, "every object put back as on disk");
        Ok(())
    }

    /// Reads and writes so far.
    fn counts(&self) -> (u64, u64) {
        let record = self.0.shared.record.borrow();
        (record.reads.len(), record.writes.len())
    }

    async fn all_writers<F, W>(&self, work: F) -> Result<(), CliError>
    where
        F: Fn(Rc<Inner>, usize) -> W,
        W: Future<Output = Result<(), CliError>> + 'static,
    {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn_local(work(Rc::clone(&self.0), writer));
        }
        while let Some(done) = writers.join_next().await {
            done??;
        }
        Ok(())
    }
}

impl Inner {
    /// Writes every file of a writer's share whose object does not hold it.
    async fn restore(self: Rc<Self>, writer: usize, stage: Rc<Stage>) -> Result<(), CliError> {
        for file in (writer..self.tree.files.len()).step_by(WRITERS) {
            let original = &self.tree.files[file].value;
            let holds = self.expected.borrow()[file].as_ref().is_some_and(|(value, _)| value == original);
            if !holds {
                self.set(writer, file, original.clone()).await?;
            }
            stage.step();
        }
        Ok(())
    }

    /// Changes objects of a writer's share, and counters, for so long.
    async fn change_for(self: Rc<Self>, writer: usize, time: Duration) -> Result<(), CliError> {
        let end = self.shared.now() + time;
        let share = (self.tree.files.len() + WRITERS - 1 - writer) / WRITERS;
        let mut round = 0_u64;
        while self.shared.now() < end {
            round += 1;
            let counter = share == 0 || self.shared.below(10) == 0;
            if counter {
                self.increment(writer).await?;
                continue;
            }
            let file = writer + WRITERS * self.shared.below(share);
            if self.tree.files[file].value.len() > LARGE_BYTES && self.shared.below(50) > 0 {
                continue;
            }
            match self.shared.below(10) {
                0 => self.delete(writer, file).await?,
                1 | 2 => self.compare_and_set(writer, file, round).await?,
                _ => self.set(writer, file, self.variant(file, writer, round)).await?,
            }
        }
        Ok(())
    }

    async fn set(&self, writer: usize, file: usize, value: Bytes) -> Result<(), CliError> {
        let key = &self.tree.files[file].key;
        match self.shared.write(writer as u32, key, Change::Set(value.clone())).await? {
            Outcome::Done(version) => self.expected.borrow_mut()[file] = Some((value, version)),
            other => return Err(surprise("set", key, other)),
        }
        Ok(())
    }

    async fn delete(&self, writer: usize, file: usize) -> Result<(), CliError> {
        let key = &self.tree.files[file].key;
        let is_there = self.expected.borrow()[file].is_some();
        match self.shared.write(writer as u32, key, Change::Delete).await? {
            Outcome::Done(_) if is_there => self.expected.borrow_mut()[file] = None,
            Outcome::Nothing if !is_there => {}
            other => return Err(surprise("delete", key, other)),
        }
        Ok(())
    }

    /// Nobody else writes this object, so the version that is known must be the one that it has.
    async fn compare_and_set(&self, writer: usize, file: usize, round: u64) -> Result<(), CliError> {
        let key = &self.tree.files[file].key;
        let version = self.expected.borrow()[file].as_ref().map_or(Version(0), |(_, version)| *version);
        let value = self.variant(file, writer, round);
        match self.shared.write(writer as u32, key, Change::CompareAndSet(value.clone(), version)).await? {
            Outcome::Done(version) => self.expected.borrow_mut()[file] = Some((value, version)),
            other => return Err(surprise("compare-and-set", key, other)),
        }
        Ok(())
    }

    /// Reads a counter through one server and raises it through another, unless somebody else was faster.
    async fn increment(&self, writer: usize) -> Result<(), CliError> {
        let key = counter_key(self.shared.below(COUNTERS));
        let server = self.shared.below(self.shared.servers.len());
        let found = self.shared.read(writer as u32, server, &key).await?;
        let (number, version) = match &found {
            Some((value, version)) => (counter_value(value, &key)?, *version),
            None => (0, Version(0)),
        };
        let next = Bytes::from((number + 1).to_string());
        match self.shared.write(writer as u32, &key, Change::CompareAndSet(next, version)).await? {
            Outcome::Done(_) => self.increments.set(self.increments.get() + 1),
            Outcome::Conflict => {}
            Outcome::Nothing => return Err(surprise("compare-and-set", &key, Outcome::Nothing)),
        }
        Ok(())
    }

    /// The file with a line at its end that no other write has.
    fn variant(&self, file: usize, writer: usize, round: u64) -> Bytes {
        let original = &self.tree.files[file].value;
        let mut value = BytesMut::with_capacity(original.len() + 64);
        value.put_slice(original);
        value.put_slice(format!("\nchanged by writer {writer} in round {round}\n").as_bytes());
        // An object of the greatest size has no room for the line: its beginning gives way.
        let over = value.len().saturating_sub(original.len().max(1 << 20));
        value.freeze().slice(over..)
    }

    async fn read_all_the_time(self: Rc<Self>, number: usize) -> Result<(), CliError> {
        let server = number % self.shared.servers.len();
        while !self.over.get() {
            let key = self.any_key();
            self.shared.read(FIRST_READER + number as u32, server, &key).await?;
        }
        Ok(())
    }

    async fn read_mapped_all_the_time(self: Rc<Self>, server: usize) -> Result<(), CliError> {
        let mut buffer = Vec::new();
        while !self.over.get() {
            for _ in 0..MAPPED_READS {
                let client = FIRST_MAPPED_READER + server as u32;
                // Where the store cannot answer, the readers over TCP ask.
                let _ = self.shared.read_mapped(client, server, &self.any_key(), &mut buffer);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn any_key(&self) -> String {
        let files = self.tree.files.len();
        let place = self.shared.below(files + COUNTERS);
        if place < files { self.tree.files[place].key.clone() } else { counter_key(place - files) }
    }
}

/// The key of a counter.
pub(super) fn counter_key(counter: usize) -> String {
    format!(".star-demo/counter-{counter}")
}

/// The number that a counter holds.
pub(super) fn counter_value(value: &[u8], key: &str) -> Result<u64, CliError> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| CliError::new(format!("{key} holds {:?}, which is no number", String::from_utf8_lossy(value))))
}

fn surprise(what: &str, key: &str, outcome: Outcome) -> CliError {
    CliError::new(format!("{what} of {key:?} came out as {outcome:?}, which its only writer cannot explain"))
}

fn finish(stage: Rc<Stage>, text: &str) {
    if let Ok(stage) = Rc::try_unwrap(stage) {
        stage.done(text);
    }
}

fn rates(before: (u64, u64), after: (u64, u64), time: Duration) -> String {
    let seconds = time.as_secs_f64().max(1e-3);
    let rate = |before: u64, after: u64| output::count(((after - before) as f64 / seconds) as u64);
    format!("{} reads/s, {} writes/s", rate(before.0, after.0), rate(before.1, after.1))
}
