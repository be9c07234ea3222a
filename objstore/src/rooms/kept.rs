//! The server's side: which rooms there are, and which of them their producer may still write to.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use star_core::{Incarnation, Key, store::Encoding};

use super::{ROOM_LOCKS, RoomError, lock_byte};
use crate::{
    alloc::{Allocator, pages_of},
    block::Block,
    layout::Geometry,
    lock,
    memory::Memory,
};

/// What became of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The producer writes.
    Open,
    /// Sealed: the block is that of a write, or of an object.
    Sealed,
    /// The block is nobody's any more.
    Left,
}

/// A room whose producer may still write to it, or whose value is still being sent.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its name; 0 for one of an earlier life.
    pub(crate) id: u64,
    pub(crate) state: State,
    /// Where its block begins in the file, at a page, and what was asked for it.
    pub(crate) at: usize,
    pub(crate) total: usize,
    /// What was created; `None` for one of an earlier life.
    pub(crate) created: Option<Created>,
    /// The byte whose lock says that the producer may still write.
    lock_at: usize,
    /// The value on its way to the other members.
    loan: Weak<Loan>,
}

#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) key: Key,
    pub(crate) encoding: Encoding,
    pub(crate) block: Block,
}

/// A sealed value that is being sent from where it lies.
struct Loan {
    memory: Arc<Memory>,
    value: Range<usize>,
}

struct Lent(Arc<Loan>);

impl AsRef<[u8]> for Lent {
    #[allow(unsafe_code, reason = "a loan is what makes bytes in place sound")]
    fn as_ref(&self) -> &[u8] {
        let value = &self.0.value;
        // SAFETY: the writer of the file gives this room to nobody else, moves nothing from it, and stores nothing to the
        // value, while the loan stands; the producer has ended its writing with the seal. One that writes on harms the
        // bytes of its own object, which are only hashed and copied: nothing depends on what they are.
        unsafe { self.0.memory.bytes(value.start, value.len()) }
    }
}

impl Kept {
    pub(crate) fn new(id: u64, lock: u16, created: Created) -> Self {
        let (at, total) = (created.block.at, created.block.shape.total());
        Self { id, state: State::Open, at, total, created: Some(created), lock_at: lock_byte(lock), loan: Weak::new() }
    }

    pub(crate) fn pages(&self) -> Range<usize> {
        self.at..self.at + pages_of(self.total)
    }

    /// The value, in place; the room is kept at least until it is dropped.
    pub(crate) fn lend(&mut self, memory: &Arc<Memory>, value: Range<usize>) -> Bytes {
        let new = || Arc::new(Loan { memory: Arc::clone(memory), value });
        let loan = self.loan.upgrade().unwrap_or_else(new);
        self.loan = Arc::downgrade(&loan);
        Bytes::from_owner(Lent(loan))
    }

    /// Whether nobody writes to the room any more, or sends from it. Asks the system.
    pub(crate) fn is_over(&self, file: &File) -> bool {
        // Where the system cannot say, the producer lives.
        self.loan.strong_count() == 0 && !lock::is_locked(file, self.lock_at).unwrap_or(true)
    }

    /// The same where another producer has the room's lock now: then the pages say whether the former one lives.
    fn is_deserted(&self, file: &File) -> bool {
        self.loan.strong_count() == 0 && !lock::is_any_locked(file, self.pages()).unwrap_or(true)
    }
}

/// The rooms of a store, by where they begin.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    kept: BTreeMap<usize, Kept>,
    last_id: u64,
}

impl Rooms {
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        // No later life gives a number again, as for writes.
        Self { kept: BTreeMap::new(), last_id: incarnation.0 << 20 }
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Whether a producer may be writing to this block, or it is being sent.
    pub(crate) fn holds(&self, block_at: usize) -> bool {
        self.kept.contains_key(&block_at)
    }

    /// The block of a room that this life of the server gave, as it was made.
    pub(crate) fn block_at(&self, block_at: usize) -> Option<Block> {
        Some(self.kept.get(&block_at)?.created.as_ref()?.block)
    }

    pub(crate) fn at(&mut self, block_at: usize) -> Option<&mut Kept> {
        self.kept.get_mut(&block_at)
    }

    pub(crate) fn insert(&mut self, room: Kept) {
        self.kept.insert(room.at, room);
    }

    pub(crate) fn find(&mut self, id: u64) -> Result<&mut Kept, RoomError> {
        let found = self.kept.values_mut().find(|room| room.id == id && room.created.is_some());
        let room = found.ok_or(RoomError::Unknown { room: id })?;
        match room.state {
            State::Open => Ok(room),
            State::Sealed => Err(RoomError::Sealed { room: id }),
            State::Left => Err(RoomError::Aborted { room: id }),
        }
    }

    /// The open room whose value these very bytes are.
    pub(crate) fn of_value(&mut self, memory: &Memory, value: &[u8]) -> Option<&mut Kept> {
        let value_at = memory.offset_of(value)?;
        let room = self.kept.range_mut(..=value_at).next_back()?.1;
        let block = room.created.as_ref()?.block;
        let same = block.value_at() == value_at && block.shape.value_bytes() == value.len();
        (same && room.state == State::Open).then_some(room)
    }

    /// Takes out the rooms that are over. Whoever says that the lock `passed_on` is its own says that the producer which
    /// had it before is gone.
    pub(crate) fn take_over(&mut self, file: &File, passed_on: Option<u16>) -> Vec<Kept> {
        let is_over = |room: &&Kept| match passed_on.map(lock_byte) {
            Some(byte) if byte == room.lock_at => room.is_deserted(file),
            _ => room.is_over(file),
        };
        let over: Vec<usize> = self.kept.values().filter(is_over).map(|room| room.at).collect();
        over.into_iter().filter_map(|at| self.kept.remove(&at)).collect()
    }

    pub(crate) fn has_lock(&self, lock: u16) -> bool {
        self.kept.values().any(|room| room.lock_at == lock_byte(lock))
    }

    /// Bytes of open rooms, and of all rooms.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let bytes = |open: bool| {
            let rooms = self.kept.values().filter(|room| !open || room.state == State::Open);
            rooms.map(|room| room.pages().len() as u64).sum()
        };
        (bytes(true), bytes(false))
    }

    /// After a crash of the server: the rooms that producers of its earlier life still map. The allocator knows what
    /// objects there are, and what readers have pinned.
    pub(crate) fn recover(&mut self, file: &File, geometry: &Geometry, allocator: &mut Allocator) -> io::Result<()> {
        for pages in lock::locked_ranges(file, geometry.area_at..geometry.area_end(), usize::from(ROOM_LOCKS))? {
            let offset = pages.start - geometry.area_at;
            let (total, state) = match allocator.large_at(offset) {
                Some(total) if pages_of(total) == pages.len() && allocator.claim_end(offset, total) => {
                    (total, State::Sealed)
                }
                None if pages_of(pages.len()) == pages.len() && allocator.claim(offset, pages.len()) => {
                    (pages.len(), State::Left)
                }
                // No pages that this store has given.
                _ => continue,
            };
            let (at, lock_at) = (pages.start, pages.start);
            self.insert(Kept { id: 0, state, at, total, created: None, lock_at, loan: Weak::new() });
        }
        Ok(())
    }
}
