//! Room in one piece where there is enough in pieces: which blocks would have to go elsewhere.

use std::{collections::BTreeSet, ops::Range};

use super::{
    Allocator, NONE,
    classes::{CLASS_BYTES, class_of},
    extents::{PAGE_UNITS, UNIT_BYTES, units_of_page},
    units,
};
use crate::layout::PAGE_BYTES;

/// Free runs that are looked at for a window to make around them.
const RUNS_MAX: usize = 256;
/// Pages of each class that are looked at.
const SLABS_MAX: usize = 16;
/// Windows that are proposed.
const WINDOWS_MAX: usize = 64;
/// What must stay free of the area for blocks to be moved: with less, each write would move what the last one moved.
const SPARE_PART: u64 = 64;

/// A range of the area that a block would fit in if the blocks that are there now were elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window(Range<u64>);

impl Allocator {
    /// Where room for a block could be made, what costs least first. None if there is too little in all.
    pub(crate) fn windows(&self, bytes: usize) -> Vec<Window> {
        let spare_bytes = self.capacity_bytes / SPARE_PART;
        if self.free_bytes() < bytes as u64 + spare_bytes {
            return Vec::new();
        }
        let mut windows: Vec<(u64, Range<u64>)> = if class_of(bytes).is_some() {
            self.pages_to_empty().into_iter().map(|page| (0, units_of_page(page))).collect()
        } else {
            let (units, end) = (units(bytes), self.capacity_bytes / UNIT_BYTES as u64);
            let at = |start: u64| start..start + units;
            let around = |(start, length): (u64, u64)| [at(start), at((start + length).saturating_sub(units))];
            let all = self.extents.longest().take(RUNS_MAX).flat_map(around);
            all.filter(|one| one.end <= end).map(|one| (0, one)).collect()
        };
        for (cost, window) in &mut windows {
            *cost = self.taken_bytes(window);
        }
        windows.sort_unstable_by_key(|(cost, window)| (*cost, window.start));
        windows.dedup();
        windows.into_iter().take(WINDOWS_MAX).map(|(_, window)| Window(window)).collect()
    }

    /// Pages that may have little in them: of each class the first ones with room, and those around the longest free runs.
    fn pages_to_empty(&self) -> BTreeSet<usize> {
        let runs = self.extents.longest().take(RUNS_MAX);
        let around = runs.flat_map(|(start, length)| [start / PAGE_UNITS, (start + length - 1) / PAGE_UNITS]);
        let mut all: BTreeSet<usize> = around.map(|page| page as usize).collect();
        for class in &self.classes {
            let mut slab = class.first;
            for _ in 0..SLABS_MAX {
                let Some(found) = self.slabs.get(slab as usize) else { break };
                all.insert(found.page as usize);
                slab = found.after;
            }
        }
        all
    }

    /// Bytes of a range that blocks take.
    fn taken_bytes(&self, window: &Range<u64>) -> u64 {
        let mut bytes = (window.end - window.start - self.extents.free_within(window)) * UNIT_BYTES as u64;
        for page in pages(window) {
            let slab = self.slab_of_page[page];
            if slab != NONE {
                let slab = &self.slabs[slab as usize];
                let used = u64::from(slab.used) * CLASS_BYTES[usize::from(slab.class)] as u64;
                // All of the page would have to go, though only a part of it may lie in the window.
                bytes += used;
                let within = units_of_page(page);
                bytes -= (within.end.min(window.end) - within.start.max(window.start)) * UNIT_BYTES as u64;
            }
        }
        bytes
    }

    /// The blocks in a window, by where they begin.
    pub(crate) fn blocks_in(&self, window: &Window) -> Vec<usize> {
        let Window(range) = window;
        let first = self.large.range(..range.start).next_back().filter(|(start, units)| *start + *units > range.start);
        let large =
            first.into_iter().chain(self.large.range(range.clone())).map(|(unit, _)| *unit as usize * UNIT_BYTES);
        let mut blocks: Vec<usize> = large.collect();
        for page in pages(range) {
            let slab = self.slab_of_page[page];
            if slab != NONE {
                let slab = &self.slabs[slab as usize];
                let taken = (0..usize::from(slab.blocks)).filter(|block| slab.map[block / 64] >> (block % 64) & 1 == 1);
                blocks.extend(taken.map(|block| page * PAGE_BYTES + block * CLASS_BYTES[usize::from(slab.class)]));
            }
        }
        blocks
    }

    /// From now on nothing is allocated in the window, until [`Self::allow_all`].
    pub(crate) fn avoid(&mut self, window: &Window) {
        let Window(range) = window;
        // A page that is partly in the window becomes free with it or stays: nothing new may come there.
        let pages = pages(range);
        let whole = pages.filter(|page| self.slab_of_page[*page] != NONE).map(units_of_page);
        self.avoid = whole.fold(range.clone(), |all, page| all.start.min(page.start)..all.end.max(page.end));
    }

    pub(crate) fn allow_all(&mut self) {
        self.avoid = 0..0;
        // Pages whose blocks all went are kept as spares, one of each class: here they are what was asked for.
        self.release_spares();
    }
}

fn pages(range: &Range<u64>) -> Range<usize> {
    (range.start / PAGE_UNITS) as usize..range.end.div_ceil(PAGE_UNITS) as usize
}
