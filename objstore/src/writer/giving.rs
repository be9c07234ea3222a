//! Who gets room in the file, and when it is given back.

use star_core::{
    Key,
    store::{Encoding, NoSpace},
};

use super::{MappedStore, Pinned};
use crate::{
    block::{Block, Shape},
    rooms::State,
};

impl MappedStore {
    /// Whether the index has room for one more value that is placed.
    pub(super) fn has_entry_for(&self, key: &Key) -> bool {
        self.index.has_room_for_key(self.placed)
            || self.index.has_room_for_mark(self.placed) && self.find(key).is_some()
    }

    pub(super) fn new_block(&mut self, key: &Key, encoding: Encoding, value_bytes: usize) -> Result<Block, NoSpace> {
        let shape = Shape::new(key.len(), value_bytes).ok_or_else(|| self.no_space(value_bytes))?;
        let offset = self.room_for(shape.total()).ok_or_else(|| self.no_space(shape.total()))?;
        Ok(Block::create(&self.memory, self.geometry.area_at + offset, key, encoding, shape))
    }

    fn room_for(&mut self, bytes: usize) -> Option<usize> {
        if let Some(offset) = self.allocator.allocate(bytes) {
            return Some(offset);
        }
        if self.release_pinned()
            && let Some(offset) = self.allocator.allocate(bytes)
        {
            return Some(offset);
        }
        if self.make_room(bytes) { self.allocator.allocate(bytes) } else { None }
    }

    /// Gives the room of a block back that no bucket names any more, or keeps it while a reader has it pinned. The bytes
    /// stay as they are until the room is used again; a reader that still copies them finds that the bucket has changed.
    pub(super) fn free_block(&mut self, block: Block) {
        if !self.limbo.keeps(&self.memory, block) {
            self.give_back(block);
        }
        if self.limbo.is_due() {
            self.release_pinned();
        }
    }

    pub(super) fn give_back(&mut self, block: Block) {
        if let Some(room) = self.rooms.at(block.at) {
            room.state = State::Left;
            return;
        }
        match block.at.checked_sub(self.geometry.area_at) {
            Some(offset) => self.allocator.free(offset, block.shape.total()),
            None => self.marks.free(block.at - self.geometry.marks_at, block.shape.total()),
        }
    }

    /// Gives back what was pinned and is not any more, also what dead readers had pinned; false if that is nothing.
    pub fn release_pinned(&mut self) -> bool {
        let before = self.allocator.free_bytes();
        self.look_after_rooms();
        let released = self.limbo.released(&self.memory, &self.file);
        released.into_iter().for_each(|block| self.give_back(block));
        self.allocator.free_bytes() > before
    }

    /// What readers hold of objects that were replaced or removed since. It is part of what is in use.
    pub fn pinned(&self) -> Pinned {
        let blocks = self.limbo.blocks();
        let bytes = blocks.iter().map(|block| block.shape.total() as u64).sum();
        Pinned { objects: blocks.len() as u64, bytes }
    }
}
