//! The other processes' side: [`Reader`] answers from the mapped file alone, or says that the server must be asked.

use std::{
    fs::{self, File},
    hint,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use star_core::{Incarnation, Key, KeyRef, Time, Version, store::Encoding};

use crate::{
    block::Block,
    error::OpenError,
    file::{self, failed},
    header::{Header, Refusal},
    index::Table,
    layout::{Geometry, WORD},
    lease_clock::{LeaseClock, Machine},
    memory::Memory,
    pins::{Holder, Pin},
};

mod list;
mod reference;

pub use list::Listing;
pub use reference::Ref;

/// How often a reader looks again at what changes under it before it asks the server instead. A change takes the
/// writer some 20 ns, unless it loses its processor in the middle.
const LOOKS_MAX: usize = 64;

/// Keys whose memory is asked for at a time in a read of many: of 8, 16 and 32, what was fastest.
const AHEAD: usize = 16;

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
    /// No more can be pinned: this reader has too many objects in place, or may not write the pin table. A copy may do.
    NoPin,
}

/// The steps of a read, at which a test can let other things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The lease was read; nothing of the key was.
    Permitted,
    /// The bucket that the key should be in is known; nothing of it was read.
    Aimed,
    /// The key's block was found; its value was not read.
    Found,
    /// The value was copied or pinned, but the key's bucket was not looked at again.
    Taken,
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
    /// None where the file may not be written: then nothing can be pinned.
    holder: Option<Holder>,
    path: PathBuf,
    /// Device and number of the file, to tell it from one that took its place.
    identity: (u64, u64),
}

impl Reader {
    /// Maps a server's file. Whether it can answer is a matter of each read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        reference::let_go();
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
        let holder = Holder::open(path, &file, &geometry);
        let identity = (found.dev(), found.ino());
        Ok(Self { memory, geometry, table, clock, holder, path: path.to_path_buf(), identity })
    }

    /// The latest object of a key: copied into `buffer`, which holds nothing after any other answer.
    ///
    /// The answer is linearizable among all reads and writes of the cluster.
    #[inline]
    pub fn get<'k>(&self, key: impl Into<KeyRef<'k>>, buffer: &mut Vec<u8>) -> Answer {
        self.copy(key.into(), buffer, &mut Live(&self.clock))
    }

    /// Reads many keys, each as [`Self::get`] does, and calls `each` with the key's place, its answer and its bytes, in
    /// order. Each read is linearizable by itself; together they are no snapshot.
    ///
    /// Several times as fast as one after the other where the objects are not in the processor's caches: the memory is
    /// asked for those of 16 keys at a time.
    pub fn get_many(&self, keys: &[Key], mut each: impl FnMut(usize, Answer, &[u8])) {
        let mut buffer = Vec::new();
        for (group, first) in keys.chunks(AHEAD).zip((0..).step_by(AHEAD)) {
            group.iter().for_each(|key| self.table.prefetch(&self.memory, key.hash()));
            for key in group {
                if let Some(slot) = self.table.guess(&self.memory, key.hash()) {
                    self.memory.prefetch(slot.block_at(), SMALL_READ_BYTES);
                }
            }
            for (key, at) in group.iter().zip(first..) {
                let answer = self.get(key, &mut buffer);
                each(at, answer, &buffer);
            }
        }
    }

    /// The latest object of a key, in place: nothing is copied, whatever its size. As linearizable as [`Self::get`].
    #[inline]
    pub fn get_ref<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<Option<Ref>, Reason> {
        Ok(self.pin(key.into(), &mut Live(&self.clock))?.map(|found| Ref::new(self, found)))
    }

    /// Whether a key has an object, or why the server must be asked; as linearizable as [`Self::get`].
    #[inline]
    pub fn contains<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<bool, Reason> {
        Ok(self.read(key.into(), &mut Live(&self.clock), |_| Some(Ok(())))?.is_some())
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
    pub(crate) fn copy<S: Surroundings>(&self, key: KeyRef<'_>, buffer: &mut Vec<u8>, surroundings: &mut S) -> Answer {
        let found = self.read(key, surroundings, |block| {
            // Where the value begins was in the block's first line; the others were asked for together with it.
            let copied = self.memory.copy(block.value_at() / WORD, block.shape.value_bytes(), buffer);
            copied.then_some(Ok((block.version(&self.memory), block.encoding()?)))
        });
        match found {
            Ok(Some((version, encoding))) => return Answer::Found { version, encoding },
            // What a look copied that came to nothing.
            Ok(None) | Err(_) => buffer.clear(),
        }
        found.map_or_else(Answer::Ask, |_| Answer::NotFound)
    }

    #[inline]
    pub(crate) fn pin<S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
    ) -> Result<Option<Pinned<'_>>, Reason> {
        let Some(holder) = &self.holder else { return Err(Reason::NoPin) };
        self.read(key, surroundings, |block| {
            let Some(pin) = holder.pin(block.at) else { return Some(Err(Reason::NoPin)) };
            let value = (block.value_at(), block.shape.value_bytes());
            Some(Ok(Pinned { pin, value, what: (block.version(&self.memory), block.encoding()?) }))
        })
    }

    /// What `take` makes of the key's block, if it has an object. `take` is called once per look; what it returns counts
    /// only if the look does, and is dropped if not. It returns None for what no whole block can hold.
    #[inline]
    fn read<T, S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
        mut take: impl FnMut(Block) -> Option<Result<T, Reason>>,
    ) -> Result<Option<T>, Reason> {
        for _ in 0..LOOKS_MAX {
            if let Some(answer) = self.look(key, surroundings, &mut take) {
                return answer;
            }
            hint::spin_loop();
        }
        Err(Reason::Contended)
    }

    /// One look; None if something changed meanwhile. The order of its steps is what makes the answer linearizable:
    /// see "Why a read is linearizable" in `DESIGN/objstore.md`.
    #[inline]
    fn look<T, S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
        take: &mut impl FnMut(Block) -> Option<Result<T, Reason>>,
    ) -> Option<Result<Option<T>, Reason>> {
        let header = Header(&self.memory);
        let permit = match header.permit(key.star(self.geometry.stars)) {
            Ok(permit) => permit,
            Err(reason) => return Some(Err(reason)),
        };
        surroundings.at(Step::Permitted);

        let aim = self.table.aim(&self.memory, key.hash());
        surroundings.at(Step::Aimed);
        let ticket = Table::begin(&self.memory, aim.home)?;
        let mut found = None;
        let slot = self.table.find_in(&self.memory, aim.home, key.hash(), |slot| {
            self.memory.prefetch(slot.block_at(), SMALL_READ_BYTES);
            found = Block::read(&self.memory, &self.geometry, slot.block_at())
                .filter(|block| block.has_key(&self.memory, key.as_str()));
            found.is_some()
        });
        surroundings.at(Step::Found);
        // Before anything is taken too: lengths that belong to no object must not make us copy gigabytes.
        if !Table::unchanged(&self.memory, ticket) {
            return None;
        }
        let taken = match (slot, found) {
            (Some((_, slot)), _) if slot.is_dirty() => return Some(Err(Reason::Dirty)),
            (Some(_), Some(block)) => match take(block)? {
                Ok(taken) => Some(taken),
                Err(reason) => return Some(Err(reason)),
            },
            _ if !Table::is_home(&self.memory, aim) => return None,
            _ => None,
        };
        surroundings.at(Step::Taken);
        if !Table::unchanged(&self.memory, ticket) {
            return None;
        }
        surroundings.at(Step::Checked);

        match header.confirm(permit, |until| surroundings.in_time(until)) {
            Ok(()) => Some(Ok(taken)),
            Err(Refusal::Changed) => None,
            Err(Refusal::Lapsed) => Some(Err(Reason::NoLease)),
        }
    }
}

/// A block that is pinned for as long as this lives.
#[derive(Debug)]
pub(crate) struct Pinned<'a> {
    pin: Pin<'a>,
    /// Where the value begins in the file, and its bytes.
    value: (usize, usize),
    what: (Version, Encoding),
}

#[cfg(test)]
mod tests;
