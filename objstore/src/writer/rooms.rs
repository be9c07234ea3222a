//! Values that producers write in place.

use bytes::Bytes;
use star_core::{
    Key,
    message::{Capacity, RoomPlace},
    store::{Encoding, Place, Store},
};

use super::MappedStore;
use crate::{
    block::{Block, Shape},
    layout::SYSTEM_PAGE_BYTES,
    rooms::{Created, Kept, ROOM_BYTES_MIN, ROOM_LOCKS, ROOMS_PART, RoomError, State, is_held},
};

/// A value in a sealed room, where its producer wrote it.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The key that the room was created for.
    pub key: Key,
    /// How the value comes in.
    pub encoding: Encoding,
    /// The value in place. The room is kept at least as long as this, or a part of it, is there.
    pub value: Bytes,
}

impl MappedStore {
    /// Room for a value of this key, which a process that holds a room lock will write there by itself.
    ///
    /// The room is open until it is sealed, aborted, or its lock is free and [`Self::look_after_rooms`] finds it so.
    pub fn create_room(
        &mut self,
        key: &Key,
        encoding: Encoding,
        value_bytes: u64,
        lock: u16,
    ) -> Result<RoomPlace, RoomError> {
        if value_bytes < ROOM_BYTES_MIN {
            return Err(RoomError::Small { value_bytes });
        }
        if lock >= ROOM_LOCKS || !is_held(&self.file, lock) {
            return Err(RoomError::NotLocked { lock });
        }
        self.take_back(Some(lock));
        if self.rooms.has_lock(lock) {
            return Err(RoomError::LockInUse { lock });
        }
        let full = || self.no_space(usize::try_from(value_bytes).unwrap_or(usize::MAX));
        let shape =
            usize::try_from(value_bytes).ok().and_then(|bytes| Shape::new(key.len(), bytes)).ok_or_else(full)?;
        let has_entry = self.has_entry_for(key);
        let open_bytes = self.rooms.bytes().0 + shape.total() as u64;
        if !has_entry || open_bytes > self.geometry.area_bytes as u64 / ROOMS_PART {
            return Err(full().into());
        }
        let offset = self.room_alone(shape.total()).ok_or_else(|| self.no_space(shape.total()))?;
        let block = Block::create(&self.memory, self.geometry.area_at + offset, key, encoding, shape);
        self.set_placed(self.placed + 1);
        let room = Kept::new(self.rooms.next_id(), lock, Created { key: key.clone(), encoding, block });
        let (pages, room_id) = (room.pages(), room.id);
        self.rooms.insert(room);
        Ok(RoomPlace {
            room: room_id,
            value_at: block.value_at() as u64,
            pages_at: pages.start as u64,
            pages_bytes: pages.len() as u64,
        })
    }

    fn room_alone(&mut self, bytes: usize) -> Option<usize> {
        if let Some(offset) = self.allocator.allocate_alone(bytes) {
            return Some(offset);
        }
        if self.release_pinned()
            && let Some(offset) = self.allocator.allocate_alone(bytes)
        {
            return Some(offset);
        }
        // With what aligning it may cost.
        if self.make_room(bytes + 2 * SYSTEM_PAGE_BYTES) { self.allocator.allocate_alone(bytes) } else { None }
    }

    /// What a producer wrote, now that it has ended. Once [`Store::place_value`] was called with the value the room is
    /// sealed; until then it is open as before.
    pub fn seal_room(&mut self, room: u64) -> Result<Sealed, RoomError> {
        let memory = &self.memory;
        let room = self.rooms.find(room)?;
        let Some(Created { key, encoding, block }) = room.created.clone() else {
            return Err(RoomError::Unknown { room: room.id });
        };
        let value = room.lend(memory, block.value_at()..block.value_at() + block.shape.value_bytes());
        Ok(Sealed { key, encoding, value })
    }

    /// Takes an open room back. Its bytes are used again once its producer has let go of it.
    pub fn abort_room(&mut self, room: u64) -> Result<(), RoomError> {
        let place = Place(self.rooms.find(room)?.at as u64);
        self.mend_head(place);
        self.discard(place);
        self.look_after_rooms();
        Ok(())
    }

    /// Takes back what producers have let go of: rooms whose process ended before it sealed them, and all of those that
    /// are over. To be called from time to time; asks the system about each room.
    pub fn look_after_rooms(&mut self) {
        self.take_back(None);
    }

    fn take_back(&mut self, passed_on: Option<u16>) {
        for room in self.rooms.take_over(&self.file, passed_on) {
            let offset = room.at - self.geometry.area_at;
            self.allocator.share_end(offset, room.total);
            match room.state {
                State::Sealed => {}
                State::Left => self.allocator.free(offset, room.total),
                State::Open => {
                    if let Some(created) = &room.created {
                        self.mend(created);
                    }
                    self.discard(Place(room.at as u64));
                }
            }
        }
    }

    /// Keeps a value where its producer wrote it; `None` if it is in no open room of this key.
    pub(super) fn take_room(&mut self, key: &Key, encoding: Encoding, value: &[u8]) -> Option<Place> {
        let room = self.rooms.of_value(&self.memory, value)?;
        let created = room.created.clone().filter(|created| created.key == *key && created.encoding == encoding)?;
        room.state = State::Sealed;
        self.mend(&created);
        let place = created.block.at as u64;
        self.arriving.start(place);
        self.arriving.fill(place, 0, value);
        Some(Place(place))
    }

    /// Writes the head of a room's block again: it lies in a page that the producer could write.
    fn mend(&self, created: &Created) {
        let Created { key, encoding, block } = created;
        Block::create(&self.memory, block.at, key, *encoding, block.shape);
    }

    fn mend_head(&mut self, place: Place) {
        if let Some(created) = self.rooms.at(place.0 as usize).and_then(|room| room.created.clone()) {
            self.mend(&created);
        }
    }

    /// How full the store is.
    pub fn capacity(&self) -> Capacity {
        let usage = self.usage();
        Capacity {
            objects: usage.objects,
            used_bytes: usage.used_bytes,
            capacity_bytes: usage.capacity_bytes,
            largest_free_bytes: self.allocator.largest_free_bytes(),
            room_bytes: self.rooms.bytes().1,
            pinned_bytes: self.pinned().bytes,
        }
    }
}
