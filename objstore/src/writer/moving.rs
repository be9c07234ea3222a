//! Making room in one piece by moving objects: readers look at a bucket again when it has changed, so an object that
//! nobody has pinned may lie anywhere.

use star_core::Key;

use super::MappedStore;
use crate::{
    alloc::Window,
    block::Block,
    index::{Index, Position, Slot},
};

/// How much is moved for one write at most, in parts of its own size, and beside that: some 100 us.
const MOVED_PARTS_MAX: u64 = 4;
const MOVED_BYTES_MAX: u64 = 1 << 20;

impl MappedStore {
    /// Makes room for a block of so many bytes; false if that cannot be done, or would take too long.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        let limit = self.moved_bytes + MOVED_PARTS_MAX * bytes as u64 + MOVED_BYTES_MAX;
        let windows = self.allocator.windows(bytes);
        windows.iter().any(|window| self.moved_bytes < limit && self.empty(window))
    }

    fn empty(&mut self, window: &Window) -> bool {
        let blocks = self.allocator.blocks_in(window);
        if blocks.iter().any(|offset| self.movable(self.geometry.area_at + offset).is_none()) {
            return false;
        }
        self.allocator.avoid(window);
        let emptied = blocks.into_iter().all(|offset| self.relocate(self.geometry.area_at + offset));
        self.allocator.allow_all();
        emptied
    }

    /// The slot that names a block, if the block may lie elsewhere: it is a key's own, and nobody has it pinned. Values
    /// that are placed are known by where they are.
    fn movable(&self, block_at: usize) -> Option<(Key, Position, Slot, Block)> {
        let block = Block::read(&self.memory, &self.geometry, block_at)?;
        let key = Key::new(std::str::from_utf8(self.key_of(block)).ok()?);
        let (position, slot, found) = self.find(&key)?;
        let is_held = self.rooms.holds(block_at) || self.limbo.is_pinned(&self.memory, block_at);
        (found.at == block_at && !is_held).then_some((key, position, slot, block))
    }

    /// Moves an object elsewhere; false if it stays. At each moment its slot names a whole block.
    fn relocate(&mut self, block_at: usize) -> bool {
        let Some((key, position, slot, block)) = self.movable(block_at) else { return false };
        let Some(offset) = self.allocator.allocate(block.shape.total()) else { return false };
        let at = self.geometry.area_at + offset;
        self.memory.copy_within(block_at, at, block.shape.total());
        let moved = Slot::new(key.hash(), at, slot.has_object(), slot.is_dirty());
        Index::replace(&*self.memory, position, moved);
        self.moved_bytes += block.shape.total() as u64;
        // A reader may have pinned it meanwhile: then its room is not free yet.
        let kept = self.limbo.keeps(&self.memory, block);
        if !kept {
            self.give_back(block);
        }
        !kept
    }

    /// Bytes that were moved to make room in one piece, since the store was opened.
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }
}
