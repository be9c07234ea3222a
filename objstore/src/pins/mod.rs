//! Pins: how a reader keeps an object's room from being used again while it looks at the object in place.
//!
//! A pin is a word in the pin table that names a block. The reader stores it, and then looks whether the key's bucket is
//! still as it was; the writer takes the block out of the bucket, and then looks whether a pin names it. A full fence on
//! either side between the two steps makes at least one of them see the other: see `DESIGN/objstore.md`.

mod holder;
mod limbo;

use std::{
    fs::File,
    sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst},
};

pub(crate) use holder::Holder;
pub(crate) use limbo::Limbo;

use crate::{
    layout::{Geometry, PIN_RECORD_WORDS, PIN_RECORDS, WORD},
    lock,
    words::{Claims, Words},
};

/// The word of the table's head that says how many records were ever claimed, the head among them.
const RECORDS: usize = 0;
/// Words of a record: who claimed it, for people; how many of its slots count as used; from here on the slots.
const PID: usize = 0;
const USED: usize = 1;
const SLOTS_AT: usize = 8;
/// Pins that a record has room for.
pub(crate) const SLOTS: usize = PIN_RECORD_WORDS - SLOTS_AT;
/// So many of its slots count as used from the beginning: a line. To pin in one of these takes no look at how many are.
pub(crate) const QUICK: usize = 8;

/// The writer's sign that it lives: a lock on the first byte of the table's head, which is nobody's record. Unlike the lock
/// that keeps other writers away, it can be asked for without being tried.
pub(crate) fn show_writer(file: &File, geometry: &Geometry) {
    // Where the system has no such locks, nobody is told.
    let _ = lock::try_lock(file, geometry.pins_at);
}

/// Takes the sign back.
pub(crate) fn hide_writer(file: &File, geometry: &Geometry) {
    let _ = lock::unlock(file, geometry.pins_at);
}

/// Whether a file has a writer that lives.
pub(crate) fn has_writer(file: &File, geometry: &Geometry) -> bool {
    lock::is_locked(file, geometry.pins_at).unwrap_or(false)
}

/// The shape of the pin table, the same for the writer and the readers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PinTable {
    /// The word that it begins at: readers map it apart from the rest.
    first: usize,
}

impl PinTable {
    /// The table in a mapping of the whole file.
    pub(crate) fn of_file(geometry: &Geometry) -> Self {
        Self { first: geometry.pins_at / WORD }
    }

    /// The table in a mapping of nothing else.
    pub(crate) fn alone() -> Self {
        Self { first: 0 }
    }

    fn record(self, record: usize) -> usize {
        self.first + record * PIN_RECORD_WORDS
    }

    fn slot(self, record: usize, slot: usize) -> usize {
        self.record(record) + SLOTS_AT + slot
    }

    /// Makes a record one's own, which the caller has locked. What a dead one left in it ends here.
    fn take_over(self, memory: &impl Words, record: usize, pid: u32) {
        self.clear(memory, record);
        memory.store(self.record(record) + USED, QUICK as u64, Relaxed);
        memory.store(self.record(record) + PID, u64::from(pid), Relaxed);
        memory.raise(self.first + RECORDS, record as u64 + 1);
    }

    /// Ends all pins of a record whose owner is gone. The caller has locked it.
    fn clear(self, memory: &impl Words, record: usize) {
        (0..SLOTS).for_each(|slot| memory.store(self.slot(record, slot), 0, Release));
        memory.store(self.record(record) + USED, 0, Relaxed);
        memory.store(self.record(record) + PID, 0, Relaxed);
    }

    /// Pins a block in the first free slot of a record from `from` on; returns the slot's word, None if all are used.
    ///
    /// The pin holds only if the bucket that named the block is found unchanged after this call.
    pub(crate) fn pin(self, memory: &impl Words, record: usize, from: usize, block_at: usize) -> Option<usize> {
        for i in 0..SLOTS {
            // No remainder: `from` is a slot's number.
            let slot = if from + i < SLOTS { from + i } else { from + i - SLOTS };
            if let Some(at_word) = self.pin_in(memory, record, slot, block_at) {
                return Some(at_word);
            }
        }
        None
    }

    /// The same in this very slot; None if it is used.
    fn pin_in(self, memory: &impl Words, record: usize, slot: usize, block_at: usize) -> Option<usize> {
        let at_word = self.slot(record, slot);
        if memory.load(at_word, Relaxed) != 0 {
            return None;
        }
        let used = self.record(record) + USED;
        if memory.load(used, Relaxed) <= slot as u64 {
            memory.raise(used, slot as u64 + 1);
        }
        Self::pin_at(memory, at_word, block_at).then_some(at_word)
    }

    /// The same in the slot that is this word, which counts as used; false if it is.
    #[inline(always)]
    pub(crate) fn pin_at(memory: &(impl Claims + ?Sized), at_word: usize, block_at: usize) -> bool {
        let pinned = memory.claim(at_word, block_at as u64);
        if pinned {
            // The pin is seen by everyone before the bucket is looked at again.
            memory.fence_after_claim();
        }
        pinned
    }

    /// The first slot of a record, as a word.
    pub(crate) fn first_slot(self, record: usize) -> usize {
        self.slot(record, 0)
    }

    /// Ends a pin.
    #[cfg(test)]
    pub(crate) fn unpin(memory: &impl Words, at_word: usize) {
        memory.store(at_word, 0, Release);
    }

    /// Whether there is a pin in a record. Acquire: who finds that there is none knows that their readers are done.
    fn has_pins(self, memory: &impl Words, record: usize) -> bool {
        (0..SLOTS).any(|slot| memory.load(self.slot(record, slot), Acquire) != 0)
    }

    /// Whether a pin names this block, which the caller has taken out of its bucket.
    pub(crate) fn is_pinned(self, memory: &impl Words, block_at: usize) -> bool {
        let mut found = false;
        self.scan(memory, |_, pinned| found |= pinned == block_at);
        found
    }

    /// All pins, as pairs of record and block; the blocks that the caller takes none of were taken out before.
    pub(crate) fn all(self, memory: &impl Words) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        self.scan(memory, |record, block_at| all.push((record, block_at)));
        all
    }

    #[inline]
    fn scan(self, memory: &impl Words, mut found: impl FnMut(usize, usize)) {
        // The bucket without the block is seen by everyone before the pins are looked at.
        memory.fence(SeqCst);
        // The file is not trusted to be whole: what it says is kept within the table.
        let records = (memory.load(self.first + RECORDS, Relaxed) as usize).min(PIN_RECORDS);
        for record in 1..records {
            let used = (memory.load(self.record(record) + USED, Relaxed) as usize).min(SLOTS);
            for slot in 0..used {
                // Acquire: whoever finds a pin gone knows that its reader is done.
                let pinned = memory.load(self.slot(record, slot), Acquire);
                if pinned != 0 {
                    found(record, pinned as usize);
                }
            }
        }
    }
}
