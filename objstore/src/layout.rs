//! Where everything lies in the file. All of it follows from three numbers: stars, entries and the size of the area.

use std::path::PathBuf;

use star_core::{Incarnation, config::GroupAccess};

use crate::error::OpenError;

/// "STARSTOR" in the machine's byte order: a file from a machine of the other order is foreign.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"STARSTOR");
/// The format that this program writes, and the only one that it reads.
pub(crate) const FORMAT: u32 = 3;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Bytes of a word, the unit of every shared access.
pub(crate) const WORD: usize = 8;
/// Words of an index bucket: sequence, slots, next. One cache line.
pub(crate) const BUCKET_WORDS: usize = 8;
/// The word of the header that says how many buckets are in use: in the line that a reader looks at first.
pub(crate) const EXTENT_WORD: usize = 39;
/// Slots of a bucket.
pub(crate) const BUCKET_SLOTS: usize = 6;
/// Records of the pin table; the first is its head.
pub(crate) const PIN_RECORDS: usize = 256;
/// Words of a record, eight cache lines.
pub(crate) const PIN_RECORD_WORDS: usize = 64;
/// Bytes of the pin table.
pub(crate) const PINS_BYTES: usize = PIN_RECORDS * PIN_RECORD_WORDS * WORD;
/// Words of a star's note, four cache lines.
pub(crate) const NOTE_WORDS: usize = 32;
/// What a mapping begins at.
pub(crate) const SYSTEM_PAGE_BYTES: usize = 4096;
/// Bytes of a page of the object area, the unit in which small objects get room.
pub(crate) const PAGE_BYTES: usize = 64 * 1024;
/// The most stars that a store can serve.
pub const STARS_MAX: u16 = 1024;
/// The longest cluster id, in bytes.
pub const CLUSTER_BYTES_MAX: usize = 64;

const CAPACITY_BYTES_MIN: u64 = 1 << 20;
// Slots count the area in units of 16 bytes with 46 bits; far more than any machine has, and it keeps sums from overflowing.
const CAPACITY_BYTES_MAX: u64 = 1 << 46;
// Bucket numbers are 32 bits wide.
const ENTRIES_MAX: u64 = 1 << 33;
/// The object size that the default number of entries is made for.
const BYTES_PER_ENTRY: u64 = 128;
const ENTRIES_DEFAULT_MIN: u64 = 1024;

/// How to make or open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file, best on a memory file system: `/dev/shm/star/<cluster>/<server>`.
    pub path: PathBuf,
    /// Bytes for objects with their keys, at least 1 MiB; rounded up to whole pages of 64 KiB.
    pub capacity_bytes: u64,
    /// The most keys; without it one per 128 bytes of capacity. The index takes about 20 bytes for each, beside the capacity.
    pub entries_max: Option<u64>,
    /// Stars of the cluster, 1 to [`STARS_MAX`].
    pub stars: u16,
    /// The cluster's id, at most [`CLUSTER_BYTES_MAX`] bytes.
    pub cluster: String,
    /// The life of the server that writes from now on.
    pub incarnation: Incarnation,
    /// Who else of the file's group may read it.
    pub group: GroupAccess,
    /// Whether to ask for huge pages. Where the system has none, ordinary ones do as well, at less speed.
    pub huge_pages: bool,
}

/// The places of everything in a file, in bytes from its start unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) stars: u16,
    pub(crate) entries_max: u64,
    /// Buckets that keys hash to when all are in use; about `entries_max / 4`, so a full index has 4 of 6 slots taken on
    /// average.
    pub(crate) buckets: u64,
    /// Buckets that overfull ones are continued in.
    pub(crate) overflow: u64,
    /// The pin table, on pages of its own: readers map nothing else for writing.
    pub(crate) pins_at: usize,
    /// How far each star's objects go in its order.
    pub(crate) notes_at: usize,
    /// Room for the keys of marks, so that a key whose value found room can be marked dirty too.
    pub(crate) marks_at: usize,
    pub(crate) marks_bytes: usize,
    pub(crate) area_at: usize,
    pub(crate) area_bytes: usize,
    pub(crate) file_bytes: usize,
}

impl Geometry {
    pub(crate) fn of_options(options: &Options) -> Result<Self, OpenError> {
        if options.capacity_bytes < CAPACITY_BYTES_MIN {
            return Err(OpenError::Options(format!(
                "a capacity of {} bytes is too small; give at least {CAPACITY_BYTES_MIN}",
                options.capacity_bytes
            )));
        }
        if options.cluster.len() > CLUSTER_BYTES_MAX {
            return Err(OpenError::Options(format!(
                "the cluster id has {} bytes; give at most {CLUSTER_BYTES_MAX}",
                options.cluster.len()
            )));
        }
        let entries = options
            .entries_max
            .unwrap_or_else(|| (options.capacity_bytes / BYTES_PER_ENTRY).clamp(ENTRIES_DEFAULT_MIN, ENTRIES_MAX));
        // Checked before rounding, which would overflow for the largest numbers.
        let area = options.capacity_bytes.min(CAPACITY_BYTES_MAX + 1).next_multiple_of(PAGE_BYTES as u64);
        Self::new(options.stars, entries, area).ok_or_else(|| {
            OpenError::Options(format!(
                "{} stars (1 to {STARS_MAX}), {entries} entries (1 to {ENTRIES_MAX}), {} bytes (to {CAPACITY_BYTES_MAX})",
                options.stars, options.capacity_bytes
            ))
        })
    }

    /// None if a number is out of its bounds. `area_bytes` is a whole number of pages.
    pub(crate) fn new(stars: u16, entries_max: u64, area_bytes: u64) -> Option<Self> {
        let sound = (1..=STARS_MAX).contains(&stars)
            && (1..=ENTRIES_MAX).contains(&entries_max)
            && (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(&area_bytes)
            && area_bytes.is_multiple_of(PAGE_BYTES as u64);
        if !sound {
            return None;
        }
        let buckets = entries_max.div_ceil(4);
        let overflow = (buckets / 4).max(16);
        let index_bytes = usize::try_from(buckets + overflow).ok()? * BUCKET_WORDS * WORD;
        // Pages of the system, so that large values can be given to others as they are.
        let pins_at = (HEADER_BYTES + index_bytes).next_multiple_of(SYSTEM_PAGE_BYTES);
        let notes_at = pins_at + PINS_BYTES;
        let notes_bytes = (usize::from(stars) * NOTE_WORDS * WORD).next_multiple_of(SYSTEM_PAGE_BYTES);
        let marks_at = notes_at + notes_bytes;
        let area_bytes = usize::try_from(area_bytes).ok()?;
        let marks_bytes = (area_bytes / 64).clamp(4 * PAGE_BYTES, 256 * PAGE_BYTES).next_multiple_of(PAGE_BYTES);
        let area_at = marks_at + marks_bytes;
        let file_bytes = area_at + area_bytes;
        Some(Self {
            stars,
            entries_max,
            buckets,
            overflow,
            pins_at,
            notes_at,
            marks_at,
            marks_bytes,
            area_at,
            area_bytes,
            file_bytes,
        })
    }

    /// The end of the object area, which is the end of the file.
    #[inline]
    pub(crate) fn area_end(&self) -> usize {
        self.file_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_index_costs_about_twenty_bytes_an_entry() {
        let geometry = Geometry::new(8, 1 << 20, 1 << 27).unwrap();
        let index_bytes = geometry.pins_at - HEADER_BYTES;
        assert!(index_bytes <= 20 << 20, "{index_bytes}");
    }

    #[test]
    fn numbers_out_of_bounds_are_refused_without_overflow() {
        for (stars, entries, area) in [
            (0, 1, 1 << 20),
            (1025, 1, 1 << 20),
            (1, 0, 1 << 20),
            (1, u64::MAX, 1 << 20),
            (1, 1, 0),
            (1, 1, u64::MAX),
            (1, 1, (1 << 20) + 1),
        ] {
            assert_eq!(Geometry::new(stars, entries, area), None);
        }
    }
}
