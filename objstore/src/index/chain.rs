//! A bucket and its continuation, as a crash left them.

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::{Extent, NEXT, Slot, Table};
use crate::{layout::BUCKET_WORDS, memory::Memory, words::Words};

/// Checks and mends one chain after a crash; see [`crate::recover`].
pub(crate) struct Chain<'a> {
    pub(crate) table: Table,
    pub(crate) memory: &'a Memory,
    /// The overflow buckets that some chain already has.
    pub(crate) linked: &'a mut Vec<bool>,
    /// The blocks that a bucket keeps, for as long as it is mended.
    pub(crate) kept: Vec<usize>,
}

impl Chain<'_> {
    /// Calls `keep` for each taken slot; puts what it returns in the slot's place. A link that leads nowhere, or into
    /// another chain, is cut; a continuation that ends up empty is unlinked.
    ///
    /// Returns how many slots stay taken, and how many could not stay. A slot whose block another one of the bucket keeps is
    /// none of either: it was moving to the front when the writer was killed.
    pub(crate) fn mend(&mut self, home: u64, mut keep: impl FnMut(Slot) -> Option<Slot>) -> (u64, u64) {
        let memory = self.memory;
        let (mut taken, mut torn, mut before, mut bucket) = (0, 0, home, home);
        self.kept.clear();
        loop {
            let mut taken_here = 0;
            for at_word in Table::slots(bucket) {
                let old = Slot(memory.load(at_word, Relaxed));
                if old == Slot::EMPTY {
                    continue;
                }
                let new = keep(old);
                torn += u64::from(new.is_none() && !self.kept.contains(&old.block_at()));
                let new = new.unwrap_or(Slot::EMPTY);
                memory.store(at_word, new.0, Relaxed);
                if new != Slot::EMPTY {
                    self.kept.push(new.block_at());
                    taken_here += 1;
                }
            }
            taken += taken_here;
            let next = self.table.next(memory, bucket).filter(|next| self.link(*next));
            let next_word = next.map_or(0, |next| next - self.table.buckets + 1);
            if bucket != home && taken_here == 0 {
                memory.store(Table::at_word(before) + NEXT, next_word, Relaxed);
                self.linked[(bucket - self.table.buckets) as usize] = false;
            } else {
                memory.store(Table::at_word(bucket) + NEXT, next_word, Relaxed);
                before = bucket;
            }
            let Some(next) = next else { break };
            bucket = next;
        }
        // The sequence becomes even, and differs from any that a reader may still hold.
        let sequence = memory.load(Table::at_word(home), Relaxed);
        memory.store(Table::at_word(home), (sequence | 1).wrapping_add(1), Release);
        (taken, torn)
    }

    fn link(&mut self, bucket: u64) -> bool {
        let linked = &mut self.linked[(bucket - self.table.buckets) as usize];
        !std::mem::replace(linked, true)
    }

    /// Empties a bucket that is not in use.
    pub(crate) fn empty(&self, bucket: u64) {
        let at_word = Table::at_word(bucket);
        (at_word + 1..at_word + BUCKET_WORDS).for_each(|word| self.memory.store(word, 0, Relaxed));
    }

    /// Empties every bucket that is in no chain, so that it can be linked again; returns their numbers.
    pub(crate) fn free(&self) -> Vec<u32> {
        let free: Vec<u32> = (0..self.linked.len() as u32).rev().filter(|i| !self.linked[*i as usize]).collect();
        for bucket in &free {
            let at_word = Table::at_word(self.table.buckets + u64::from(*bucket));
            (at_word..at_word + BUCKET_WORDS).for_each(|word| self.memory.store(word, 0, Relaxed));
        }
        free
    }
}

/// What a split that was cut short left in the older bucket: copies of slots that the new one has.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    older: Option<u64>,
    moved: Vec<usize>,
}

impl Leftover {
    pub(crate) fn of(memory: &impl Words, table: &Table, extent: Extent) -> Self {
        let (older, mut moved) = (extent.last_split(), Vec::new());
        if older.is_some() {
            table.each(memory, extent.used() - 1, |slot| moved.push(slot.block_at()));
        }
        Self { older, moved }
    }

    pub(crate) fn has(&self, home: u64, slot: Slot) -> bool {
        self.older == Some(home) && self.moved.contains(&slot.block_at())
    }
}
