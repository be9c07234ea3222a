//! The header: what the file is, and what its readers may answer by themselves.
//!
//! The second part, the *permission*, is under a sequence lock of its own, the generation: it changes whenever the
//! writer takes something back (a shorter lease, a star not served) or begins a new life. A reader takes the permission
//! *before* it looks at an object, and checks after it that the generation is the same and that the lease which it
//! took then has not run out. Taking it after the look would not do: a server that was out of its view, came back and
//! caught up in between would vouch for what the reader saw before.

use std::{
    path::Path,
    sync::atomic::{
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};

use star_core::{Incarnation, StarId, Time};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::OpenError,
    layout::{CLUSTER_BYTES_MAX, EXTENT_WORD, FORMAT, Geometry, HEADER_BYTES, MAGIC, STARS_MAX, WORD},
    memory::Memory,
    reader::Reason,
};

/// Numbers of words in the header.
mod word {
    // What the file is: never changes. The checksum covers all words before it.
    pub(super) const MAGIC: usize = 0;
    pub(super) const FORMAT: usize = 1;
    pub(super) const STARS: usize = 2;
    pub(super) const ENTRIES: usize = 3;
    pub(super) const AREA_BYTES: usize = 4;
    pub(super) const CLUSTER_BYTES: usize = 5;
    pub(super) const CLUSTER: usize = 6;
    pub(super) const CHECKSUM: usize = 14;
    // Who writes it: changes when it is opened.
    pub(super) const INCARNATION: usize = 15;
    pub(super) const PID: usize = 16;
    pub(super) const BOOT: usize = 17;
    // The permission, in cache lines that change seldom.
    pub(super) const GENERATION: usize = 32;
    pub(super) const LEASE: usize = 33;
    pub(super) const SUPERSEDED: usize = 34;
    // 39, the last of this line: the extent of the index.
    pub(super) const SERVING: usize = 64;
    pub(super) const SERVING_END: usize = 80;
    // The writer's own count, away from what readers look at.
    pub(super) const PLACED: usize = 96;
}

const _: () = assert!(
    word::CLUSTER + CLUSTER_BYTES_MAX / WORD == word::CHECKSUM
        && (word::SERVING_END - word::SERVING) * 64 == STARS_MAX as usize
        && word::PLACED < HEADER_BYTES / WORD
        && EXTENT_WORD > word::SUPERSEDED
        && EXTENT_WORD / 8 == word::GENERATION / 8
);

/// The header of a mapped file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a>(pub(crate) &'a Memory);

/// What a reader was allowed when it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit {
    generation: u64,
    lease_until: Time,
}

/// Why a reader may not give the answer that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The permission changed: look again.
    Changed,
    /// The lease that it began with has run out.
    Lapsed,
}

impl Header<'_> {
    /// Describes a new file. The magic comes last: a file without it is nobody's.
    pub(crate) fn describe(self, geometry: &Geometry, cluster: &str) {
        self.set(word::FORMAT, u64::from(FORMAT));
        self.set(word::STARS, u64::from(geometry.stars));
        self.set(word::ENTRIES, geometry.entries_max);
        self.set(word::AREA_BYTES, geometry.area_bytes as u64);
        self.set(word::CLUSTER_BYTES, cluster.len() as u64);
        self.0.write_padded(word::CLUSTER, cluster.as_bytes());
        self.set(word::CHECKSUM, self.checksum());
        self.0.store(word::MAGIC, MAGIC, Release);
    }

    /// Whether the file says that it is a store, of whatever format.
    pub(crate) fn is_store(self) -> bool {
        self.get(word::MAGIC) == MAGIC
    }

    pub(crate) fn has_format(self, format: u32) -> bool {
        self.get(word::FORMAT) == u64::from(format)
    }

    /// Checks the description, and that the file is as long as it says.
    pub(crate) fn geometry(self, path: &Path, file_bytes: u64) -> Result<Geometry, OpenError> {
        let path = || path.to_path_buf();
        let damaged = |what| OpenError::Damaged { path: path(), what };
        if !self.is_store() {
            return Err(OpenError::Foreign { path: path() });
        }
        let found = u32::try_from(self.get(word::FORMAT)).map_err(|_| damaged("format"))?;
        if found > FORMAT {
            return Err(OpenError::NewerFormat { path: path(), found, known: FORMAT });
        }
        if found != FORMAT {
            return Err(damaged("format"));
        }
        if self.get(word::CHECKSUM) != self.checksum() {
            return Err(damaged("checksum"));
        }
        let stars = u16::try_from(self.get(word::STARS)).map_err(|_| damaged("stars"))?;
        let geometry = Geometry::new(stars, self.get(word::ENTRIES), self.get(word::AREA_BYTES))
            .ok_or_else(|| damaged("geometry"))?;
        let wanted_bytes = geometry.file_bytes as u64;
        if file_bytes < wanted_bytes {
            return Err(OpenError::Truncated { path: path(), wanted_bytes, found_bytes: file_bytes });
        }
        if file_bytes > wanted_bytes {
            return Err(damaged("length"));
        }
        self.cluster().map(|_| geometry).ok_or_else(|| damaged("cluster id"))
    }

    /// The cluster's id; None if it is not one.
    pub(crate) fn cluster(self) -> Option<String> {
        let bytes = usize::try_from(self.get(word::CLUSTER_BYTES)).ok().filter(|bytes| *bytes <= CLUSTER_BYTES_MAX)?;
        let mut text = Vec::new();
        self.0.copy(word::CLUSTER, bytes, &mut text);
        String::from_utf8(text).ok()
    }

    fn checksum(self) -> u64 {
        let mut bytes = Vec::new();
        self.0.copy(0, word::CHECKSUM * WORD, &mut bytes);
        // The magic is stored after the checksum was taken.
        xxh3_64(&bytes[WORD..])
    }

    /// Begins the life of a writer, with nothing allowed yet. Readers are shut out until [`Self::end_change`].
    pub(crate) fn begin_life(self) {
        self.begin_change();
        self.set(word::LEASE, 0);
        self.set(word::SUPERSEDED, 0);
        (word::SERVING..word::SERVING_END).for_each(|at| self.set(at, 0));
    }

    pub(crate) fn set_writer(self, incarnation: Incarnation, pid: u32, boot: [u64; 2]) {
        self.set(word::INCARNATION, incarnation.0);
        self.set(word::PID, u64::from(pid));
        self.set(word::BOOT, boot[0]);
        self.set(word::BOOT + 1, boot[1]);
        self.set(word::PLACED, 0);
    }

    /// Ends the writer's life in good order: nothing is allowed any more.
    pub(crate) fn end_life(self) {
        self.set_lease(Time::ZERO);
        self.set(word::PID, 0);
    }

    /// Tells readers for good that another file has taken this one's place.
    pub(crate) fn supersede(self) {
        self.set(word::SUPERSEDED, 1);
        self.begin_change();
        self.set(word::LEASE, 0);
    }

    pub(crate) fn incarnation(self) -> Incarnation {
        Incarnation(self.get(word::INCARNATION))
    }

    pub(crate) fn pid(self) -> u64 {
        self.get(word::PID)
    }

    pub(crate) fn boot(self) -> [u64; 2] {
        [self.get(word::BOOT), self.get(word::BOOT + 1)]
    }

    /// Whether another file has taken this one's place.
    pub(crate) fn superseded(self) -> bool {
        self.get(word::SUPERSEDED) != 0
    }

    /// The lease as it stands, for people.
    pub(crate) fn lease(self) -> Time {
        Time(self.get(word::LEASE))
    }

    /// The stars that are served, for people.
    pub(crate) fn serving(self, stars: u16) -> Vec<u16> {
        let serves = |star: &u16| {
            let (at, bit) = serving_bit(StarId(*star));
            self.get(at) & bit != 0
        };
        (0..stars).filter(serves).collect()
    }

    /// Values that are placed and not published: what a crash would leave to be dropped.
    pub(crate) fn placed(self) -> u64 {
        self.get(word::PLACED)
    }

    pub(crate) fn set_placed(self, placed: u64) {
        self.set(word::PLACED, placed);
    }

    /// A longer lease only adds to what is allowed, and needs no new generation: a reader goes by the one it took.
    pub(crate) fn set_lease(self, until: Time) {
        if until.0 >= self.get(word::LEASE) {
            // Release: a reader that takes this lease sees all that the server had applied when it was given.
            self.0.store(word::LEASE, until.0, Release);
        } else {
            self.begin_change();
            self.set(word::LEASE, until.0);
            self.end_change();
        }
    }

    pub(crate) fn set_serving(self, star: StarId, serving: bool) {
        let (at, bit) = serving_bit(star);
        let old = self.get(at);
        let new = if serving { old | bit } else { old & !bit };
        if old != new {
            self.begin_change();
            self.set(at, new);
            self.end_change();
        }
    }

    fn begin_change(self) {
        // A writer that was killed in a change left the number odd.
        self.set(word::GENERATION, self.get(word::GENERATION) | 1);
        fence(Release);
    }

    pub(crate) fn end_change(self) {
        self.0.store(word::GENERATION, self.get(word::GENERATION).wrapping_add(1), Release);
    }

    /// A reader's first step: what it may answer, if anything.
    #[inline]
    pub(crate) fn permit(self, star: StarId) -> Result<Permit, Reason> {
        let generation = self.0.load_header(word::GENERATION, Acquire);
        let lease_until = Time(self.0.load_header(word::LEASE, Acquire));
        if generation % 2 == 1 || lease_until == Time::ZERO {
            let superseded = self.get(word::SUPERSEDED) != 0;
            return Err(if superseded { Reason::Moved } else { Reason::NoLease });
        }
        let (at, bit) = serving_bit(star);
        if self.0.load_header(at, Acquire) & bit == 0 {
            return Err(Reason::NotServing);
        }
        Ok(Permit { generation, lease_until })
    }

    /// A reader's last step: whether what it was allowed at the first has held all the time. `in_time` says whether the
    /// clock is before a lease's end.
    #[inline(always)]
    pub(crate) fn confirm(self, permit: Permit, in_time: impl FnOnce(Time) -> bool) -> Result<(), Refusal> {
        fence(Acquire);
        if self.0.load_header(word::GENERATION, Relaxed) != permit.generation {
            return Err(Refusal::Changed);
        }
        if in_time(permit.lease_until) { Ok(()) } else { Err(Refusal::Lapsed) }
    }

    fn get(self, at_word: usize) -> u64 {
        self.0.load(at_word, Relaxed)
    }

    fn set(self, at_word: usize, value: u64) {
        self.0.store(at_word, value, Relaxed);
    }
}

/// The word and the bit of a star. Stars are checked to be below [`STARS_MAX`] where the file is made.
#[inline]
fn serving_bit(star: StarId) -> (usize, u64) {
    (word::SERVING + usize::from(star.0 % STARS_MAX) / 64, 1 << (star.0 % 64))
}
