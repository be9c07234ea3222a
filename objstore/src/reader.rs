//! The other processes' side: [`Reader`] answers from the mapped file alone, or says that the server must be asked.

use std::{
    fs::{self, File},
    hint,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use star_core::{Incarnation, Key, Time, Version, store::Encoding};

use crate::{
    block::Block,
    error::OpenError,
    file::{self, failed},
    header::{Header, Refusal},
    index::Table,
    layout::Geometry,
    lease_clock::{LeaseClock, Machine},
    memory::Memory,
};

/// How often a reader looks again at what changes under it before it asks the server instead. A change takes the
/// writer some 20 ns, unless it loses its processor in the middle.
const LOOKS_MAX: usize = 64;

/// How much of a block a reader asks for at once, before it knows how long it is.
const SMALL_READ_BYTES: usize = 192;

/// What a reader can say of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The latest object; its bytes are in the buffer.
    Found {
        /// The object's version.
        version: Version,
        /// How the bytes came in.
        encoding: Encoding,
    },
    /// There is no such object.
    NotFound,
    /// Nothing: ask the server, over its socket.
    Ask(Reason),
}

/// Why a reader cannot answer by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A write to the key is under way.
    Dirty,
    /// The server holds no lease now, so the file may be behind.
    NoLease,
    /// The server does not serve the key's star now.
    NotServing,
    /// Another file has taken this one's place: open it again, with [`Reader::open`].
    Moved,
    /// The key's bucket kept changing, or its writer was stopped while it changed it.
    Contended,
}

/// The steps of a read, at which a test can let other things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The lease was read; nothing of the key was.
    Permitted,
    /// The key's block was found; its value was not read.
    Found,
    /// The value was read, but the key's bucket was not looked at again.
    Copied,
    /// All that was read is known to be of one state; the clock was not read.
    Checked,
}

/// What surrounds a read: the clock, and in tests whatever happens between its steps.
pub(crate) trait Surroundings {
    fn at(&mut self, step: Step);
    fn in_time(&mut self, until: Time) -> bool;
}

struct Live<'a>(&'a LeaseClock);

impl Surroundings for Live<'_> {
    #[inline]
    fn at(&mut self, _: Step) {}

    #[inline]
    fn in_time(&mut self, until: Time) -> bool {
        self.0.is_before(until)
    }
}

/// Reads a server's objects from its mapped file. Any number of threads may share one.
#[derive(Debug)]
pub struct Reader {
    memory: Memory,
    geometry: Geometry,
    table: Table,
    clock: LeaseClock,
    path: PathBuf,
    /// Device and number of the file, to tell it from one that took its place.
    identity: (u64, u64),
}

impl Reader {
    /// Maps a server's file. Whether it can answer is a matter of each read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(failed("open", path))?;
        let geometry = file::inspect(&file, path)?;
        let memory = Memory::read_only(&file, geometry.file_bytes).map_err(failed("map", path))?;
        if Header(&memory).boot() != file::boot_id()? {
            return Err(OpenError::OldBoot { path: path.to_path_buf() });
        }
        let found = file.metadata().map_err(failed("examine", path))?;
        let table = Table::new(&geometry);
        let clock = LeaseClock::new(Machine::new());
        Ok(Self { memory, geometry, table, clock, path: path.to_path_buf(), identity: (found.dev(), found.ino()) })
    }

    /// The latest object of a key: copied into `buffer`, which holds nothing after any other answer.
    ///
    /// The answer is linearizable among all reads and writes of the cluster.
    #[inline]
    pub fn get(&self, key: &Key, buffer: &mut Vec<u8>) -> Answer {
        self.read(key, Some(buffer), &mut Live(&self.clock))
    }

    /// Whether a key has an object, or why the server must be asked; as linearizable as [`Self::get`].
    #[inline]
    pub fn contains(&self, key: &Key) -> Result<bool, Reason> {
        match self.read(key, None, &mut Live(&self.clock)) {
            Answer::Found { .. } => Ok(true),
            Answer::NotFound => Ok(false),
            Answer::Ask(reason) => Err(reason),
        }
    }

    /// Stars of the cluster.
    pub fn stars(&self) -> u16 {
        self.geometry.stars
    }

    /// The cluster's id.
    pub fn cluster(&self) -> String {
        Header(&self.memory).cluster().unwrap_or_default()
    }

    /// The life of the server that writes the file now, or wrote it last.
    pub fn incarnation(&self) -> Incarnation {
        Header(&self.memory).incarnation()
    }

    /// Whether another file has taken this one's place, or none is there. Asks the system: for when reads are refused.
    pub fn moved(&self) -> bool {
        !fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }

    #[inline]
    pub(crate) fn read<S: Surroundings>(
        &self,
        key: &Key,
        mut buffer: Option<&mut Vec<u8>>,
        surroundings: &mut S,
    ) -> Answer {
        let mut answer = None;
        for _ in 0..LOOKS_MAX {
            answer = self.look(key, buffer.as_deref_mut(), surroundings);
            if answer.is_some() {
                break;
            }
            hint::spin_loop();
        }
        let answer = answer.unwrap_or(Answer::Ask(Reason::Contended));
        if let (Some(buffer), Answer::NotFound | Answer::Ask(_)) = (buffer, answer) {
            buffer.clear();
        }
        answer
    }

    /// One look; None if something changed meanwhile. The order of its steps is what makes the answer linearizable:
    /// see "Why a read is linearizable" in `DESIGN/objstore.md`.
    #[inline]
    fn look<S: Surroundings>(&self, key: &Key, buffer: Option<&mut Vec<u8>>, surroundings: &mut S) -> Option<Answer> {
        let header = Header(&self.memory);
        let permit = match header.permit(key.star(self.geometry.stars)) {
            Ok(permit) => permit,
            Err(reason) => return Some(Answer::Ask(reason)),
        };
        surroundings.at(Step::Permitted);

        let ticket = self.table.begin(&self.memory, key.hash())?;
        let mut found = None;
        let slot = self.table.find(&self.memory, key.hash(), |slot| {
            if buffer.is_some() {
                // Where the value begins is known only when the block's first line has come.
                self.memory.prefetch(slot.block_at(), SMALL_READ_BYTES);
            }
            found = Block::read(&self.memory, &self.geometry, slot.block_at())
                .filter(|block| block.has_key(&self.memory, key));
            found.is_some()
        });
        surroundings.at(Step::Found);
        // Before the copy too: lengths that belong to no object must not make us copy gigabytes.
        if !Table::unchanged(&self.memory, ticket) {
            return None;
        }
        let answer = match (slot, found) {
            (Some((_, slot)), _) if slot.is_dirty() => return Some(Answer::Ask(Reason::Dirty)),
            (Some(_), Some(block)) => {
                let version = block.version(&self.memory);
                let encoding = block.encoding()?;
                if let Some(buffer) = buffer {
                    let copied =
                        self.memory.copy(block.value_at() / crate::layout::WORD, block.shape.value_bytes(), buffer);
                    copied.then_some(())?;
                }
                Answer::Found { version, encoding }
            }
            _ => Answer::NotFound,
        };
        surroundings.at(Step::Copied);
        if !Table::unchanged(&self.memory, ticket) {
            return None;
        }
        surroundings.at(Step::Checked);

        match header.confirm(permit, |until| surroundings.in_time(until)) {
            Ok(()) => Some(answer),
            Err(Refusal::Changed) => None,
            Err(Refusal::Lapsed) => Some(Answer::Ask(Reason::NoLease)),
        }
    }
}

#[cfg(test)]
mod tests;
