//! One bucket more for keys: half of what an older bucket has moves to a new one.
//!
//! Both are closed to readers meanwhile. What moves is copied first, then the extent is stored, and then the copies that
//! were left are taken away: at each instruction every key is where the extent says. What a writer that was killed leaves
//! is a copy too many, of the same block, or a bucket that is not in use and not empty; see [`crate::recover`].

use std::sync::atomic::Ordering::{Relaxed, Release};

use super::{Extent, Index, NEXT, Slot, Table};
use crate::{layout::BUCKET_SLOTS, words::Words};

/// Keys for each bucket in use, on average, until all buckets are. The buckets that wait for their turn to be split have up
/// to half as many again: with 3, one key in fifteen of theirs is in a continuation.
const KEYS_PER_BUCKET: u64 = 3;

impl Index {
    /// Splits a bucket if the ones in use have as many keys as they are meant for. `hash_of` is the hash of a slot's key.
    pub(crate) fn grow(&mut self, memory: &impl Words, hash_of: impl FnMut(Slot) -> u64) {
        let used = Extent::load(memory).used();
        if self.taken > KEYS_PER_BUCKET * used && used < self.table.buckets {
            self.split(memory, used, hash_of);
        }
    }

    /// Takes the bucket `new` into use, the first that is not.
    pub(crate) fn split(&mut self, memory: &impl Words, new: u64, mut hash_of: impl FnMut(Slot) -> u64) {
        let after = Extent::of(new + 1);
        let old = after.last_split().expect("the first bucket is in use from the beginning");
        let mut slots = Vec::with_capacity(2 * BUCKET_SLOTS);
        self.table.each(memory, old, |slot| slots.push(slot));
        slots.iter().for_each(|slot| memory.prefetch(slot.block_at()));
        let (moving, staying): (Vec<Slot>, Vec<Slot>) =
            slots.into_iter().partition(|slot| self.table.home_among(after, hash_of(*slot)) == new);
        let more = moving.len().div_ceil(BUCKET_SLOTS).saturating_sub(1);
        if self.free.len() < more {
            // Afterwards the two take no more room than the one does now, but there is none to come to that.
            return;
        }
        for bucket in [old, new] {
            // What is not in use may have been left odd by a writer that was killed.
            let sequence = memory.load(Table::at_word(bucket), Relaxed) | 1;
            memory.store(Table::at_word(bucket), sequence, Relaxed);
        }
        // As in `change`; and who sees the new extent sees the odd sequence of the new bucket.
        memory.fence(Release);
        self.fill(memory, new, &moving);
        after.store(memory);
        self.thin_out(memory, old, &staying);
        for bucket in [old, new] {
            let sequence = memory.load(Table::at_word(bucket), Relaxed);
            memory.store(Table::at_word(bucket), sequence.wrapping_add(1), Release);
        }
    }

    /// Puts slots into a bucket that is not in use, whatever stands there.
    fn fill(&mut self, memory: &impl Words, home: u64, slots: &[Slot]) {
        let mut rest = slots;
        let mut bucket = home;
        loop {
            let (here, later) = rest.split_at(rest.len().min(BUCKET_SLOTS));
            let words = here.iter().map(|slot| slot.0).chain(std::iter::repeat(0));
            Table::slots(bucket).zip(words).for_each(|(at_word, word)| change(memory, at_word, word));
            let next = if later.is_empty() { None } else { self.free.pop() };
            change(memory, Table::at_word(bucket) + NEXT, next.map_or(0, |next| u64::from(next) + 1));
            let Some(next) = next else { return };
            (bucket, rest) = (self.table.buckets + u64::from(next), later);
        }
    }

    /// Takes all but some slots out of a bucket and moves these to its front; gives the end of the continuation back.
    fn thin_out(&mut self, memory: &impl Words, home: u64, staying: &[Slot]) {
        let mut chain = vec![home];
        while let Some(next) = self.table.next(memory, chain[chain.len() - 1]) {
            chain.push(next);
        }
        let places: Vec<usize> = chain.iter().flat_map(|bucket| Table::slots(*bucket)).collect();
        for place in &places {
            if !staying.iter().any(|slot| slot.0 == memory.load(*place, Relaxed)) {
                change(memory, *place, 0);
            }
        }
        let (front, behind) = places.split_at(staying.len());
        let is_taken = |place: &&usize| memory.load(**place, Relaxed) != 0;
        let mut free = front.iter().filter(|place| !is_taken(place));
        for from in behind.iter().filter(is_taken) {
            let to = free.next().expect("as many places in front are free as slots stand behind");
            // Twice for a moment, rather than nowhere.
            memory.store(*to, memory.load(*from, Relaxed), Relaxed);
            memory.store(*from, 0, Relaxed);
        }
        for pair in chain.windows(2).skip(staying.len().max(1).div_ceil(BUCKET_SLOTS) - 1) {
            memory.store(Table::at_word(pair[0]) + NEXT, 0, Relaxed);
            self.free.push((pair[1] - self.table.buckets) as u32);
        }
    }
}

/// Most words of a bucket that comes into use are 0, as they should be.
fn change(memory: &impl Words, at_word: usize, word: u64) {
    if memory.load(at_word, Relaxed) != word {
        memory.store(at_word, word, Relaxed);
    }
}
