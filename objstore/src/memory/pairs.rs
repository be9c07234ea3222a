//! Words two at a time, as every x86-64 processor can load them: half as many instructions, of which a processor that waits
//! for memory can only look so far ahead.
//!
//! An instruction that loads two words is to the language's memory model the same as two relaxed loads, of which it says
//! less than the processor does: here, too, what was loaded only counts after a sequence number was checked.

use std::{
    arch::{
        asm,
        x86_64::{
            __m128i, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16, _mm_setzero_si128,
            _mm_storeu_si128,
        },
    },
    array,
    sync::atomic::AtomicU64,
};

pub(super) const BYTES: usize = 16;

/// Loads a pair that begins at any byte.
///
/// # Safety
/// It lies within memory that may be loaded from with relaxed atomic accesses.
#[inline]
unsafe fn load(from: *const u8) -> __m128i {
    let pair;
    // SAFETY: only loads what the caller says may be loaded. Written by hand, since the language's own load of this size
    // may not meet a store.
    unsafe { asm!("movdqu {}, [{}]", out(xmm_reg) pair, in(reg) from, options(readonly, nostack, preserves_flags)) };
    pair
}

/// Copies bytes, at least [`BYTES`].
///
/// # Safety
/// So many bytes may be loaded as for [`load`], and `to` has room for them that nobody else uses.
#[inline(always)]
pub(super) unsafe fn copy(from: *const u8, bytes: usize, to: *mut u8) {
    let (mut next, mut target, mut left) = (from, to, bytes);
    // SAFETY: each pair below is one of those that are left, or the last one of all.
    unsafe {
        while left >= 2 * BYTES {
            let (one, other) = (load(next), load(next.add(BYTES)));
            _mm_storeu_si128(target.cast(), one);
            _mm_storeu_si128(target.add(BYTES).cast(), other);
            (next, target, left) = (next.add(2 * BYTES), target.add(2 * BYTES), left - 2 * BYTES);
        }
        if left == BYTES {
            _mm_storeu_si128(target.cast(), load(next));
            return;
        }
        if left > BYTES {
            _mm_storeu_si128(target.cast(), load(next));
        }
        if left > 0 {
            // The last bytes, some of them once more.
            _mm_storeu_si128(to.add(bytes - BYTES).cast(), load(from.add(bytes - BYTES)));
        }
    }
}

/// Copies so many pairs, with no branch.
///
/// # Safety
/// So many may be loaded as for [`load`], and `to` has room for them that nobody else uses.
#[inline(always)]
pub(super) unsafe fn copy_all<const PAIRS: usize>(from: *const u8, to: *mut u8) {
    // SAFETY: each of them is one of those.
    unsafe {
        let pairs: [__m128i; PAIRS] = array::from_fn(|i| load(from.add(i * BYTES)));
        pairs.into_iter().enumerate().for_each(|(i, pair)| _mm_storeu_si128(to.add(i * BYTES).cast(), pair));
    }
}

/// See [`crate::words::Words::tagged`].
#[inline]
pub(super) fn tagged<const N: usize>(cells: &[AtomicU64; N], tag: u16) -> u32 {
    const { assert!(N == 6, "three pairs") };
    let from = cells.as_ptr().cast::<u8>();
    // SAFETY: three pairs are six words.
    let pairs = [0, 1, 2].map(|pair| unsafe { load(from.add(pair * BYTES)) });
    // SAFETY: instructions of every x86-64 processor, on registers alone.
    unsafe {
        let wanted = _mm_set1_epi16(tag.cast_signed());
        let [first, second, third] = pairs.map(|pair| _mm_cmpeq_epi16(pair, wanted));
        // A byte for each 16 bits, and of each word's four the highest.
        let low = _mm_movemask_epi8(_mm_packs_epi16(first, second)) & 0x8888;
        let high = _mm_movemask_epi8(_mm_packs_epi16(third, _mm_setzero_si128())) & 0x88;
        (low | high << 16).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_wherever_it_stands() {
        for which in 0..1_u64 << 6 {
            let tag = 0x8fff;
            let cells: [AtomicU64; 6] = std::array::from_fn(|i| {
                let has_it = which >> i & 1 == 1;
                AtomicU64::new(if has_it { tag << 48 | 5 } else { (tag ^ 1 << (i % 16)) << 48 | tag << 32 | tag })
            });
            let wanted = (0..6).filter(|i| which >> i & 1 == 1).fold(0, |all, i| all | 1 << (4 * i + 3));
            assert_eq!(tagged(&cells, tag as u16), wanted, "{which:b}");
        }
    }
}
