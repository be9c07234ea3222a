//! Shared memory as the parts that races matter in see it: words, and fences between their accesses.
//!
//! The mapped file is one such memory. The tests of schedules have another, in which every order that the language's
//! memory model allows is tried.

use std::sync::atomic::{self, Ordering};

use crate::memory::Memory;

/// Words that threads and processes share. Numbers count words from the start of the file.
pub(crate) trait Words {
    fn load(&self, at_word: usize, order: Ordering) -> u64;
    fn store(&self, at_word: usize, value: u64, order: Ordering);
    /// Puts `value` in place of a zero; false, and nothing done, if there was something else. Orders nothing.
    fn claim(&self, at_word: usize, value: u64) -> bool;
    /// Makes a word at least `value`. Orders nothing.
    fn raise(&self, at_word: usize, value: u64);
    fn fence(&self, order: Ordering);
}

impl Words for Memory {
    #[inline]
    fn load(&self, at_word: usize, order: Ordering) -> u64 {
        Memory::load(self, at_word, order)
    }

    #[inline]
    fn store(&self, at_word: usize, value: u64, order: Ordering) {
        Memory::store(self, at_word, value, order);
    }

    #[inline]
    fn claim(&self, at_word: usize, value: u64) -> bool {
        Memory::claim(self, at_word, value)
    }

    #[inline]
    fn raise(&self, at_word: usize, value: u64) {
        Memory::raise(self, at_word, value);
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        atomic::fence(order);
    }
}
