//! Rooms: where a process of the machine writes a value itself, which is then sealed and becomes an object.
//!
//! A producer locks a byte of the store's file that is one of the room locks, asks the server for room, and maps the pages
//! that it is told of through the file that it holds the lock with. The system ends such a lock when the file is neither
//! open nor mapped any more. So while the lock stands the producer may be writing, and the pages are used for nothing
//! else, whatever became of the value; once it is free nobody writes there any more, however the producer ended.
//!
//! The pages are locked as well. That is how the next life of a server that was killed finds them.

mod claim;
mod kept;

use std::{fs::File, ops::Range};

pub use claim::{Claim, Room};
pub(crate) use kept::{Created, Kept, Rooms, State};
use star_core::store::NoSpace;

use crate::lock;

/// The smallest value that gets a room: for smaller ones a copy costs less than the mapping.
pub const ROOM_BYTES_MIN: u64 = 64 << 10;
/// Room locks, and so rooms, of a store.
pub const ROOM_LOCKS: u16 = 256;
/// Open rooms take at most this part of the object area: other writes must find room too.
pub(crate) const ROOMS_PART: u64 = 2;

/// Where the room locks lie: behind the end of any file, where there is nothing to read or write.
const LOCKS_AT: usize = 1 << 62;

fn lock_byte(lock: u16) -> usize {
    LOCKS_AT + usize::from(lock)
}

fn lock_bytes() -> Range<usize> {
    LOCKS_AT..LOCKS_AT + usize::from(ROOM_LOCKS)
}

/// Whether a process other than the server holds a room lock. Where the system cannot say, nobody does.
pub(crate) fn is_held(file: &File, lock: u16) -> bool {
    lock::is_locked(file, lock_byte(lock)).unwrap_or(false)
}

/// Why a room is not given, sealed or taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// There is no room for the value now.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// The value is too small for it to be worth while.
    #[error("a room has at least {ROOM_BYTES_MIN} bytes, and {value_bytes} were asked for: send such a value with SET")]
    Small {
        /// The length that was asked for.
        value_bytes: u64,
    },
    /// The asker does not hold the lock that it names, in this store's file.
    #[error(
        "no process holds room lock {lock} of this store's file, of which there are {ROOM_LOCKS}: lock it first, with \
         F_OFD_SETLK, in the file that this server keeps now"
    )]
    NotLocked {
        /// The lock that was named.
        lock: u16,
    },
    /// The lock stands for another room.
    #[error("room lock {lock} stands for another room still: take another")]
    LockInUse {
        /// The lock that was named.
        lock: u16,
    },
    /// There is no such room.
    #[error("there is no room {room}: it was given back, or never given in this life of the server; create another")]
    Unknown {
        /// The room that was named.
        room: u64,
    },
    /// The room was sealed.
    #[error("room {room} was sealed before: what is in it belongs to the store; create another")]
    Sealed {
        /// The room that was named.
        room: u64,
    },
    /// The room was given back.
    #[error("room {room} was given back with ABORT: create another")]
    Aborted {
        /// The room that was named.
        room: u64,
    },
}
