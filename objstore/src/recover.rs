//! What a crash left, made whole: every published object that is intact stays, everything else is dropped.

use std::collections::BTreeSet;

use compact_str::CompactString;
use star_core::{Incarnation, Key};

use crate::{
    alloc::Allocator,
    block::{BLOCK_ALIGN, Block},
    checksum,
    header::Header,
    index::{Chain, Extent, Index, Leftover, Slot, Table, tag},
    layout::Geometry,
    memory::Memory,
};

/// What [`crate::MappedStore::open`] found in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Objects that are there, each with the right checksum.
    pub objects: u64,
    /// Objects that are not: `torn` ones, and values that were placed but not published when the writer ended.
    pub dropped: u64,
    /// Objects that had been published and are damaged. Never more than 0 after a mere crash of the server.
    pub torn: u64,
    /// The life that wrote the file until now.
    pub incarnation: Incarnation,
}

/// The parts of a store that live in the writer's memory only.
pub(crate) struct Parts {
    pub(crate) index: Index,
    pub(crate) allocator: Allocator,
    pub(crate) keys: Vec<BTreeSet<CompactString>>,
    pub(crate) recovered: Recovered,
}

/// Mends the index and rebuilds the rest from it. Blocks are only read, so being killed in here loses nothing.
pub(crate) fn recover(memory: &Memory, geometry: &Geometry) -> Parts {
    let table = Table::new(geometry);
    let mut allocator = Allocator::new(geometry.area_bytes);
    let mut keys = vec![BTreeSet::new(); usize::from(geometry.stars)];
    let (mut objects, mut torn) = (0, 0);
    let mut linked = vec![false; geometry.overflow as usize];
    let mut chain = Chain { table, memory, linked: &mut linked, kept: Vec::new() };
    let extent = Extent::recovered(memory, &table);
    extent.store(memory);
    let leftover = Leftover::of(memory, &table, extent);
    for home in 0..extent.used() {
        let (taken, not_whole) = chain.mend(home, |slot| {
            // A mark belongs to a write that was under way: the new life learns of it again, or it never was.
            if !slot.has_object() {
                return Some(Slot::EMPTY);
            }
            match adopt(memory, geometry, &table, home, slot, &mut allocator, &mut keys) {
                Some(()) => Some(slot.with_dirty(false)),
                None if leftover.has(home, slot) => Some(Slot::EMPTY),
                None => None,
            }
        });
        objects += taken;
        torn += not_whole;
    }
    // A bucket that was being filled to come into use; it begins again.
    (extent.used()..geometry.buckets).take(1).for_each(|bucket| chain.empty(bucket));
    let free = chain.free();
    let header = Header(memory);
    // A damaged count must not make the report overflow.
    let dropped = header.placed().saturating_add(torn);
    let recovered = Recovered { objects, dropped, torn, incarnation: header.incarnation() };
    Parts { index: Index::recovered(geometry, objects, free), allocator, keys, recovered }
}

/// Takes an object over if everything about it is right: None if not.
fn adopt(
    memory: &Memory,
    geometry: &Geometry,
    table: &Table,
    home: u64,
    slot: Slot,
    allocator: &mut Allocator,
    keys: &mut [BTreeSet<CompactString>],
) -> Option<()> {
    let block = Block::read(memory, geometry, slot.block_at())?;
    block.encoding()?;
    let (key_at, key_bytes) = block.key_range();
    let key = Key::new(CompactString::from_utf8(own_bytes(memory, key_at, key_bytes)).ok()?);
    let value = own_bytes(memory, block.value_at(), block.shape.value_bytes());
    // The key is compared as words, with what fills the last one; that is not under the checksum.
    let sound = block.has_key(memory, key.as_str())
        && table.home(memory, key.hash()) == home
        && slot.tag() == tag(key.hash())
        && block.intact(memory, key.hash(), checksum::of_value(value));
    let star = &mut keys[usize::from(key.star(geometry.stars).0)];
    if !sound || star.contains(key.as_str()) {
        return None;
    }
    // The room last: what is not adopted must not hold any. No object is ever among the marks.
    if !allocator.claim(block.at.checked_sub(geometry.area_at)?, block.shape.total()) {
        return None;
    }
    star.insert(CompactString::new(key.as_str()));
    Some(())
}

/// Takes the room of a block that a living reader has pinned and that no bucket names; None if there is no such block.
///
/// A pin may also be one that will not hold, and name a place where no block is any more: what seems to be one is kept until the
/// pin is taken back, which is soon. Whether it is whole is not asked. Whoever has it in place goes by the lengths in its head, and these
/// must stay as they are also where a value was damaged.
pub(crate) fn adopt_pinned(
    memory: &Memory,
    geometry: &Geometry,
    at: usize,
    allocator: &mut Allocator,
) -> Option<Block> {
    let offset = at.checked_sub(geometry.area_at).filter(|offset| offset.is_multiple_of(BLOCK_ALIGN))?;
    if offset >= geometry.area_bytes {
        return None;
    }
    let block = Block::read(memory, geometry, at)?;
    allocator.claim(offset, block.shape.total()).then_some(block)
}

#[allow(unsafe_code, reason = "recovery runs before there is a store that could change what it reads")]
fn own_bytes(memory: &Memory, offset: usize, bytes: usize) -> &[u8] {
    // SAFETY: this process holds the file's lock, so it is the only writer; recovery runs on one thread, stores only
    // to the index, and lets go of the slice before it returns.
    unsafe { memory.bytes(offset, bytes) }
}
