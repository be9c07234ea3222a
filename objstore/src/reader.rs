//! The other processes' side: [`Reader`] answers from the mapped file alone, or says that the server must be asked.

use std::{
    fs::{self, File},
    hint, mem,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::AtomicU64,
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
    pins::Holder,
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

/// The same for who does not copy the value: the head, a short key and what the value begins with, in one line or two. What
/// else is looked at is not known here, and lines that are not would push others out of the caches.
const HEAD_READ_BYTES: usize = 48;

/// The longest value that is taken before it is known that the block is one. A longer one waits for that.
const UNCHECKED_BYTES_MAX: usize = 4096;

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
        let key = key.into();
        let look = || self.look::<_, HEAD_READ_BYTES>(key, &mut Live(&self.clock), |_, _| Some(Ok(())));
        look().or_else(|| again(look)).unwrap_or(Err(Reason::Contended))
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

    #[inline(always)]
    pub(crate) fn copy<S: Surroundings>(&self, key: KeyRef<'_>, buffer: &mut Vec<u8>, surroundings: &mut S) -> Answer {
        self.copy_once(key, buffer, surroundings).unwrap_or_else(|| self.copy_again(key, buffer, surroundings))
    }

    #[inline(always)]
    fn copy_once<S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        buffer: &mut Vec<u8>,
        surroundings: &mut S,
    ) -> Option<Answer> {
        let mut what = None;
        let found = self.look::<_, SMALL_READ_BYTES>(
            key,
            surroundings,
            #[inline(always)]
            |memory, block| {
                // Where the value begins was in the block's first line; the others were asked for together with it.
                if !memory.copy(block.value_at() / WORD, block.shape.value_bytes(), buffer) {
                    return None;
                }
                what = Some((block.version(memory), block.encoding()?));
                Some(Ok(()))
            },
        )?;
        if let (Ok(true), Some((version, encoding))) = (found, what) {
            return Some(Answer::Found { version, encoding });
        }
        buffer.clear();
        Some(found.map_or_else(Answer::Ask, |_| Answer::NotFound))
    }

    #[cold]
    #[inline(never)]
    fn copy_again<S: Surroundings>(&self, key: KeyRef<'_>, buffer: &mut Vec<u8>, surroundings: &mut S) -> Answer {
        if let Some(answer) = again(|| self.copy_once(key, buffer, surroundings)) {
            return answer;
        }
        // What a look copied that came to nothing.
        buffer.clear();
        Answer::Ask(Reason::Contended)
    }

    #[inline(always)]
    pub(crate) fn pin<S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
    ) -> Result<Option<Pinned<'_>>, Reason> {
        self.pin_once(key, surroundings).unwrap_or_else(|| self.pin_again(key, surroundings))
    }

    #[inline(always)]
    fn pin_once<S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
    ) -> Option<Result<Option<Pinned<'_>>, Reason>> {
        let Some(holder) = &self.holder else { return Some(Err(Reason::NoPin)) };
        // No guard yet: it would have to lie in memory, for whatever might drop it.
        let mut taken = None;
        let found = self.look::<_, HEAD_READ_BYTES>(
            key,
            surroundings,
            #[inline(always)]
            |memory, block| {
                let (value, what) = ((block.value_at(), block.shape.value_bytes()), block.encoding()?);
                let Some(pin) = holder.pin(block.at) else { return Some(Err(Reason::NoPin)) };
                taken = Some((pin, value, (block.version(memory), what)));
                Some(Ok(()))
            },
        );
        match (found, taken) {
            (Some(Ok(true)), Some((pin, value, what))) => return Some(Ok(Some(Pinned { holder, pin, value, what }))),
            (_, Some((pin, ..))) => holder.unpin(pin),
            _ => {}
        }
        Some(found?.map(|_| None))
    }

    #[cold]
    #[inline(never)]
    fn pin_again<S: Surroundings>(&self, key: KeyRef<'_>, surroundings: &mut S) -> Result<Option<Pinned<'_>>, Reason> {
        again(|| self.pin_once(key, surroundings)).unwrap_or(Err(Reason::Contended))
    }

    /// One look; None if something changed meanwhile. The order of its steps is what makes the answer linearizable:
    /// see "Why a read is linearizable" in `DESIGN/objstore.md`.
    ///
    /// `Ok(true)` if the key has an object; then `take` was called with its block. `take` returns None for what no whole
    /// block can hold. What it came to counts only if the look does.
    ///
    /// All of a look becomes one function, as short as can be: while a processor waits for memory it looks some 450
    /// instructions ahead, and if the next read is not further away than that, it begins to wait for that one as well.
    #[inline(always)]
    fn look<S: Surroundings, const ASKED: usize>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
        take: impl FnMut(&Memory, Block) -> Option<Result<(), Reason>>,
    ) -> Option<Result<bool, Reason>> {
        self.memory.with_alias(
            #[inline(always)]
            |memory| self.look_in::<_, ASKED>(memory, key, surroundings, take),
        )
    }

    #[inline(always)]
    fn look_in<S: Surroundings, const ASKED: usize>(
        &self,
        memory: &Memory,
        key: KeyRef<'_>,
        surroundings: &mut S,
        mut take: impl FnMut(&Memory, Block) -> Option<Result<(), Reason>>,
    ) -> Option<Result<bool, Reason>> {
        let header = Header(memory);
        let permit = match header.permit(key.star(self.geometry.stars)) {
            Ok(permit) => permit,
            Err(reason) => return Some(Err(reason)),
        };
        surroundings.at(Step::Permitted);

        let aim = self.table.aim(memory, key.hash());
        surroundings.at(Step::Aimed);
        let ticket = Table::begin(memory, aim.home)?;
        let mut found = None;
        let slot = self.table.find_in(
            memory,
            aim.home,
            key.hash(),
            #[inline(always)]
            |slot| {
                memory.prefetch(slot.block_at(), ASKED);
                found = Block::read(memory, &self.geometry, slot.block_at())
                    .filter(|block| block.has_key(memory, key.as_str()));
                found.is_some()
            },
        );
        surroundings.at(Step::Found);
        let taken = match (slot, found) {
            (Some((_, slot)), _) if slot.is_dirty() => {
                return Table::unchanged(memory, ticket).then_some(Err(Reason::Dirty));
            }
            (Some(_), Some(block)) => {
                // Lengths that belong to no object must not make us copy gigabytes.
                if block.shape.value_bytes() > UNCHECKED_BYTES_MAX && !Table::unchanged(memory, ticket) {
                    return None;
                }
                if let Err(reason) = take(memory, block)? {
                    return Some(Err(reason));
                }
                true
            }
            _ if !Table::is_home(memory, aim) => return None,
            _ => false,
        };
        surroundings.at(Step::Taken);
        if !Table::unchanged(memory, ticket) {
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

/// Looks again at what changed during the first look.
fn again<R>(mut look: impl FnMut() -> Option<R>) -> Option<R> {
    (1..LOOKS_MAX).find_map(|_| {
        hint::spin_loop();
        look()
    })
}

/// A block that is pinned for as long as this lives.
#[derive(Debug)]
pub(crate) struct Pinned<'a> {
    holder: &'a Holder,
    /// The pin's word in the pin table.
    pin: usize,
    /// Where the value begins in the file, and its bytes.
    value: (usize, usize),
    what: (Version, Encoding),
}

impl Pinned<'_> {
    /// Leaves the pin standing, until a zero is stored in its word.
    #[inline]
    fn keep(self) -> NonNull<AtomicU64> {
        let word = self.holder.word(self.pin);
        mem::forget(self);
        word
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.holder.unpin(self.pin);
    }
}

#[cfg(test)]
mod tests;
