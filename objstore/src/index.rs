//! The index: buckets, each one cache line under a sequence lock, continued in overflow buckets. There is room for a fixed
//! number of them; how many are in use grows with the number of keys, so that few keys lie in few lines and pages.
//!
//! A bucket's sequence is odd while the bucket or its continuation changes. A reader that finds the same even number
//! before and after has seen one state of the whole bucket; so "there is no such key" is as sound an answer as a value,
//! if the key's bucket is still that one: see [`Table::is_home`].
//! A slot is one word, so a writer killed at any instruction leaves each slot as it was before or as it is after.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::{
    block::BLOCK_ALIGN,
    layout::{BUCKET_SLOTS, BUCKET_WORDS, EXTENT_WORD, Geometry, HEADER_BYTES, WORD},
    memory::Memory,
    words::Words,
};

mod chain;
mod extent;
mod grow;

pub(crate) use chain::{Chain, Leftover};
pub(crate) use extent::Extent;

const OFFSET_BITS: u32 = 46;
const OBJECT: u64 = 1 << 46;
const DIRTY: u64 = 1 << 47;
const TAG_SHIFT: u32 = 48;
/// The word of a bucket that names its continuation: an overflow bucket's number plus one, or 0.
const NEXT: usize = 1 + BUCKET_SLOTS;

/// What the index holds of a key, in one word. Zero is an empty slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u64);

impl Slot {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn new(hash: u64, block_at: usize, object: bool, dirty: bool) -> Self {
        let flags = if object { OBJECT } else { 0 } | if dirty { DIRTY } else { 0 };
        Self(u64::from(tag(hash)) << TAG_SHIFT | flags | (block_at / BLOCK_ALIGN) as u64)
    }

    #[cfg(test)]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn tag(self) -> u16 {
        (self.0 >> TAG_SHIFT) as u16
    }

    /// Where the block with the key begins in the file.
    #[inline]
    pub(crate) fn block_at(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * BLOCK_ALIGN
    }

    /// Whether the block is the key's object. If not, it only holds the key for the mark.
    #[inline]
    pub(crate) fn has_object(self) -> bool {
        self.0 & OBJECT != 0
    }

    #[inline]
    pub(crate) fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    pub(crate) fn with_dirty(self, dirty: bool) -> Self {
        Self(self.0 & !DIRTY | if dirty { DIRTY } else { 0 })
    }

    pub(crate) fn without_object(self) -> Self {
        Self(self.0 & !OBJECT)
    }
}

/// Bits of the hash that neither choose the bucket nor, as a rule, the star.
#[inline]
pub(crate) fn tag(hash: u64) -> u16 {
    (hash >> 16) as u16
}

/// Where a slot stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The bucket that the key hashes to; its sequence guards the slot.
    pub(crate) home: u64,
    /// The bucket that the slot is in.
    bucket: u64,
    at_word: usize,
}

/// What a reader holds between its first look at a bucket and its last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    home: u64,
    sequence: u64,
}

/// The bucket that a reader looks into, and why that one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    pub(crate) home: u64,
    extent: Extent,
}

/// The shape of the index, the same for the writer and the readers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) buckets: u64,
    pub(crate) overflow: u64,
}

impl Table {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self { buckets: geometry.buckets, overflow: geometry.overflow }
    }

    /// The bucket of a hash now.
    #[inline]
    pub(crate) fn home(&self, memory: &impl Words, hash: u64) -> u64 {
        self.home_among(Extent::load(memory), hash)
    }

    /// The bucket of a hash while so many are in use. Always one that there is room for, also if the extent is damaged.
    #[inline]
    pub(crate) fn home_among(&self, extent: Extent, hash: u64) -> u64 {
        extent.home(hash).min(self.buckets - 1)
    }

    #[inline]
    pub(crate) fn at_word(bucket: u64) -> usize {
        HEADER_BYTES / WORD + bucket as usize * BUCKET_WORDS
    }

    /// The bucket after this one in its chain; None at the end, and where the word is not a bucket's number.
    #[inline]
    pub(crate) fn next(&self, memory: &impl Words, bucket: u64) -> Option<u64> {
        self.overflow_bucket(memory.load(Self::at_word(bucket) + NEXT, Relaxed))
    }

    /// The bucket that a bucket's last word leads to.
    #[inline]
    fn overflow_bucket(&self, next: u64) -> Option<u64> {
        (1..=self.overflow).contains(&next).then(|| self.buckets + next - 1)
    }

    /// Looks through the hash's bucket and its continuation for a slot with its tag that `matches`.
    #[inline]
    pub(crate) fn find(
        &self,
        memory: &impl Words,
        hash: u64,
        matches: impl FnMut(Slot) -> bool,
    ) -> Option<(Position, Slot)> {
        self.find_in(memory, self.home(memory, hash), hash, matches)
    }

    /// The same in the bucket `home`.
    #[inline(always)]
    pub(crate) fn find_in(
        &self,
        memory: &impl Words,
        home: u64,
        hash: u64,
        mut matches: impl FnMut(Slot) -> bool,
    ) -> Option<(Position, Slot)> {
        let mut bucket = home;
        let mut left = self.overflow;
        loop {
            let first = Self::at_word(bucket) + 1;
            let mut candidates = memory.tagged::<BUCKET_SLOTS>(first, tag(hash));
            while candidates != 0 {
                let at_word = first + candidates.trailing_zeros() as usize / 4;
                let slot = Slot(memory.load(at_word, Relaxed));
                if slot != Slot::EMPTY && matches(slot) {
                    return Some((Position { home, bucket, at_word }, slot));
                }
                candidates &= candidates - 1;
            }
            bucket = self.next(memory, bucket)?;
            // A reader can be led in circles by a chain that changes under it; no true chain is longer than this.
            left = left.checked_sub(1)?;
        }
    }

    /// The first slot of a bucket itself, without its continuation, that has the hash's tag and an object.
    #[inline(always)]
    pub(crate) fn first(memory: &impl Words, home: u64, hash: u64) -> Option<Slot> {
        let first = Self::at_word(home) + 1;
        let candidates = memory.tagged::<BUCKET_SLOTS>(first, tag(hash));
        if candidates == 0 {
            return None;
        }
        Some(Slot(memory.load(first + candidates.trailing_zeros() as usize / 4, Relaxed)))
            .filter(|slot| slot.has_object())
    }

    /// Asks for the line of a hash's bucket.
    #[inline]
    pub(crate) fn prefetch(&self, memory: &Memory, hash: u64) {
        memory.prefetch(Self::at_word(self.home(memory, hash)) * WORD, BUCKET_WORDS * WORD);
    }

    /// A slot of the hash's own bucket that may be the key's, of whatever moment: only good to ask for its block early.
    #[inline]
    pub(crate) fn guess(&self, memory: &Memory, hash: u64) -> Option<Slot> {
        let row: [u64; BUCKET_SLOTS] = memory.load_row(Self::at_word(self.home(memory, hash)) + 1);
        row.into_iter().map(Slot).find(|slot| slot.tag() == tag(hash) && *slot != Slot::EMPTY)
    }

    /// Calls `visit` for each taken slot of a bucket and its continuation. Returns false, and ends early, where the chain
    /// is led back into itself: by damage, or for a reader by a change.
    pub(crate) fn each(&self, memory: &impl Words, home: u64, mut visit: impl FnMut(Slot)) -> bool {
        let (mut bucket, mut passed) = (home, Vec::new());
        loop {
            let slots = Self::slots(bucket).map(|at_word| Slot(memory.load(at_word, Relaxed)));
            slots.filter(|slot| *slot != Slot::EMPTY).for_each(&mut visit);
            match self.next(memory, bucket) {
                None => return true,
                Some(next) if passed.contains(&next) => return false,
                Some(next) => {
                    passed.push(next);
                    bucket = next;
                }
            }
        }
    }

    fn slots(bucket: u64) -> std::ops::RangeInclusive<usize> {
        Self::at_word(bucket) + 1..=Self::at_word(bucket) + BUCKET_SLOTS
    }

    /// Where a reader looks for a hash, unless the bucket is split by then.
    #[inline]
    pub(crate) fn aim(&self, memory: &impl Words, hash: u64) -> Aim {
        let extent = Extent::load(memory);
        Aim { home: self.home_among(extent, hash), extent }
    }

    /// A reader's first look at a bucket: None while it changes.
    #[inline]
    pub(crate) fn begin(memory: &impl Words, home: u64) -> Option<Ticket> {
        // Acquire: what the writer stored before it closed the bucket is seen by what the reader loads after this.
        let sequence = memory.load(Self::at_word(home), Acquire);
        sequence.is_multiple_of(2).then_some(Ticket { home, sequence })
    }

    /// A reader's last look: whether all that was loaded since [`Self::begin`] belongs to one state of the bucket.
    #[inline]
    pub(crate) fn unchanged(memory: &impl Words, ticket: Ticket) -> bool {
        // If any load before saw a later store of the writer, this fence meets the writer's, and the sequence is newer.
        memory.fence(Acquire);
        memory.load(Self::at_word(ticket.home), Relaxed) == ticket.sequence
    }

    /// Whether a key that was not in the bucket is in no other either: not if the bucket was split before the first look,
    /// and the reader did not know. A key that was found needs no such look, since one that moves changes its bucket.
    #[inline]
    pub(crate) fn is_home(memory: &impl Words, aim: Aim) -> bool {
        // The split stored the extent before it closed the bucket with the sequence that `begin` has seen.
        memory.load(EXTENT_WORD, Relaxed) == aim.extent.word()
    }
}

/// The writer's side of the index.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) table: Table,
    entries_max: u64,
    /// Slots that are taken.
    taken: u64,
    /// Overflow buckets that are in no chain.
    free: Vec<u32>,
}

impl Index {
    /// The index of a new file, whose words are all 0.
    pub(crate) fn empty(memory: &Memory, geometry: &Geometry) -> Self {
        Extent::of(1).store(memory);
        let free = (0..geometry.overflow as u32).rev().collect();
        Self { table: Table::new(geometry), entries_max: geometry.entries_max, taken: 0, free }
    }

    /// The index of a file whose slots were checked, with these overflow buckets in no chain.
    pub(crate) fn recovered(geometry: &Geometry, taken: u64, free: Vec<u32>) -> Self {
        Self { table: Table::new(geometry), entries_max: geometry.entries_max, taken, free }
    }

    /// Whether a new key may be placed, while `reserved` placed values may each still need a slot.
    pub(crate) fn has_room_for_key(&self, reserved: u64) -> bool {
        self.has_room(reserved, self.entries_max)
    }

    /// Whether a slot may be used for a mark, or for a key that has one already. They get a little more room, so that a
    /// full index still takes new versions of its keys. The buckets have half as many slots again as entries.
    pub(crate) fn has_room_for_mark(&self, reserved: u64) -> bool {
        self.has_room(reserved, self.entries_max + self.entries_max / 8 + 16)
    }

    fn has_room(&self, reserved: u64, limit: u64) -> bool {
        self.taken + reserved < limit && self.free.len() as u64 > reserved
    }

    /// Changes one bucket so that readers see all of the change or none.
    pub(crate) fn change<R>(memory: &impl Words, home: u64, change: impl FnOnce() -> R) -> R {
        let at_word = Table::at_word(home);
        let sequence = memory.load(at_word, Relaxed);
        memory.store(at_word, sequence.wrapping_add(1), Relaxed);
        // Release, as a fence: whoever sees any later store, of this change or of a block that it frees, sees the odd
        // sequence or a newer one.
        memory.fence(Release);
        let result = change();
        memory.store(at_word, sequence.wrapping_add(2), Release);
        result
    }

    /// Puts a slot in place of one.
    pub(crate) fn replace(memory: &impl Words, position: Position, slot: Slot) {
        Self::change(memory, position.home, || memory.store(position.at_word, slot.0, Relaxed));
    }

    /// Adds a slot for a key that has none. The caller made sure of room with [`Self::has_room`]; [`Self::grow`] is due.
    pub(crate) fn insert(&mut self, memory: &impl Words, hash: u64, slot: Slot) {
        let home = self.table.home(memory, hash);
        self.taken += 1;
        let mut bucket = home;
        loop {
            let empty = Table::slots(bucket).find(|at_word| memory.load(*at_word, Relaxed) == 0);
            if let Some(at_word) = empty {
                return Self::change(memory, home, || memory.store(at_word, slot.0, Relaxed));
            }
            match self.table.next(memory, bucket) {
                Some(next) => bucket = next,
                None => break,
            }
        }
        let overflow = self.free.pop().expect("room was checked before the slot was promised");
        let at_word = Table::at_word(self.table.buckets + u64::from(overflow));
        Self::change(memory, home, || {
            // The continuation is whole before it is linked: a crash between the two leaves it free.
            memory.store(at_word + 1, slot.0, Relaxed);
            memory.store(Table::at_word(bucket) + NEXT, u64::from(overflow) + 1, Release);
        });
    }

    /// Empties a slot, and gives its bucket back if it was a continuation and held nothing else.
    pub(crate) fn clear(&mut self, memory: &impl Words, position: Position) {
        self.taken -= 1;
        let Position { home, bucket, at_word } = position;
        let last = Table::slots(bucket).all(|other| other == at_word || memory.load(other, Relaxed) == 0);
        Self::change(memory, home, || {
            memory.store(at_word, 0, Relaxed);
            if bucket != home && last {
                self.unlink(memory, home, bucket);
            }
        });
    }

    fn unlink(&mut self, memory: &impl Words, home: u64, bucket: u64) {
        let mut before = home;
        while let Some(next) = self.table.next(memory, before) {
            if next == bucket {
                let after = memory.load(Table::at_word(bucket) + NEXT, Relaxed);
                memory.store(Table::at_word(before) + NEXT, after, Relaxed);
                memory.store(Table::at_word(bucket) + NEXT, 0, Relaxed);
                self.free.push((bucket - self.table.buckets) as u32);
                return;
            }
            before = next;
        }
    }
}
