//! Room that shares no page of the system with anything else, so that a process may map it for writing.

use std::ops::Range;

use super::{Allocator, extents::UNIT_BYTES, units};
use crate::layout::SYSTEM_PAGE_BYTES;

const SYSTEM_PAGE_UNITS: u64 = (SYSTEM_PAGE_BYTES / UNIT_BYTES) as u64;

/// What a block takes of the area if it is alone in its pages, in bytes.
pub(crate) fn pages_of(bytes: usize) -> usize {
    bytes.next_multiple_of(SYSTEM_PAGE_BYTES)
}

impl Allocator {
    /// Room for a large block that begins at a page, with the rest of its last page, which [`Self::share_end`] gives back.
    pub(crate) fn allocate_alone(&mut self, bytes: usize) -> Option<usize> {
        let (wanted, slack) = (units(pages_of(bytes)), SYSTEM_PAGE_UNITS - 1);
        let taken = match self.extents.take(wanted + slack, &(0..0)) {
            Some(taken) => taken,
            None if self.release_spares() => self.extents.take(wanted + slack, &(0..0))?,
            None => return None,
        };
        let start = taken.next_multiple_of(SYSTEM_PAGE_UNITS);
        for (from, end) in [(taken, start), (start + wanted, taken + wanted + slack)] {
            if from < end {
                self.extents.give(from, end - from);
            }
        }
        self.large.insert(start, units(bytes));
        self.used_bytes += wanted * UNIT_BYTES as u64;
        Some(start as usize * UNIT_BYTES)
    }

    /// Gives the rest of a block's last page back, once nobody maps it for writing.
    pub(crate) fn share_end(&mut self, offset: usize, bytes: usize) {
        let end = end_units(offset, bytes);
        if !end.is_empty() {
            self.extents.give(end.start, end.end - end.start);
            self.used_bytes -= (end.end - end.start) * UNIT_BYTES as u64;
        }
    }

    /// Takes the rest of a block's last page; false if it is taken.
    pub(crate) fn claim_end(&mut self, offset: usize, bytes: usize) -> bool {
        let end = end_units(offset, bytes);
        if end.is_empty() {
            return true;
        }
        let claimed = self.extents.take_at(end.start, end.end - end.start);
        if claimed {
            self.used_bytes += (end.end - end.start) * UNIT_BYTES as u64;
        }
        claimed
    }

    /// Bytes of the large block that begins here, if one does.
    pub(crate) fn large_at(&self, offset: usize) -> Option<usize> {
        let units = self.large.get(&((offset / UNIT_BYTES) as u64))?;
        offset.is_multiple_of(UNIT_BYTES).then_some(*units as usize * UNIT_BYTES)
    }

    /// The longest free run, in bytes.
    pub(crate) fn largest_free_bytes(&self) -> u64 {
        self.extents.longest().next().map_or(0, |(_, units)| units * UNIT_BYTES as u64)
    }
}

fn end_units(offset: usize, bytes: usize) -> Range<u64> {
    let first = (offset / UNIT_BYTES) as u64;
    first + units(bytes)..first + units(pages_of(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA_BYTES: usize = 1 << 20;

    #[test]
    fn nothing_else_is_in_the_pages_of_a_block_that_is_alone() {
        let mut allocator = Allocator::new(AREA_BYTES);
        // Leaves runs that begin and end anywhere.
        let odd: Vec<usize> = (0..12).map(|i| allocator.allocate(17_000 + i * 1500).unwrap()).collect();
        for (i, offset) in odd.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
            allocator.free(*offset, 17_000 + i * 1500);
        }
        let before = allocator.used_bytes();
        let alone: Vec<(usize, usize)> =
            [70_000, 16_385, 100_001].map(|bytes| (allocator.allocate_alone(bytes).unwrap(), bytes)).to_vec();
        let mut others = Vec::new();
        while let Some(offset) = allocator.allocate(20_000) {
            others.push(offset);
        }
        for (offset, bytes) in &alone {
            assert!(offset.is_multiple_of(SYSTEM_PAGE_BYTES));
            let pages = *offset..offset + pages_of(*bytes);
            assert!(others.iter().all(|other| other + 20_480 <= pages.start || *other >= pages.end));
            assert_eq!(allocator.large_at(*offset), Some(bytes.next_multiple_of(UNIT_BYTES)));
        }
        others.into_iter().for_each(|offset| allocator.free(offset, 20_000));
        for (offset, bytes) in alone {
            assert!(!allocator.claim_end(offset, bytes) || bytes.next_multiple_of(UNIT_BYTES) == pages_of(bytes));
            allocator.share_end(offset, bytes);
            assert!(allocator.claim_end(offset, bytes));
            allocator.share_end(offset, bytes);
            allocator.free(offset, bytes);
        }
        assert_eq!(allocator.used_bytes(), before, "all of it came back");
    }

    #[test]
    fn a_block_that_is_alone_may_need_all_that_there_is() {
        let mut allocator = Allocator::new(AREA_BYTES);
        assert_eq!(allocator.largest_free_bytes(), AREA_BYTES as u64);
        assert_eq!(allocator.allocate_alone(AREA_BYTES + 1), None);
        let offset = allocator.allocate_alone(AREA_BYTES - 2 * SYSTEM_PAGE_BYTES).unwrap();
        assert!(allocator.largest_free_bytes() < 3 * SYSTEM_PAGE_BYTES as u64);
        allocator.free(offset, AREA_BYTES - 2 * SYSTEM_PAGE_BYTES);
        assert_eq!((allocator.used_bytes(), allocator.largest_free_bytes()), (0, AREA_BYTES as u64));
    }
}
