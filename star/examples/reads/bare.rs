//! The least that a sequence-locked lookup can be: one table of cells with their values inside, nothing to check but the
//! sequence. No deletes, no growth, no other keys, no lease: the limit that a real store is compared with.

use std::{
    hint::black_box,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed},
        fence,
    },
};

use star_core::Key;

pub(crate) struct Bare {
    /// Of each cell: its sequence, the key's hash, the value's words.
    words: Vec<AtomicU64>,
    cell_words: usize,
    cells: usize,
    value_bytes: usize,
}

impl Bare {
    pub(crate) fn new(keys: &[Key], value: &[u8]) -> Self {
        let cells = (keys.len() * 2).next_power_of_two();
        // Whole cache lines.
        let cell_words = (2 + value.len().div_ceil(8)).next_multiple_of(8);
        let words = (0..cells * cell_words).map(|_| AtomicU64::new(0)).collect();
        let this = Self { words, cell_words, cells, value_bytes: value.len() };
        for key in keys {
            let mut cell = key.hash() as usize % cells;
            while this.words[cell * cell_words + 1].load(Relaxed) != 0 {
                cell = (cell + 1) % cells;
            }
            this.words[cell * cell_words + 1].store(key.hash(), Relaxed);
            for (i, bytes) in value.chunks(8).enumerate() {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                this.words[cell * cell_words + 2 + i].store(u64::from_ne_bytes(word), Relaxed);
            }
        }
        this
    }

    pub(crate) fn get(&self, hash: u64, copy: Option<&mut Vec<u8>>) -> bool {
        let mut cell = hash as usize & (self.cells - 1);
        loop {
            let words = &self.words[cell * self.cell_words..(cell + 1) * self.cell_words];
            let sequence = words[0].load(Acquire);
            match words[1].load(Relaxed) {
                0 => return false,
                found if found == hash => {
                    if let Some(copy) = copy {
                        copy.clear();
                        for word in &words[2..2 + self.value_bytes.div_ceil(8)] {
                            copy.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
                        }
                        black_box(copy);
                    } else {
                        black_box(words[2].load(Relaxed));
                    }
                    fence(Acquire);
                    return sequence.is_multiple_of(2) && words[0].load(Relaxed) == sequence;
                }
                _ => cell = (cell + 1) & (self.cells - 1),
            }
        }
    }
}
