//! The producer's side: a lock on the store's file, and then the room.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
};

use star_core::{Incarnation, message::RoomPlace};

use super::lock_bytes;
use crate::{
    error::OpenError,
    file::{self, failed},
    header::Header,
    layout::{Geometry, HEADER_BYTES, SYSTEM_PAGE_BYTES},
    lock,
    memory::Memory,
};

/// What a process has that is about to ask a server for room in its file: the file, open for writing, and one of its room
/// locks.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
    geometry: Geometry,
    /// The header, to see whether the server began another life meanwhile.
    header: Memory,
    incarnation: Incarnation,
    lock: u16,
}

impl Claim {
    /// Opens a server's file anew, which must be possible for writing, and takes the first room lock that is free.
    pub fn take(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open for writing", path))?;
        let geometry = file::inspect(&file, path)?;
        let header = Memory::read_only(&file, HEADER_BYTES).map_err(failed("map", path))?;
        if Header(&header).boot() != file::boot_id()? {
            return Err(OpenError::OldBoot { path: path.to_path_buf() });
        }
        let incarnation = Header(&header).incarnation();
        for (lock, at) in (0..).zip(lock_bytes()) {
            if lock::try_lock(&file, at).map_err(failed("lock a room of", path))? {
                return Ok(Self { file, path: path.to_path_buf(), geometry, header, incarnation, lock });
            }
        }
        let all_taken = io::Error::new(io::ErrorKind::WouldBlock, "producers hold all of them; try again later");
        Err(failed("lock a room of", path)(all_taken))
    }

    /// The number of the lock, for the server.
    pub fn lock(&self) -> u16 {
        self.lock
    }

    /// The cluster whose server keeps the file.
    pub fn cluster(&self) -> String {
        Header(&self.header).cluster().unwrap_or_default()
    }

    /// Maps the room that the server has given under this claim's lock, for a value of `value_bytes` bytes.
    pub fn enter(self, place: &RoomPlace, value_bytes: u64) -> Result<Room, OpenError> {
        let strange = || OpenError::Io {
            action: "find the room that the server named in",
            path: self.path.clone(),
            source: io::ErrorKind::InvalidData.into(),
        };
        let number = |number: u64| usize::try_from(number).ok();
        let (pages_at, pages_bytes) = number(place.pages_at).zip(number(place.pages_bytes)).ok_or_else(strange)?;
        let (value_at, value_bytes) = number(place.value_at).zip(number(value_bytes)).ok_or_else(strange)?;
        let pages_end = pages_at.checked_add(pages_bytes).filter(|end| *end <= self.geometry.area_end());
        let value_end = value_at.checked_add(value_bytes);
        let is_sound = pages_at >= self.geometry.area_at
            && pages_at.is_multiple_of(SYSTEM_PAGE_BYTES)
            && pages_bytes.is_multiple_of(SYSTEM_PAGE_BYTES)
            && value_at >= pages_at
            && value_end.zip(pages_end).is_some_and(|(value, pages)| value <= pages);
        if !is_sound {
            return Err(strange());
        }
        if !lock::try_lock_range(&self.file, pages_at..pages_at + pages_bytes).map_err(failed("lock", &self.path))? {
            return Err(strange());
        }
        // A server that was killed since, and has begun another life, has seen the lock on the pages, or has written its
        // new incarnation before: in that order `MappedStore::open` does it.
        if Header(&self.header).incarnation() != self.incarnation {
            return Err(strange());
        }
        let memory =
            Memory::writable_part(&self.file, pages_at, pages_bytes).map_err(failed("map a room of", &self.path))?;
        Ok(Room { memory, value_at: value_at - pages_at, value_bytes, _file: self.file })
    }
}

/// Room for a value in a server's file, to be written in place. The server uses it for nothing else until this is
/// dropped; it belongs to the object once it was sealed, and must not be written any more then.
///
/// It is mapped in this process alone: it must not be used in one that was forked from it.
pub struct Room {
    memory: Memory,
    /// Where the value begins in what is mapped.
    value_at: usize,
    value_bytes: usize,
    /// Holds the locks, as the mapping does.
    _file: File,
}

impl Deref for Room {
    type Target = [u8];

    #[allow(unsafe_code, reason = "a room's lock is what makes bytes in place sound")]
    fn deref(&self) -> &[u8] {
        // SAFETY: the server stores nothing to the value while the room's lock stands, which is as long as the mapping is
        // there, and this process has the room but once; who writes borrows it mutably.
        unsafe { self.memory.bytes(self.value_at, self.value_bytes) }
    }
}

impl DerefMut for Room {
    #[allow(unsafe_code, reason = "a room's lock is what makes bytes in place sound")]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; nobody looks at the room before it is sealed, and whoever seals it gives this up. A copy of the
        // object in front of it may go on over its first bytes, through another mapping, and throws them away.
        unsafe { self.memory.bytes_mut(self.value_at, self.value_bytes) }
    }
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("bytes", &self.value_bytes).finish_non_exhaustive()
    }
}
