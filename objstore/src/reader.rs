//! The other processes' side: [`Reader`] answers from the mapped file alone, or says that the server must be asked.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use star_core::{Incarnation, Key, KeyRef, Version, store::Encoding};

use crate::{
    error::OpenError,
    file::{self, failed},
    header::Header,
    index::Table,
    layout::Geometry,
    lease_clock::{LeaseClock, Machine},
    memory::Memory,
    pins::Holder,
};

mod candidate;
mod list;
mod look;
mod reference;

pub use candidate::Candidate;
pub use list::Listing;
use look::{Live, Surroundings, again};
pub use reference::Ref;

/// Keys whose memory is worth asking for at a time, before they are read: of 8, 16 and 32, what was fastest.
pub const AHEAD: usize = 16;

/// How much of a block a reader asks for at once, before it knows how long it is.
const SMALL_READ_BYTES: usize = 128;

/// The same for who does not copy the value: the head, a short key and what the value begins with, in one line or two. What
/// else is looked at is not known here, and lines that are not would push others out of the caches.
const HEAD_READ_BYTES: usize = 48;

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
            self.ask_ahead(group.iter().map(Key::hash));
            for (key, at) in group.iter().zip(first..) {
                let answer = self.get(key, &mut buffer);
                each(at, answer, &buffer);
            }
        }
    }

    /// Has the memory fetch what reads of these keys will look at, so that they wait for it together and not one after the
    /// other: for up to [`AHEAD`] keys that are read next. Says nothing, and changes nothing.
    #[inline]
    pub fn prefetch(&self, keys: &[KeyRef<'_>]) {
        self.ask_ahead(keys.iter().map(|key| key.hash()));
    }

    #[inline]
    fn ask_ahead(&self, hashes: impl Iterator<Item = u64> + Clone) {
        hashes.clone().for_each(|hash| self.table.prefetch(&self.memory, hash));
        for slot in hashes.filter_map(|hash| self.table.guess(&self.memory, hash)) {
            self.memory.prefetch(slot.block_at(), SMALL_READ_BYTES);
        }
    }

    /// The latest object of a key, in place: nothing is copied, whatever its size. As linearizable as [`Self::get`].
    #[inline]
    pub fn get_ref<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<Option<Ref>, Reason> {
        self.in_place(key.into(), &mut Live(&self.clock))
    }

    /// The latest object of a key as what `take` makes of it, if it is found at once; as linearizable as [`Self::get`]. None
    /// says nothing, neither that there is no object: [`Self::get`] does. What `take` saw may be of no moment, and counts only
    /// where this returns it.
    #[inline(always)]
    pub fn try_get<'k, T>(
        &self,
        key: impl Into<KeyRef<'k>>,
        take: impl FnOnce(Candidate<'_>) -> Option<T>,
    ) -> Option<(T, Version, Encoding)> {
        let seen = self.glance::<_, _, SMALL_READ_BYTES>(
            key.into(),
            &mut Live(&self.clock),
            #[inline(always)]
            |found| {
                let (version, encoding) = found.what()?;
                Some((take(found)?, version, encoding))
            },
        );
        seen.ok()
    }

    /// The latest object of a key in place, if it is found at once; None says nothing: [`Self::get_ref`] does.
    #[inline(always)]
    pub fn try_get_ref<'k>(&self, key: impl Into<KeyRef<'k>>) -> Option<Ref> {
        self.pin_at_once(key.into(), &mut Live(&self.clock))
    }

    /// Whether a key has an object, or why the server must be asked; as linearizable as [`Self::get`].
    #[inline]
    pub fn contains<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<bool, Reason> {
        let key = key.into();
        let live = &mut Live(&self.clock);
        match self.glance::<_, _, HEAD_READ_BYTES>(key, live, |_| Some(())) {
            Ok(()) => Ok(true),
            Err(_) => again(|| self.look(key, live, |_| Some(Ok(())))).unwrap_or(Err(Reason::Contended)),
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

    #[inline(always)]
    pub(crate) fn copy<S: Surroundings>(&self, key: KeyRef<'_>, buffer: &mut Vec<u8>, surroundings: &mut S) -> Answer {
        let seen = self.glance::<_, _, SMALL_READ_BYTES>(
            key,
            surroundings,
            #[inline(always)]
            |found| if found.copy_into(buffer) { found.what() } else { None },
        );
        match seen {
            Ok((version, encoding)) => Answer::Found { version, encoding },
            Err(_) => self.copy_again(key, buffer, surroundings),
        }
    }

    #[cold]
    #[inline(never)]
    fn copy_again<S: Surroundings>(&self, key: KeyRef<'_>, buffer: &mut Vec<u8>, surroundings: &mut S) -> Answer {
        let mut what = None;
        let answer = again(|| {
            self.look(key, surroundings, |found| {
                what = found.what();
                (found.copy_into(buffer) && what.is_some()).then_some(Ok(()))
            })
        });
        if let (Some(Ok(true)), Some((version, encoding))) = (answer, what) {
            return Answer::Found { version, encoding };
        }
        // What a look copied that came to nothing.
        buffer.clear();
        answer.map_or(Answer::Ask(Reason::Contended), |answer| answer.map_or_else(Answer::Ask, |_| Answer::NotFound))
    }

    #[inline(always)]
    pub(crate) fn in_place<S: Surroundings>(
        &self,
        key: KeyRef<'_>,
        surroundings: &mut S,
    ) -> Result<Option<Ref>, Reason> {
        match self.pin_at_once(key, surroundings) {
            Some(found) => Ok(Some(found)),
            None => self.pin_again(key, surroundings),
        }
    }

    #[inline(always)]
    fn pin_at_once<S: Surroundings>(&self, key: KeyRef<'_>, surroundings: &mut S) -> Option<Ref> {
        let holder = self.holder.as_ref()?;
        // Until it is certain there is no guard: it would have to lie in memory, for whatever might drop it.
        let seen = self.glance::<_, _, HEAD_READ_BYTES>(
            key,
            surroundings,
            #[inline(always)]
            |found| {
                found.block.encoding()?;
                Some((holder.pin_at_once(found.block.at)?, found.head()))
            },
        );
        match seen {
            Ok((pin, head)) => Some(Ref::new(pin, head)),
            // What was pinned in a look that came to nothing ends here.
            Err(taken) => {
                drop(taken.map(|(pin, head)| Ref::new(pin, head)));
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn pin_again<S: Surroundings>(&self, key: KeyRef<'_>, surroundings: &mut S) -> Result<Option<Ref>, Reason> {
        let Some(holder) = &self.holder else { return Err(Reason::NoPin) };
        again(|| {
            let mut pinned = None;
            let found = self.look(key, surroundings, |found| {
                found.block.encoding()?;
                let Some(pin) = holder.pin(found.block.at) else { return Some(Err(Reason::NoPin)) };
                pinned = Some(Ref::new(pin, found.head()));
                Some(Ok(()))
            })?;
            // What was pinned in a look that came to nothing ends here.
            Some(found.map(|found| pinned.filter(|_| found)))
        })
        .unwrap_or(Err(Reason::Contended))
    }
}

#[cfg(test)]
mod tests;
