//! An object in place.
#![allow(unsafe_code, reason = "a pin is what makes bytes in place sound")]

use std::{
    fmt, mem,
    ops::Deref,
    ptr::NonNull,
    slice,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Release},
    },
};

use star_core::{Version, store::Encoding};

use super::Reader;
use crate::{block::Block, memory::Memory, pins::Holder};

/// An object in the mapped file, pinned: its bytes stay where and as they are until this is dropped, also after the
/// object was replaced or removed, and after its reader was dropped. They are aligned to 8 bytes, from 4 KiB on to 64.
///
/// What is pinned takes room of the store that it cannot use again. Neither a `Ref` nor its reader may be used in a
/// process that was forked from the one that made them.
///
/// It is two addresses, which is what a caller is handed in registers. Had it to lie in memory on its way, the end of the pin
/// would be a store of which the processor does not know where it goes until the object is there; and until then it would
/// not begin the next read.
pub struct Ref {
    /// Where the block begins.
    block: NonNull<Head>,
    /// The word of the pin table, which is also what keeps both mappings where they are: see [`leave`]. A count that
    /// threads share would cost as much as the rest of a read.
    pin: NonNull<AtomicU64>,
}

/// A block's first two words: lengths and encoding, and the version.
pub(super) type Head = [u64; 2];

// SAFETY: both addresses belong to the whole process and are good until this is dropped, on whatever thread.
unsafe impl Send for Ref {}
// SAFETY: as above; shared, it is only read.
unsafe impl Sync for Ref {}

impl Ref {
    /// Of a block, which is pinned with this word of the pin table. It counts only if the look in which it
    /// was found does; dropped, it ends the pin.
    #[inline(always)]
    pub(super) fn new(pin: NonNull<AtomicU64>, block: NonNull<Head>) -> Self {
        Self { block, pin }
    }

    /// The object's version.
    pub fn version(&self) -> Version {
        Version(self.head()[1])
    }

    /// How the bytes came in.
    pub fn encoding(&self) -> Encoding {
        self.block().encoding().expect("a number that was known when the object was found")
    }

    /// The block as it lies in itself.
    #[inline]
    fn block(&self) -> Block {
        Block::of_first_word(0, self.head()[0])
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: the writer of the file stores to a block only before its publishing and after no pin names it. This
        // pin was found standing while the block was published, and stands until `self`, which the head borrows, is
        // dropped. Until then the mapping is there as well: whoever drops the reader leaves it while a pin stands.
        unsafe { self.block.as_ref() }
    }
}

impl Deref for Ref {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let block = self.block();
        // SAFETY: as for the head; all of the block was found to lie in the area, or it would not have been pinned.
        unsafe {
            slice::from_raw_parts(self.block.cast::<u8>().add(block.value_at()).as_ptr(), block.shape.value_bytes())
        }
    }
}

impl AsRef<[u8]> for Ref {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Ref {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the mapping is there until its pins are found gone, and this one is gone with the very access.
        // Release: what was read of the block was read before.
        unsafe { self.pin.as_ref() }.store(0, Release);
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ref").field("version", &self.version()).field("bytes", &self.len()).finish_non_exhaustive()
    }
}

/// What readers that were dropped have left: mappings in which objects are still held in place.
static LEFT: Mutex<Vec<(Memory, Holder)>> = Mutex::new(Vec::new());

/// Keeps a reader's mappings until its pins have ended; they are looked at whenever a reader is opened or dropped.
fn leave(memory: Memory, holder: Holder) {
    all_left().push((memory, holder));
}

fn all_left() -> MutexGuard<'static, Vec<(Memory, Holder)>> {
    LEFT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

pub(super) fn let_go() {
    all_left().retain(|(_, holder)| holder.has_pins());
}

impl Drop for Reader {
    fn drop(&mut self) {
        let_go();
        if let Some(holder) = self.holder.take_if(|holder| holder.has_pins()) {
            leave(mem::replace(&mut self.memory, Memory::none()), holder);
        }
    }
}

/// How many readers have left something.
#[cfg(test)]
pub(super) fn left() -> usize {
    let_go();
    all_left().len()
}
