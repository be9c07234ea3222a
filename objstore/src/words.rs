//! Shared memory as the parts that races matter in see it: words, and fences between their accesses.
//!
//! The mapped file is one such memory. The tests of schedules have another, in which every order that the language's
//! memory model allows is tried.

use std::sync::atomic::{self, Ordering};

use crate::memory::Memory;

/// Words that threads and processes share. Numbers count words from the start of the file.
pub(crate) trait Words {
    fn load(&self, at_word: usize, order: Ordering) -> u64;
    /// Loads a row of words, each by itself, Relaxed.
    #[inline]
    fn load_row<const N: usize>(&self, at_word: usize) -> [u64; N] {
        std::array::from_fn(|i| self.load(at_word + i, Ordering::Relaxed))
    }
    /// Asks for what lies at this byte, to be looked at soon.
    fn prefetch(&self, _at: usize) {}
    fn store(&self, at_word: usize, value: u64, order: Ordering);
    /// Puts `value` in place of a zero; false, and nothing done, if there was something else. Orders nothing.
    fn claim(&self, at_word: usize, value: u64) -> bool;
    /// Makes a word at least `value`. Orders nothing.
    fn raise(&self, at_word: usize, value: u64);
    fn fence(&self, order: Ordering);
    /// A `SeqCst` fence, right after a [`Self::claim`] that succeeded.
    fn fence_after_claim(&self) {
        self.fence(Ordering::SeqCst);
    }
}

impl Words for Memory {
    #[inline]
    fn load(&self, at_word: usize, order: Ordering) -> u64 {
        Memory::load(self, at_word, order)
    }

    #[inline]
    fn load_row<const N: usize>(&self, at_word: usize) -> [u64; N] {
        Memory::load_row(self, at_word)
    }

    #[inline]
    fn prefetch(&self, at: usize) {
        Memory::prefetch(self, at, 1);
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

    /// Here the claim was a locked instruction, which is a full fence itself: nothing passes it, and all of them and all
    /// fences have one order. A fence of its own would wait for the memory twice.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn fence_after_claim(&self) {
        atomic::compiler_fence(Ordering::SeqCst);
    }
}
