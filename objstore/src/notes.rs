//! The notes of stars ([`Note`]): how far each star's objects in this file go in its order. Only the writer reads and writes
//! them; what is there when it is killed at any instruction is the note before or after what it was doing.
//!
//! Each star has two slots and a word that says which counts. A new note is written into the other slot and counts when
//! that word is stored; within an epoch single words of the present slot only grow. A killed process leaves all that it
//! stored, in that order, so the checksum, over what never changes in a slot, is only against damage from outside.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use star_core::{
    Incarnation, StarId, Version,
    ids::{Epoch, Seq},
    note::Note,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    layout::{Geometry, NOTE_WORDS, WORD},
    memory::Memory,
};

/// Where the two slots of a star begin, in words from the star's first; that one says which counts: 0 none, 1, 2.
const SLOTS: [usize; 2] = [8, 20];

/// The write that is applied next, or was applied last: its seq, its key's hash, and its version, or 0. In the line of the word
/// that says which slot counts.
mod applying {
    pub(super) const SEQ: usize = 1;
    pub(super) const KEY: usize = 2;
    pub(super) const VERSION: usize = 3;
}

/// A write that is about to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applying {
    pub(crate) seq: Seq,
    pub(crate) key_hash: u64,
    /// The version that the key's object gets; `None` if it gets none.
    pub(crate) version: Option<Version>,
}

/// Words of a slot.
mod word {
    /// What never changes in a slot.
    pub(super) const FIXED: usize = 0;
    pub(super) const CHECKSUM: usize = 6;
    pub(super) const READY: usize = 7;
    pub(super) const COMMITTED: usize = 8;
    pub(super) const FLOOR: usize = 9;
    pub(super) const YOUNGEST: usize = 10;
}

/// The notes of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes<'a> {
    memory: &'a Memory,
    first: usize,
    stars: u16,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(memory: &'a Memory, geometry: &Geometry) -> Self {
        Self { memory, first: geometry.notes_at / WORD, stars: geometry.stars }
    }

    /// Replaces a star's note.
    pub(crate) fn write(self, star: StarId, note: &Note) {
        let at = self.at(star);
        let next = if self.memory.load(at, Relaxed) == 1 { 2 } else { 1 };
        let slot = at + SLOTS[next - 1];
        let fixed = fixed(note);
        for (offset, value) in fixed.iter().enumerate() {
            self.memory.store(slot + word::FIXED + offset, *value, Relaxed);
        }
        self.memory.store(slot + word::CHECKSUM, checksum(&fixed), Relaxed);
        self.memory.store(slot + word::READY, note.ready.0, Relaxed);
        self.memory.store(slot + word::COMMITTED, note.committed.0, Relaxed);
        self.memory.store(slot + word::FLOOR, note.version_floor.0, Relaxed);
        self.memory.store(slot + word::YOUNGEST, note.youngest, Relaxed);
        self.memory.store(at, next as u64, Release);
        if note.epoch == Epoch(0) {
            // Nothing is noted any more; the next seqs are of another order.
            self.memory.store(at + applying::SEQ, 0, Relaxed);
        }
    }

    /// The writes before this one are applied. That is noted before anything of this one is, so that each moment between says
    /// something true.
    pub(crate) fn set_applying(self, star: StarId, next: Applying) {
        let Some(slot) = self.current(star) else { return };
        let at = self.at(star);
        self.memory.store(slot + word::COMMITTED, next.seq.0 - 1, Release);
        self.memory.store(at + applying::KEY, next.key_hash, Release);
        self.memory.store(at + applying::VERSION, next.version.map_or(0, |version| version.0), Release);
        self.memory.store(at + applying::SEQ, next.seq.0, Release);
    }

    /// The write of which only a look at the objects can tell whether it was applied, if there is one.
    pub(crate) fn applying(self, star: StarId) -> Option<Applying> {
        let (at, note) = (self.at(star), self.read(star)?);
        let get = |offset| self.memory.load(at + offset, Relaxed);
        let version = Some(Version(get(applying::VERSION))).filter(|version| version.0 > 0);
        let found = Applying { seq: Seq(get(applying::SEQ)), key_hash: get(applying::KEY), version };
        (found.seq == note.committed.next()).then_some(found)
    }

    /// Notes what has come of it: how far the objects go, if it was applied.
    pub(crate) fn finish_applying(self, star: StarId, committed: Option<Seq>) {
        if let (Some(slot), Some(seq)) = (self.current(star), committed) {
            self.memory.store(slot + word::COMMITTED, seq.0, Release);
        }
        self.memory.store(self.at(star) + applying::SEQ, 0, Release);
    }

    pub(crate) fn set_progress(self, star: StarId, ready: Seq, committed: Seq) {
        if let Some(slot) = self.current(star) {
            self.memory.store(slot + word::READY, ready.0, Release);
            self.memory.store(slot + word::COMMITTED, committed.0, Release);
        }
    }

    pub(crate) fn set_bounds(self, star: StarId, version_floor: Version, youngest: u64) {
        if let Some(slot) = self.current(star) {
            self.memory.store(slot + word::FLOOR, version_floor.0, Release);
            self.memory.store(slot + word::YOUNGEST, youngest, Release);
        }
    }

    /// A star's note, if there is one and it makes sense.
    pub(crate) fn read(self, star: StarId) -> Option<Note> {
        let slot = self.current(star)?;
        let get = |offset| self.memory.load(slot + offset, Relaxed);
        let fixed: [u64; 6] = std::array::from_fn(|offset| get(word::FIXED + offset));
        let [cluster, life, founded, epoch, base, whole] = fixed;
        let note = Note {
            cluster,
            life: Incarnation(life),
            founded: Epoch(founded),
            epoch: Epoch(epoch),
            base: Seq(base),
            // What is applied here was ready here, also where the turn in which it became so had no end.
            ready: Seq(get(word::READY).max(get(word::COMMITTED))),
            committed: Seq(get(word::COMMITTED)),
            version_floor: Version(get(word::FLOOR)),
            youngest: get(word::YOUNGEST),
            whole: whole == 1,
        };
        let is_sound = get(word::CHECKSUM) == checksum(&fixed) && note.founded <= note.epoch && note.epoch > Epoch(0);
        is_sound.then_some(note)
    }

    /// Nothing is noted of any star: the file is of another time of the machine, and what the system had written of it to a
    /// disk by then is of no one moment.
    pub(crate) fn clear(self) {
        (0..self.stars).for_each(|star| self.memory.store(self.at(StarId(star)), 0, Release));
    }

    /// Objects are damaged: nobody knows of which stars.
    pub(crate) fn deny_whole(self) {
        for star in (0..self.stars).map(StarId) {
            if let Some(note) = self.read(star).filter(|note| note.whole) {
                self.write(star, &Note { whole: false, ..note });
            }
        }
    }

    fn at(self, star: StarId) -> usize {
        self.first + usize::from(star.0 % self.stars) * NOTE_WORDS
    }

    fn current(self, star: StarId) -> Option<usize> {
        let at = self.at(star);
        match self.memory.load(at, Acquire) {
            1 => Some(at + SLOTS[0]),
            2 => Some(at + SLOTS[1]),
            _ => None,
        }
    }
}

fn fixed(note: &Note) -> [u64; 6] {
    let Note { cluster, life, founded, epoch, base, whole, .. } = note;
    [*cluster, life.0, founded.0, epoch.0, base.0, u64::from(*whole)]
}

fn checksum(fixed: &[u64; 6]) -> u64 {
    let bytes: Vec<u8> = fixed.iter().flat_map(|word| word.to_ne_bytes()).collect();
    xxh3_64(&bytes)
}
