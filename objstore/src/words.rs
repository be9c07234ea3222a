//! Shared memory as the parts that races matter in see it: words, and fences between their accesses.
//!
//! The mapped file is one such memory. The tests of schedules have another, in which every order that the language's
//! memory model allows is tried.

use std::sync::atomic::{self, AtomicU64, Ordering};

use crate::memory::Memory;

/// Words that can be taken: whoever puts something in place of a zero has the word.
pub(crate) trait Claims {
    /// Puts `value` in place of a zero; false, and nothing done, if there was something else. Orders nothing.
    fn claim(&self, at_word: usize, value: u64) -> bool;
    /// A `SeqCst` fence, right after a [`Self::claim`] that succeeded.
    fn fence_after_claim(&self);
}

/// Words that threads and processes share. Numbers count words from the start of the file.
pub(crate) trait Words: Claims {
    fn load(&self, at_word: usize, order: Ordering) -> u64;
    /// Loads a row of words, each by itself, Relaxed.
    #[inline]
    fn load_row<const N: usize>(&self, at_word: usize) -> [u64; N] {
        std::array::from_fn(|i| self.load(at_word + i, Ordering::Relaxed))
    }
    /// Which words of a row have `tag` as their highest 16 bits: bit `4 * i + 3` stands for word `i`. Orders nothing, and
    /// each word may be of another moment.
    #[inline]
    fn tagged<const N: usize>(&self, at_word: usize, tag: u16) -> u32 {
        // Which of them it is cannot be foreseen: without a branch per word the processor goes on with what follows while
        // the row is still on its way from memory.
        let row: [u64; N] = self.load_row(at_word);
        let bit = |(i, word): (usize, u64)| u32::from(word >> 48 == u64::from(tag)) << (4 * i + 3);
        row.into_iter().enumerate().map(bit).fold(0, |all, one| all | one)
    }
    /// Asks for what lies at this byte, to be looked at soon.
    fn prefetch(&self, _at: usize) {}
    fn store(&self, at_word: usize, value: u64, order: Ordering);
    /// Makes a word at least `value`. Orders nothing.
    fn raise(&self, at_word: usize, value: u64);
    fn fence(&self, order: Ordering);
}

/// Words that are used by themselves.
impl Claims for [AtomicU64] {
    #[inline]
    fn claim(&self, at_word: usize, value: u64) -> bool {
        self[at_word].compare_exchange(0, value, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Here the claim was a locked instruction, which is a full fence itself: nothing passes it, and all of them and all
    /// fences have one order. A fence of its own would wait for the memory twice.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn fence_after_claim(&self) {
        atomic::compiler_fence(Ordering::SeqCst);
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn fence_after_claim(&self) {
        atomic::fence(Ordering::SeqCst);
    }
}

impl Words for [AtomicU64] {
    #[inline]
    fn load(&self, at_word: usize, order: Ordering) -> u64 {
        self[at_word].load(order)
    }

    #[inline]
    fn store(&self, at_word: usize, value: u64, order: Ordering) {
        self[at_word].store(value, order);
    }

    #[inline]
    fn raise(&self, at_word: usize, value: u64) {
        self[at_word].fetch_max(value, Ordering::Relaxed);
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        atomic::fence(order);
    }
}

impl Claims for Memory {
    #[inline]
    fn claim(&self, at_word: usize, value: u64) -> bool {
        self.pins().claim(at_word, value)
    }

    #[inline]
    fn fence_after_claim(&self) {
        self.pins().fence_after_claim();
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

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn tagged<const N: usize>(&self, at_word: usize, tag: u16) -> u32 {
        Memory::tagged::<N>(self, at_word, tag)
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
    fn raise(&self, at_word: usize, value: u64) {
        Memory::raise(self, at_word, value);
    }

    #[inline]
    fn fence(&self, order: Ordering) {
        atomic::fence(order);
    }
}
