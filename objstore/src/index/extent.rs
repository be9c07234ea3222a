//! How many buckets are in use: linear hashing, one bucket more at a time.
//!
//! Of `n` buckets in use those beyond the last power of two have been split off the ones as many places before. A hash's
//! bucket is as many of its bits as `n - 1` has, or one less where that number is not in use yet.

use std::sync::atomic::Ordering::Relaxed;

use super::Table;
use crate::{
    layout::{BUCKET_SLOTS, EXTENT_WORD},
    words::Words,
};

const USED_BITS: u32 = 32;

/// The buckets in use, in one word, which changes with each split: in the lower half how many, in the upper the mask that
/// follows from it, so that a reader need not work it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent(u64);

impl Extent {
    /// That of `used` buckets, at least one and at most 2^31.
    pub(crate) fn of(used: u64) -> Self {
        Self((used.next_power_of_two() - 1) << USED_BITS | used)
    }

    #[inline]
    pub(crate) fn load(memory: &impl Words) -> Self {
        // Relaxed: who sees a bucket in use meets, with the fence before the last look at it, the one that a split makes
        // before it stores this; so that look sees that the bucket was closed.
        Self(memory.load(EXTENT_WORD, Relaxed))
    }

    pub(crate) fn store(self, memory: &impl Words) {
        memory.store(EXTENT_WORD, self.0, Relaxed);
    }

    #[inline]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn used(self) -> u64 {
        self.0 & ((1 << USED_BITS) - 1)
    }

    /// The bucket of a hash: by its upper half, since the star goes by the lowest bits and the tag by others. No branch:
    /// which of the two it is cannot be foreseen.
    #[inline]
    pub(super) fn home(self, hash: u64) -> u64 {
        let mask = self.0 >> USED_BITS;
        let number = (hash >> 32) & mask;
        number & (mask >> u64::from(number >= self.used()))
    }

    /// The bucket that the last one was split off; None while there is only one.
    pub(crate) fn last_split(self) -> Option<u64> {
        let last = self.used().checked_sub(1).filter(|last| *last > 0)?;
        Some(last & !(1 << last.ilog2()))
    }

    /// What the file says, if it can be; else what the buckets say: those behind the last one in use are empty. One more
    /// may not be, if its writer was killed when it had begun to fill it.
    pub(crate) fn recovered(memory: &impl Words, table: &Table) -> Self {
        let said = Self::load(memory);
        let is_taken = |bucket: &u64| {
            let slots = Table::at_word(*bucket) + 1..=Table::at_word(*bucket) + BUCKET_SLOTS;
            slots.into_iter().any(|at_word| memory.load(at_word, Relaxed) != 0)
        };
        let last = (0..table.buckets).rev().find(is_taken).unwrap_or(0);
        let is_sound = (1..=table.buckets).contains(&said.used()) && said == Self::of(said.used());
        if is_sound && last <= said.used() { said } else { Self::of(last + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bucket_more_takes_keys_from_one_other_alone() {
        let hashes = (0..3000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for used in 1..200 {
            let (before, after) = (Extent::of(used), Extent::of(used + 1));
            let split = after.last_split().unwrap();
            for hash in hashes.clone() {
                let (old, new) = (before.home(hash), after.home(hash));
                assert!(old < used && (new == old || new == used && old == split), "{used}: {old}, {new}");
            }
            let moved = hashes.clone().filter(|hash| after.home(*hash) == used).count();
            assert!(moved > 3000 / (used as usize + 1).next_power_of_two() / 3, "{used}: {moved}");
        }
    }
}
