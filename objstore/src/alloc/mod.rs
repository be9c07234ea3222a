//! Who has which part of the object area. Pure: offsets in, offsets out, no memory touched; so it can be rebuilt from
//! the blocks that a crash left, and a wrong block in the file cannot lead it astray.
//!
//! Small blocks share pages of one size class; large ones get runs of units. A page whose blocks are all free goes back.

mod alone;
mod classes;
mod extents;
mod room;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range};

pub(crate) use alone::pages_of;
use classes::{CLASS_BYTES, CLASSES, class_of};
use extents::{Extents, UNIT_BYTES, overlap, units_of_page};
pub(crate) use room::Window;

use crate::layout::PAGE_BYTES;

const NONE: u32 = u32::MAX;
/// Words of a page's bit map: a page of the smallest class has 1365 blocks.
const MAP_WORDS: usize = 22;

/// The allocator of an object area. Offsets count from the start of the area.
#[derive(Debug)]
pub(crate) struct Allocator {
    extents: Extents,
    /// The slab in each page, or [`NONE`].
    slab_of_page: Vec<u32>,
    slabs: Vec<Slab>,
    /// Slabs of no page, to be used again.
    idle: Vec<u32>,
    classes: [Class; CLASSES],
    /// The large blocks: first unit and units.
    large: BTreeMap<u64, u64>,
    /// Units that are to become free: nothing is allocated there. Empty but while blocks are moved.
    avoid: Range<u64>,
    used_bytes: u64,
    capacity_bytes: u64,
}

/// A page that is divided into blocks of one class.
#[derive(Debug)]
struct Slab {
    page: u32,
    class: u8,
    blocks: u16,
    used: u16,
    /// No word of `map` before this one has a free block.
    first_word: u8,
    /// Neighbours in the class's list of slabs with a free block.
    before: u32,
    after: u32,
    /// A set bit is a block in use.
    map: [u64; MAP_WORDS],
}

#[derive(Clone, Copy, Debug)]
struct Class {
    /// The first slab that has a free block.
    first: u32,
    /// The one slab that is kept although all of it is free, so that a page does not come and go with one block.
    spare: u32,
}

impl Allocator {
    /// An area of whole pages, all free.
    pub(crate) fn new(area_bytes: usize) -> Self {
        let pages = area_bytes / PAGE_BYTES;
        Self {
            extents: Extents::new(pages),
            slab_of_page: vec![NONE; pages],
            slabs: Vec::new(),
            idle: Vec::new(),
            classes: [Class { first: NONE, spare: NONE }; CLASSES],
            large: BTreeMap::new(),
            avoid: 0..0,
            used_bytes: 0,
            capacity_bytes: area_bytes as u64,
        }
    }

    /// Bytes in use, as rounded up.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes that are not in use; they may be in pieces.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.capacity_bytes - self.used_bytes
    }

    /// Room for a block, or None where there is none in one piece.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Option<usize> {
        let offset = match self.try_allocate(bytes) {
            Some(offset) => offset,
            None if self.release_spares() => self.try_allocate(bytes)?,
            None => return None,
        };
        self.used_bytes += rounded(bytes);
        Some(offset)
    }

    fn try_allocate(&mut self, bytes: usize) -> Option<usize> {
        let Some(class) = class_of(bytes) else {
            let at = self.extents.take(units(bytes), &self.avoid)?;
            self.large.insert(at, units(bytes));
            return Some(at as usize * UNIT_BYTES);
        };
        let mut slab = self.classes[class].first;
        while slab != NONE && overlap(&units_of_page(self.slabs[slab as usize].page as usize), &self.avoid) {
            slab = self.slabs[slab as usize].after;
        }
        let slab = match slab {
            NONE => {
                let page = self.extents.take_page(&self.avoid)?;
                self.start_slab(class, page)
            }
            slab => slab,
        };
        Some(self.take_block(slab, None))
    }

    /// Takes this very room, for a block that was found in the file. False if any of it is taken, or no block of this
    /// size can stand there.
    pub(crate) fn claim(&mut self, offset: usize, bytes: usize) -> bool {
        if offset.checked_add(bytes).is_none_or(|end| end as u64 > self.capacity_bytes) {
            return false;
        }
        let claimed = match class_of(bytes) {
            Some(class) => self.claim_small(class, offset),
            None => {
                let unit = (offset / UNIT_BYTES) as u64;
                let claimed = offset.is_multiple_of(UNIT_BYTES) && self.extents.take_at(unit, units(bytes));
                if claimed {
                    self.large.insert(unit, units(bytes));
                }
                claimed
            }
        };
        if claimed {
            self.used_bytes += rounded(bytes);
        }
        claimed
    }

    fn claim_small(&mut self, class: usize, offset: usize) -> bool {
        let (page, within) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
        let block = within / CLASS_BYTES[class];
        if !within.is_multiple_of(CLASS_BYTES[class]) || block >= PAGE_BYTES / CLASS_BYTES[class] {
            return false;
        }
        let slab = match self.slab_of_page[page] {
            NONE if self.extents.take_page_at(page) => self.start_slab(class, page),
            NONE => return false,
            slab => slab,
        };
        let found = &self.slabs[slab as usize];
        if usize::from(found.class) != class || found.map[block / 64] >> (block % 64) & 1 == 1 {
            return false;
        }
        self.take_block(slab, Some(block));
        true
    }

    /// Gives a block's room back. `bytes` as it was asked for.
    pub(crate) fn free(&mut self, offset: usize, bytes: usize) {
        self.used_bytes -= rounded(bytes);
        let Some(class) = class_of(bytes) else {
            self.large.remove(&((offset / UNIT_BYTES) as u64));
            return self.extents.give((offset / UNIT_BYTES) as u64, units(bytes));
        };
        let index = self.slab_of_page[offset / PAGE_BYTES];
        let slab = &mut self.slabs[index as usize];
        let block = (offset % PAGE_BYTES) / CLASS_BYTES[class];
        debug_assert!(slab.map[block / 64] >> (block % 64) & 1 == 1, "a block is given back once");
        slab.map[block / 64] &= !(1 << (block % 64));
        slab.first_word = slab.first_word.min((block / 64) as u8);
        let was_full = slab.used == slab.blocks;
        slab.used -= 1;
        let empty = slab.used == 0;
        if was_full {
            self.list(class, index);
        }
        if empty {
            let spare = self.classes[class].spare;
            // The lower page is kept: large blocks come from high places, and a page kept there would part their room.
            let page = |slab: u32| self.slabs[slab as usize].page;
            let (keep, end) = if spare == NONE || page(index) < page(spare) { (index, spare) } else { (spare, index) };
            self.classes[class].spare = keep;
            if end != NONE {
                self.end_slab(class, end);
            }
        }
    }

    fn take_block(&mut self, index: u32, wanted: Option<usize>) -> usize {
        let slab = &mut self.slabs[index as usize];
        let class = usize::from(slab.class);
        let block = wanted.unwrap_or_else(|| {
            let mut word = usize::from(slab.first_word);
            while slab.map[word] == u64::MAX {
                word += 1;
            }
            slab.first_word = word as u8;
            word * 64 + slab.map[word].trailing_ones() as usize
        });
        slab.map[block / 64] |= 1 << (block % 64);
        slab.used += 1;
        let (page, full) = (slab.page as usize, slab.used == slab.blocks);
        if self.classes[class].spare == index {
            self.classes[class].spare = NONE;
        }
        if full {
            self.unlist(class, index);
        }
        page * PAGE_BYTES + block * CLASS_BYTES[class]
    }

    fn start_slab(&mut self, class: usize, page: usize) -> u32 {
        let slab = Slab {
            page: page as u32,
            class: class as u8,
            blocks: (PAGE_BYTES / CLASS_BYTES[class]) as u16,
            used: 0,
            first_word: 0,
            before: NONE,
            after: NONE,
            map: [0; MAP_WORDS],
        };
        let index = if let Some(index) = self.idle.pop() {
            self.slabs[index as usize] = slab;
            index
        } else {
            self.slabs.push(slab);
            (self.slabs.len() - 1) as u32
        };
        self.slab_of_page[page] = index;
        self.list(class, index);
        index
    }

    fn end_slab(&mut self, class: usize, index: u32) {
        self.unlist(class, index);
        let page = self.slabs[index as usize].page as usize;
        self.slab_of_page[page] = NONE;
        self.idle.push(index);
        self.extents.give((page * PAGE_BYTES / UNIT_BYTES) as u64, (PAGE_BYTES / UNIT_BYTES) as u64);
    }

    /// Gives back the pages that were kept in reserve; false if there was none.
    fn release_spares(&mut self) -> bool {
        let mut any = false;
        for class in 0..CLASSES {
            let spare = std::mem::replace(&mut self.classes[class].spare, NONE);
            if spare != NONE {
                self.end_slab(class, spare);
                any = true;
            }
        }
        any
    }

    fn list(&mut self, class: usize, index: u32) {
        let first = std::mem::replace(&mut self.classes[class].first, index);
        self.slabs[index as usize].before = NONE;
        self.slabs[index as usize].after = first;
        if first != NONE {
            self.slabs[first as usize].before = index;
        }
    }

    fn unlist(&mut self, class: usize, index: u32) {
        let Slab { before, after, .. } = self.slabs[index as usize];
        match before {
            NONE => self.classes[class].first = after,
            before => self.slabs[before as usize].after = after,
        }
        if after != NONE {
            self.slabs[after as usize].before = before;
        }
    }
}

fn units(bytes: usize) -> u64 {
    bytes.div_ceil(UNIT_BYTES) as u64
}

/// What a block takes of the area.
fn rounded(bytes: usize) -> u64 {
    class_of(bytes).map_or_else(|| units(bytes) * UNIT_BYTES as u64, |class| CLASS_BYTES[class] as u64)
}
