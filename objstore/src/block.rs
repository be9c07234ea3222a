//! One object in the area: a header of three words, the key, the value. Immutable from its publishing to its freeing.

use std::sync::atomic::Ordering::Relaxed;

use star_core::{Key, Version, store::Encoding};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    layout::{Geometry, WORD},
    memory::Memory,
};

/// Bytes before the key: lengths and encoding, version, checksum.
const HEAD_BYTES: usize = 3 * WORD;
/// Values from this size on are aligned for other programs' sake, and hashed while they arrive.
pub(crate) const LARGE_BYTES: usize = 4096;
/// The alignment of large values.
pub(crate) const LARGE_ALIGN: usize = 64;
/// The unit in which blocks are counted.
pub(crate) const BLOCK_ALIGN: usize = 16;

/// The sizes of a block, which decide where its parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    key_bytes: u16,
    value_bytes: u32,
}

impl Shape {
    /// None if a length does not fit its field.
    pub(crate) fn new(key_bytes: usize, value_bytes: usize) -> Option<Self> {
        Some(Self { key_bytes: key_bytes.try_into().ok()?, value_bytes: value_bytes.try_into().ok()? })
    }

    pub(crate) fn value_bytes(self) -> usize {
        self.value_bytes as usize
    }

    #[inline]
    fn value_at(self) -> usize {
        let mask = if self.value_bytes() >= LARGE_BYTES { LARGE_ALIGN } else { WORD } - 1;
        (HEAD_BYTES + usize::from(self.key_bytes) + mask) & !mask
    }

    /// Bytes of the whole block.
    #[inline]
    pub(crate) fn total(self) -> usize {
        (self.value_at() + self.value_bytes()).next_multiple_of(BLOCK_ALIGN)
    }
}

/// A block that was found in the file; reading it again may give something else unless the caller is the writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// From the start of the file.
    pub(crate) at: usize,
    pub(crate) shape: Shape,
    encoding: u8,
}

impl Block {
    /// Writes the head and the key of a block without a value yet.
    pub(crate) fn create(memory: &Memory, at: usize, key: &Key, encoding: Encoding, shape: Shape) -> Self {
        let block = Self { at, shape, encoding: encoding as u8 };
        memory.store(at / WORD, block.first_word(), Relaxed);
        memory.store(at / WORD + 1, 0, Relaxed);
        memory.write_padded((at + HEAD_BYTES) / WORD, key.as_str().as_bytes());
        block
    }

    /// The block at this offset, if what stands there can be one. The bytes may be of any age.
    #[inline(always)]
    pub(crate) fn read(memory: &Memory, geometry: &Geometry, at: usize) -> Option<Self> {
        // The area ends where the file does, all of which is mapped.
        let end = memory.end();
        if at < geometry.marks_at || at + HEAD_BYTES > end {
            return None;
        }
        let word = memory.load(at / WORD, Relaxed);
        let block = Self::of_first_word(at, word);
        // What a block is rounded up by never leads out of the area, which begins and ends at a whole page.
        (word >> 56 == 0 && block.value_at() + block.shape.value_bytes() <= end).then_some(block)
    }

    /// The block at this offset of which this is the first word.
    #[inline(always)]
    pub(crate) fn of_first_word(at: usize, word: u64) -> Self {
        let shape = Shape { value_bytes: word as u32, key_bytes: (word >> 32) as u16 };
        Self { at, shape, encoding: (word >> 48) as u8 }
    }

    fn first_word(self) -> u64 {
        u64::from(self.shape.value_bytes) | u64::from(self.shape.key_bytes) << 32 | u64::from(self.encoding) << 48
    }

    #[inline(always)]
    pub(crate) fn has_key(self, memory: &Memory, key: &str) -> bool {
        usize::from(self.shape.key_bytes) == key.len() && memory.equals((self.at + HEAD_BYTES) / WORD, key.as_bytes())
    }

    /// None for a number that this program does not know.
    #[inline]
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self.encoding {
            0 => Some(Encoding::Raw),
            1 => Some(Encoding::Json),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn version(self, memory: &Memory) -> Version {
        Version(memory.load(self.at / WORD + 1, Relaxed))
    }

    /// Where the key begins in the file, and its bytes.
    pub(crate) fn key_range(self) -> (usize, usize) {
        (self.at + HEAD_BYTES, usize::from(self.shape.key_bytes))
    }

    /// Copies the key into the emptied buffer; false if it would lie outside of the file.
    pub(crate) fn copy_key(self, memory: &Memory, buffer: &mut Vec<u8>) -> bool {
        memory.copy((self.at + HEAD_BYTES) / WORD, usize::from(self.shape.key_bytes), buffer)
    }

    /// Where the value begins in the file; a multiple of the word.
    #[inline]
    pub(crate) fn value_at(self) -> usize {
        self.at + self.shape.value_at()
    }

    /// Writes what is known last: the version, and the checksum over everything.
    pub(crate) fn seal(self, memory: &Memory, version: Version, key_hash: u64, value_hash: u64) {
        memory.store(self.at / WORD + 1, version.0, Relaxed);
        memory.store(self.at / WORD + 2, self.checksum(version, key_hash, value_hash), Relaxed);
    }

    /// Whether the block is as [`Self::seal`] left it.
    pub(crate) fn intact(self, memory: &Memory, key_hash: u64, value_hash: u64) -> bool {
        memory.load(self.at / WORD + 2, Relaxed) == self.checksum(self.version(memory), key_hash, value_hash)
    }

    fn checksum(self, version: Version, key_hash: u64, value_hash: u64) -> u64 {
        let mut bytes = [0; 32];
        for (chunk, word) in
            bytes.as_chunks_mut::<8>().0.iter_mut().zip([self.first_word(), version.0, key_hash, value_hash])
        {
            *chunk = word.to_ne_bytes();
        }
        xxh3_64(&bytes)
    }
}
