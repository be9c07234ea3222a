//! Free room in runs of 1 KiB units: best fit, joined again when given back. Pages for small blocks come from here too.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::layout::PAGE_BYTES;

/// Bytes of a unit.
pub(super) const UNIT_BYTES: usize = 1024;
pub(super) const PAGE_UNITS: u64 = (PAGE_BYTES / UNIT_BYTES) as u64;

/// The runs of free units. Pure: it knows numbers, not memory.
#[derive(Debug)]
pub(super) struct Extents {
    /// Start and length of each free run; no two touch.
    by_start: BTreeMap<u64, u64>,
    /// The same as (length, start), to find the smallest that fits.
    by_length: BTreeSet<(u64, u64)>,
    /// A bit for each page that is wholly free.
    free_pages: Vec<u64>,
    /// No word of `free_pages` before this one has a bit.
    first_word: usize,
}

impl Extents {
    /// All of `pages` pages free.
    pub(super) fn new(pages: usize) -> Self {
        let units = pages as u64 * PAGE_UNITS;
        let mut this = Self {
            by_start: BTreeMap::new(),
            by_length: BTreeSet::new(),
            free_pages: vec![0; pages.div_ceil(64)],
            first_word: 0,
        };
        this.give(0, units);
        this
    }

    /// Takes a run of units: the end of the smallest free run that holds it, so that pages come from low places and
    /// large blocks from high ones.
    pub(super) fn take(&mut self, units: u64, avoid: &Range<u64>) -> Option<u64> {
        let (length, start) =
            *self.by_length.range((units, 0)..).find(|(length, start)| !overlap(&(*start..start + length), avoid))?;
        let at = start + length - units;
        self.split(start, length, at, units);
        Some(at)
    }

    /// Takes the lowest page that is wholly free.
    pub(super) fn take_page(&mut self, avoid: &Range<u64>) -> Option<usize> {
        let word = (self.first_word..self.free_pages.len()).find(|word| self.free_pages[*word] != 0)?;
        self.first_word = word;
        let mut pages = (word..self.free_pages.len()).flat_map(|word| {
            let bits = self.free_pages[word];
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        });
        let page = pages.find(|page| !overlap(&units_of_page(*page), avoid))?;
        let taken = self.take_at(page as u64 * PAGE_UNITS, PAGE_UNITS);
        debug_assert!(taken, "a page with a bit is free");
        Some(page)
    }

    pub(super) fn take_page_at(&mut self, page: usize) -> bool {
        self.take_at(page as u64 * PAGE_UNITS, PAGE_UNITS)
    }

    /// Takes just these units; false if not all of them are free.
    pub(super) fn take_at(&mut self, at: u64, units: u64) -> bool {
        match self.by_start.range(..=at).next_back() {
            Some((&start, &length)) if start + length >= at + units => {
                self.split(start, length, at, units);
                true
            }
            _ => false,
        }
    }

    fn split(&mut self, start: u64, length: u64, at: u64, units: u64) {
        self.forget(start, length);
        self.remember(start, at - start);
        self.remember(at + units, start + length - at - units);
        for page in at / PAGE_UNITS..=(at + units - 1) / PAGE_UNITS {
            self.free_pages[page as usize / 64] &= !(1 << (page % 64));
        }
    }

    /// Gives a run back.
    pub(super) fn give(&mut self, at: u64, units: u64) {
        let (mut start, mut end) = (at, at + units);
        if let Some((&before, &length)) = self.by_start.range(..at).next_back() {
            debug_assert!(before + length <= at, "units are given back once");
            if before + length == at {
                self.forget(before, length);
                start = before;
            }
        }
        if let Some(&length) = self.by_start.get(&end) {
            self.forget(end, length);
            end += length;
        }
        self.remember(start, end - start);
        // Only pages that this run touches can have become whole.
        let first = (at / PAGE_UNITS).max(start.div_ceil(PAGE_UNITS));
        let last = (at + units).div_ceil(PAGE_UNITS).min(end / PAGE_UNITS);
        for page in first..last {
            self.free_pages[page as usize / 64] |= 1 << (page % 64);
            self.first_word = self.first_word.min(page as usize / 64);
        }
    }

    fn forget(&mut self, start: u64, length: u64) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }

    fn remember(&mut self, start: u64, length: u64) {
        if length > 0 {
            self.by_start.insert(start, length);
            self.by_length.insert((length, start));
        }
    }

    /// The longest free runs, longest first, as start and length.
    pub(super) fn longest(&self) -> impl Iterator<Item = (u64, u64)> {
        self.by_length.iter().rev().map(|(length, start)| (*start, *length))
    }

    /// How many units of a range are free.
    pub(super) fn free_within(&self, range: &Range<u64>) -> u64 {
        let before = self.by_start.range(..range.start).next_back();
        let runs = before.into_iter().chain(self.by_start.range(range.clone()));
        runs.map(|(start, length)| (start + length).min(range.end).saturating_sub((*start).max(range.start))).sum()
    }

    /// The free runs, for tests and reports.
    #[cfg(test)]
    pub(super) fn runs(&self) -> Vec<(u64, u64)> {
        self.by_start.iter().map(|(start, length)| (*start, *length)).collect()
    }
}

/// The units of a page.
pub(super) fn units_of_page(page: usize) -> Range<u64> {
    page as u64 * PAGE_UNITS..(page as u64 + 1) * PAGE_UNITS
}

pub(super) fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_row_of_flags(steps in prop::collection::vec((0..3u8, 0..400u64), 1..200)) {
            let pages = 6;
            let mut extents = Extents::new(pages);
            let mut free = vec![true; pages * PAGE_UNITS as usize];
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (what, number) in steps {
                let got = match what {
                    0 => extents.take(number % 100 + 1, &(0..0)).map(|at| (at, number % 100 + 1)),
                    1 => extents.take_page(&(0..0)).map(|page| (page as u64 * PAGE_UNITS, PAGE_UNITS)),
                    _ => {
                        if !held.is_empty() {
                            let (at, units) = held.swap_remove(number as usize % held.len());
                            extents.give(at, units);
                            free[at as usize..(at + units) as usize].fill(true);
                        }
                        None
                    }
                };
                let whole = |page: usize| free[page * 64..(page + 1) * 64].iter().all(|unit| *unit);
                if what == 1 {
                    prop_assert_eq!(got.is_some(), (0..pages).any(whole));
                }
                if let Some((at, units)) = got {
                    let range = &mut free[at as usize..(at + units) as usize];
                    prop_assert!(range.iter().all(|unit| *unit), "given twice");
                    range.fill(false);
                    held.push((at, units));
                }
                let units: u64 = extents.runs().iter().map(|(_, length)| length).sum();
                prop_assert_eq!(units as usize, free.iter().filter(|unit| **unit).count());
            }
            for (at, units) in held {
                extents.give(at, units);
            }
            prop_assert_eq!(extents.runs(), vec![(0, pages as u64 * PAGE_UNITS)]);
        }
    }
}
