//! The mapped file as a row of 64-bit words.
//!
//! Every access that another process or thread may race with is an atomic one of a whole word; what was read only
//! counts after a sequence number was checked. So no access is undefined, however the writer and the readers interleave.
#![allow(unsafe_code, reason = "the one place that turns the mapping's address into references")]

use std::{
    fs::File,
    io,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    layout::{HEADER_BYTES, WORD},
    mapping::Mapping,
};

#[cfg(target_arch = "x86_64")]
mod pairs;

/// Bytes of the longest value that is copied as if all were of this length.
pub const SHORT_BYTES: usize = 112;

/// A mapped file. Offsets are bytes from the start of the file; "at word" numbers are in words.
#[derive(Debug)]
pub(crate) struct Memory {
    map: Mapping,
    writable: bool,
}

impl Memory {
    /// Maps the first `bytes` bytes, a multiple of the word, for reading and writing. The file is at least as long.
    pub(crate) fn writable(file: &File, bytes: usize) -> io::Result<Self> {
        Ok(Self { map: Mapping::new(file, 0, bytes, true)?, writable: true })
    }

    /// The same for reading only: a store through it is a bug, and caught in tests before the system would.
    pub(crate) fn read_only(file: &File, bytes: usize) -> io::Result<Self> {
        Ok(Self { map: Mapping::new(file, 0, bytes, false)?, writable: false })
    }

    /// Maps `bytes` bytes from `offset` on, for reading and writing; word numbers count from there.
    pub(crate) fn writable_part(file: &File, offset: usize, bytes: usize) -> io::Result<Self> {
        Ok(Self { map: Mapping::new(file, offset, bytes, true)?, writable: true })
    }

    /// Memory without a word, whose address may still be one that words are aligned to.
    pub(crate) fn none() -> Self {
        Self { map: Mapping::none(), writable: false }
    }

    /// Calls `work` with this memory as a value of its own. What lies on the stack and is seen by nobody else stays in
    /// registers, while what others may see is loaded again after each atomic load.
    #[inline(always)]
    pub(crate) fn with_alias<R>(&self, work: impl FnOnce(&Self) -> R) -> R {
        let alias = Self { map: self.map.alias(), writable: self.writable };
        work(&alias)
    }

    /// Asks for huge pages; see [`Mapping::make_huge`].
    pub(crate) fn make_huge(&self) {
        self.map.make_huge();
    }

    /// Bytes that this process sees in huge pages.
    pub(crate) fn huge_bytes(&self) -> u64 {
        self.map.huge_bytes()
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is alive as long as `self`, starts at a page, and is `len` bytes long, which the
        // preallocated file backs. All shared access to it is atomic; plain reads are only made through `bytes`, whose
        // callers exclude writers. Atomic loads of this size are allowed on read-only memory.
        unsafe { slice::from_raw_parts(self.map.address().cast(), self.map.bytes() / WORD) }
    }

    /// The offset behind the last byte that is mapped.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.map.bytes()
    }

    #[inline]
    pub(crate) fn load(&self, at_word: usize, order: Ordering) -> u64 {
        self.words()[at_word].load(order)
    }

    /// Loads a word of the header, which every file has.
    #[inline]
    pub(crate) fn load_header(&self, at_word: usize, order: Ordering) -> u64 {
        let header: &[AtomicU64; HEADER_BYTES / WORD] = self.words().first_chunk().expect("a file has a header");
        header[at_word].load(order)
    }

    /// Loads a row of words, with one look whether they lie in the file.
    #[inline]
    pub(crate) fn load_row<const N: usize>(&self, at_word: usize) -> [u64; N] {
        let cells: &[AtomicU64; N] = self.words()[at_word..].first_chunk().expect("a row lies in the file");
        cells.each_ref().map(|cell| cell.load(Ordering::Relaxed))
    }

    /// See [`crate::words::Words::tagged`].
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn tagged<const N: usize>(&self, at_word: usize, tag: u16) -> u32 {
        let cells: &[AtomicU64; N] = self.words()[at_word..].first_chunk().expect("a row lies in the file");
        pairs::tagged(cells, tag)
    }

    /// Asks for the cache lines of these bytes, which may lie anywhere: so that they come while others are waited for. Of a
    /// whole number of lines' bytes it asks for so many, as if they began with one.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize, bytes: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let ask = |at: usize| {
                let address = self.map.address().wrapping_add(offset).wrapping_add(at);
                // SAFETY: a prefetch does nothing that a program can see, whatever the address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
            };
            (0..bytes.div_ceil(64)).for_each(|line| ask(line * 64));
            if bytes > 1 && !bytes.is_multiple_of(64) {
                ask(bytes - 1);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (offset, bytes);
    }

    #[inline]
    pub(crate) fn store(&self, at_word: usize, value: u64, order: Ordering) {
        debug_assert!(self.writable, "a reader never writes");
        put(&self.words()[at_word], value, order);
    }

    /// The words of a mapping of pins.
    #[inline]
    pub(crate) fn pins(&self) -> &[AtomicU64] {
        debug_assert!(self.writable, "a reader writes its pins only");
        self.words()
    }

    /// Makes a word at least `value`.
    pub(crate) fn raise(&self, at_word: usize, value: u64) {
        debug_assert!(self.writable, "a reader writes its pins only");
        self.words()[at_word].fetch_max(value, Ordering::Relaxed);
    }

    /// Stores bytes at any offset.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        debug_assert!(self.writable, "a reader never writes");
        let skip = offset % WORD;
        let (head, rest) = bytes.split_at(if skip == 0 { 0 } else { bytes.len().min(WORD - skip) });
        if !head.is_empty() {
            self.merge(offset / WORD, skip, head);
        }
        let first = offset.div_ceil(WORD);
        let (chunks, tail) = rest.as_chunks::<WORD>();
        for (cell, chunk) in self.words()[first..first + chunks.len()].iter().zip(chunks) {
            put(cell, u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        if !tail.is_empty() {
            self.merge(first + chunks.len(), 0, tail);
        }
    }

    /// Replaces some bytes of a word.
    fn merge(&self, at_word: usize, skip: usize, bytes: &[u8]) {
        let cell = &self.words()[at_word];
        let mut word = cell.load(Ordering::Relaxed).to_ne_bytes();
        word[skip..skip + bytes.len()].copy_from_slice(bytes);
        put(cell, u64::from_ne_bytes(word), Ordering::Relaxed);
    }

    /// Copies whole words to where nothing of them lies.
    pub(crate) fn copy_within(&self, from: usize, to: usize, bytes: usize) {
        debug_assert!(self.writable && from.abs_diff(to) >= bytes, "only the writer moves what does not overlap");
        let words = self.words();
        let (from, to, count) = (from / WORD, to / WORD, bytes / WORD);
        for (target, source) in words[to..to + count].iter().zip(&words[from..from + count]) {
            put(target, source.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Stores bytes from a word's start and fills the last word with zeros, as [`Self::equals`] wants them.
    pub(crate) fn write_padded(&self, at_word: usize, bytes: &[u8]) {
        debug_assert!(self.writable, "a reader never writes");
        for (cell, word) in self.words()[at_word..].iter().zip(padded_words(bytes)) {
            put(cell, word, Ordering::Relaxed);
        }
    }

    /// Whether these bytes stand at a word's start, as [`Self::write_padded`] put them. False past the end.
    #[inline(always)]
    pub(crate) fn equals(&self, at_word: usize, bytes: &[u8]) -> bool {
        let (chunks, tail) = bytes.as_chunks::<WORD>();
        let Some(cells) = self.words().get(at_word..at_word + bytes.len().div_ceil(WORD)) else { return false };
        let is_word =
            |(cell, chunk): (&AtomicU64, &[u8; WORD])| cell.load(Ordering::Relaxed) == u64::from_ne_bytes(*chunk);
        cells.iter().zip(chunks).all(is_word)
            && cells.get(chunks.len()).is_none_or(|cell| cell.load(Ordering::Relaxed) == last_word(bytes, tail))
    }

    /// Copies `bytes` bytes from a word's start into the emptied `buffer`. False, and nothing copied, past the end.
    #[inline(always)]
    pub(crate) fn copy(&self, at_word: usize, bytes: usize, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        let count = bytes.div_ceil(WORD);
        let Some(cells) = self.words().get(at_word..at_word.saturating_add(count)) else { return false };
        let room = bytes.max(SHORT_BYTES);
        if buffer.capacity() < room {
            // No more: a caller can hand on a buffer that is full without allocating anew.
            *buffer = Vec::with_capacity(room);
        }
        match self.short(at_word, bytes) {
            // SAFETY: there is room for so many words in the empty buffer.
            Some(cells) => unsafe { copy_short(cells, buffer.as_mut_ptr()) },
            // SAFETY: there is room for `bytes` bytes in the empty buffer.
            None => unsafe { copy_words(cells, bytes, buffer.as_mut_ptr()) },
        }
        // SAFETY: all of these bytes were written.
        unsafe { buffer.set_len(bytes) };
        true
    }

    /// Copies bytes of which there are few to where `target` begins, and makes all of `target` something. False, and nothing
    /// done, where there are more than it has room for, or past the end.
    #[inline(always)]
    pub(crate) fn copy_short(&self, at_word: usize, bytes: usize, target: &mut [u8; SHORT_BYTES]) -> bool {
        let Some(cells) = self.short(at_word, bytes) else { return false };
        // SAFETY: there is room for so many words.
        unsafe { copy_short(cells, target.as_mut_ptr()) };
        true
    }

    /// The words from this one on that [`copy_short`] takes, if that many bytes are short.
    #[inline(always)]
    fn short(&self, at_word: usize, bytes: usize) -> Option<&[AtomicU64; SHORT_BYTES / WORD]> {
        if bytes > SHORT_BYTES {
            return None;
        }
        self.words().get(at_word..)?.first_chunk()
    }

    /// The bytes in place.
    ///
    /// # Safety
    /// Nobody writes these bytes while the slice lives: the caller is the only writer of the file and holds itself
    /// borrowed for as long as the slice.
    pub(crate) unsafe fn bytes(&self, offset: usize, bytes: usize) -> &[u8] {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.map.bytes()), "an object lies in the file");
        // SAFETY: in the mapping, as just checked; bytes of any content are valid; no writer, by the caller's promise.
        unsafe { slice::from_raw_parts(self.map.address().add(offset), bytes) }
    }

    /// Where these bytes lie, for whoever makes sure by other means that they are there and nobody writes them.
    #[inline]
    pub(crate) fn address_of(&self, offset: usize, bytes: usize) -> NonNull<[u8]> {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.map.bytes()), "an object lies in the file");
        // SAFETY: within the mapping, as just checked.
        NonNull::slice_from_raw_parts(unsafe { self.map.start().add(offset) }, bytes)
    }

    /// The bytes in place, to be written.
    ///
    /// # Safety
    /// As for [`Self::bytes`], and nobody reads them either while the slice lives, through this mapping or another.
    pub(crate) unsafe fn bytes_mut(&mut self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(self.writable, "a mapping for reading cannot be written");
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.map.bytes()), "a value lies in what is mapped");
        // SAFETY: in the mapping, which may be written, as just checked; nobody else looks, by the caller's promise.
        unsafe { slice::from_raw_parts_mut(self.map.address().add(offset).cast_mut(), bytes) }
    }

    /// Where in the file these bytes lie, if they are part of this very mapping.
    pub(crate) fn offset_of(&self, bytes: &[u8]) -> Option<usize> {
        let offset = bytes.as_ptr().addr().checked_sub(self.map.address().addr())?;
        (offset.checked_add(bytes.len())? <= self.map.bytes()).then_some(offset)
    }
}

/// Copies these words, however many of their bytes are wanted: so neither a branch nor the place of a store depends on a length
/// that the processor may still be waiting for. It goes on with the next read meanwhile; behind a store of which it does not
/// know where it goes it would not, as measured.
///
/// # Safety
/// There is room for so many words at `target`, which need not be aligned, and nobody else uses it.
#[inline(always)]
unsafe fn copy_short(cells: &[AtomicU64; SHORT_BYTES / WORD], target: *mut u8) {
    // SAFETY: as here; words are bytes that may be loaded.
    #[cfg(target_arch = "x86_64")]
    return unsafe { pairs::copy_all::<{ SHORT_BYTES / pairs::BYTES }>(cells.as_ptr().cast(), target) };
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as here.
    return unsafe { copy_words(cells, SHORT_BYTES, target) };
}

/// Copies the first `bytes` bytes of what the words hold; no word is left over.
///
/// # Safety
/// There is room for so many bytes at `target`, which need not be aligned, and nobody else uses it.
#[inline(always)]
unsafe fn copy_words(cells: &[AtomicU64], bytes: usize, target: *mut u8) {
    debug_assert!(cells.len() == bytes.div_ceil(WORD));
    #[cfg(target_arch = "x86_64")]
    if bytes >= pairs::BYTES {
        // SAFETY: as here; there are so many bytes in the words, and at least a pair.
        return unsafe { pairs::copy(cells.as_ptr().cast(), bytes, target) };
    }
    let (whole, tail) = cells.split_at(bytes / WORD);
    for (i, cell) in whole.iter().enumerate() {
        // SAFETY: `(i + 1) * WORD <= bytes`.
        unsafe { target.add(i * WORD).cast::<u64>().write_unaligned(cell.load(Ordering::Relaxed)) };
    }
    if let Some(cell) = tail.first() {
        let word = cell.load(Ordering::Relaxed).to_ne_bytes();
        for (i, byte) in (bytes / WORD * WORD..bytes).zip(word) {
            // SAFETY: `i < bytes`.
            unsafe { target.add(i).write(byte) };
        }
    }
}

/// The one place where the file is stored to, but for pins.
#[inline]
fn put(cell: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(test)]
    crate::stops::before_a_store();
    cell.store(value, order);
}

/// The bytes as words, the last one filled with zeros.
#[inline]
fn padded_words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (chunks, tail) = bytes.as_chunks::<WORD>();
    let last = (!tail.is_empty()).then(|| last_word(bytes, tail));
    chunks.iter().map(|chunk| u64::from_ne_bytes(*chunk)).chain(last)
}

/// The bytes of a last word that is not whole, filled with zeros. `tail` is the end of `bytes`.
#[inline]
fn last_word(bytes: &[u8], tail: &[u8]) -> u64 {
    match bytes.last_chunk::<WORD>() {
        // The last whole word's worth, without what the word before has. Bytes put together in memory would have to
        // reach it before they could be loaded as a word, and everything before them too.
        Some(end) => (u64::from_le_bytes(*end) >> (8 * (WORD - tail.len()))).to_le(),
        None => tail.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)).to_le(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        Memory::writable(&file, 4096).unwrap()
    }

    #[test]
    fn bytes_written_at_any_offset_come_back_and_nothing_else_changes() {
        let data: Vec<u8> = (1..=40).collect();
        for offset in 0..24 {
            for len in 0..data.len() {
                let memory = memory();
                memory.write(offset, &data[..len]);
                let mut whole = Vec::new();
                assert!(memory.copy(0, 128, &mut whole));
                let mut wanted = vec![0; 128];
                wanted[offset..offset + len].copy_from_slice(&data[..len]);
                assert_eq!(whole, wanted, "{len} bytes at {offset}");
            }
        }
    }

    #[test]
    fn keys_compare_whole() {
        let memory = memory();
        memory.store(3, u64::MAX, Ordering::Relaxed);
        memory.write_padded(2, b"key-of-10b");
        assert!(memory.equals(2, b"key-of-10b"));
        for other in [&b"key-of-10"[..], b"key-of-10c", b"kez-of-10b", b"key-of-10b1"] {
            assert!(!memory.equals(2, other));
        }
        assert!(!memory.equals(511, b"nine byte"), "past the end");
    }

    #[test]
    fn copies_of_any_length_are_exact() {
        let memory = memory();
        let data: Vec<u8> = (0..200).map(|i: u8| i ^ 0x5a).collect();
        memory.write(0, &data);
        for bytes in 0..data.len() {
            let mut buffer = Vec::new();
            assert!(memory.copy(1, bytes, &mut buffer) || bytes > 192);
            assert_eq!(buffer, data[8..].iter().copied().chain([0; 8]).take(bytes).collect::<Vec<u8>>(), "{bytes}");
            assert_eq!(buffer.capacity(), bytes.max(SHORT_BYTES));
            let mut short = [1; SHORT_BYTES];
            let wanted = if bytes <= SHORT_BYTES { &data[8..8 + SHORT_BYTES] } else { &[1; SHORT_BYTES] };
            assert_eq!(memory.copy_short(1, bytes, &mut short), bytes <= SHORT_BYTES);
            assert_eq!(short, wanted, "{bytes}");
        }
    }

    #[test]
    fn what_is_short_is_copied_up_to_the_end_of_the_file() {
        let memory = memory();
        memory.write(4096 - 24, &[3; 24]);
        let mut buffer = Vec::new();
        assert!(memory.copy(509, 20, &mut buffer));
        assert_eq!(buffer, [3; 20]);
        assert!(!memory.copy_short(509, 20, &mut [0; SHORT_BYTES]), "there is not enough behind it");
    }

    #[test]
    fn copies_past_the_end_are_refused() {
        let mut buffer = vec![1];
        assert!(!memory().copy(511, 9, &mut buffer));
        assert!(!memory().copy(usize::MAX, 9, &mut buffer));
        assert!(memory().copy(511, 8, &mut buffer));
        assert_eq!(buffer, [0; 8]);
    }
}
