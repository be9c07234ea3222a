//! The shared object store: one mapped file, one writing server, any number of reading processes.
//!
//! [`MappedStore`] is the server's dictionary. A [`Reader`] in another process of the machine answers linearizable reads
//! from the same file without a system call. The layout, and why it is right, stands in `DESIGN/objstore.md`.
#![allow(clippy::inline_always, reason = "a read becomes one short function on purpose; `Reader::look` says why")]

mod alloc;
mod block;
mod checksum;
mod error;
mod file;
mod header;
mod index;
mod inspect;
mod layout;
mod lease_clock;
mod lock;
mod mapping;
mod memory;
mod notes;
mod notices;
mod pins;
mod reader;
mod recover;
mod rooms;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod stops;
mod words;
mod writer;

pub use error::OpenError;
pub use inspect::{Damage, Found, Stat, StoreFile, Verified};
pub use layout::{CLUSTER_BYTES_MAX, Options, STARS_MAX};
pub use memory::SHORT_BYTES;
pub use notices::Changes;
pub use reader::{AHEAD, Answer, Candidate, Listing, Reader, Reason, Ref};
pub use recover::Recovered;
pub use rooms::{Claim, ROOM_BYTES_MIN, ROOM_LOCKS, Room, RoomError};
pub use writer::{MappedStore, Pinned, Sealed};
