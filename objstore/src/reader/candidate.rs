//! A value that was found, before it is known that it counts.

use std::ptr::NonNull;

use star_core::{Version, store::Encoding};

use super::reference::Head;
use crate::{
    block::Block,
    layout::WORD,
    memory::{Memory, SHORT_BYTES},
};

/// A value that was found and may change while it is looked at: what is seen of it counts only once its reader has said so.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub(super) memory: &'a Memory,
    pub(super) block: Block,
}

impl Candidate<'_> {
    /// Its length in bytes.
    #[inline(always)]
    pub fn bytes(self) -> usize {
        self.block.shape.value_bytes()
    }

    /// Copies it to where `target` begins; what stands behind it then is of no meaning. False, and nothing done, where it is
    /// longer than that (and, seldom, where it is not: at the end of the file).
    #[inline(always)]
    pub fn copy_short(self, target: &mut [u8; SHORT_BYTES]) -> bool {
        // Where the value begins was in the block's first line; most of the others were asked for together with it.
        self.memory.copy_short(self.block.value_at() / WORD, self.bytes(), target)
    }

    /// Makes it what `buffer` holds; false, and nothing in it, for what no whole object is.
    #[inline(always)]
    pub fn copy_into(self, buffer: &mut Vec<u8>) -> bool {
        self.memory.copy(self.block.value_at() / WORD, self.bytes(), buffer)
    }

    /// Where its block begins.
    #[inline(always)]
    pub(super) fn head(self) -> NonNull<Head> {
        self.memory.address_of(self.block.at, size_of::<Head>()).cast()
    }

    /// Its version, and how its bytes came in; None for what no whole object is.
    #[inline(always)]
    pub(super) fn what(self) -> Option<(Version, Encoding)> {
        Some((self.block.version(self.memory), self.block.encoding()?))
    }
}
