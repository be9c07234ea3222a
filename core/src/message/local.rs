//! What a server is asked beside reads and writes: room for values that a process of its machine writes in place, notices
//! of changes, and how full its store is. The protocol knows nothing of it.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Condition, Wire, from_postcard, to_postcard};
use crate::{
    ids::{RequestId, Version},
    key::Key,
    store::Encoding,
};

/// A question to one server about its own store. Answered by a [`super::Response`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Local {
    /// Room for a value, which the asker writes there through a mapping of its own. Answered by
    /// [`super::ResponseBody::Room`].
    Create {
        /// The key that the value is for.
        key: Key,
        /// How the value comes in.
        encoding: Encoding,
        /// The value's length.
        value_bytes: u64,
        /// Which of the store's room locks the asker holds; while it does, the room is used for nothing else.
        lock: u16,
    },
    /// Makes what was written into a room the key's object, as a `Set` of it would.
    Seal {
        /// The room.
        room: u64,
        /// When to do it.
        condition: Condition,
        /// Names the write, so that it takes effect once.
        request_id: RequestId,
    },
    /// Gives a room back that was not sealed.
    Abort {
        /// The room.
        room: u64,
    },
    /// How full the server's store is.
    Capacity,
    /// Notices of what changed in the server's store. Waits for some if there are none.
    Watch {
        /// What the keys begin with; empty for all.
        prefix: CompactString,
        /// Where the last notices ended; `None` for what changes from now on.
        after: Option<Position>,
        /// The most notices in the answer; at least 1.
        limit: u32,
        /// After how many milliseconds without notices it is answered all the same.
        wait_ms: u32,
    },
}

/// Where a room lies in the file of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomPlace {
    /// Names the room in the life of its server.
    pub room: u64,
    /// Where the value's first byte lies, from the start of the file.
    pub value_at: u64,
    /// The pages that the room has to itself: what is to be locked and mapped.
    pub pages_at: u64,
    /// Their length in bytes.
    pub pages_bytes: u64,
}

/// How full a server's store is, in bytes with its own overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Objects that readers can see.
    pub objects: u64,
    /// Bytes in use: objects, values under way, rooms, and what readers hold of objects that are no more.
    pub used_bytes: u64,
    /// Bytes in all.
    pub capacity_bytes: u64,
    /// The largest free piece. A store moves objects to make larger ones.
    pub largest_free_bytes: u64,
    /// Bytes in rooms of producers, sealed ones that their producer still maps among them.
    pub room_bytes: u64,
    /// Bytes of replaced and removed objects that readers hold.
    pub pinned_bytes: u64,
}

/// A change of the objects of one server's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The key.
    pub key: CompactString,
    /// The object's version: of the new one, or of the one that was removed.
    pub version: Version,
    /// The length of the new object; `None` if the key has none any more.
    pub value_bytes: Option<u64>,
}

/// A point in the changes of a store: its server's life, and how many there were in it. As text the two with a `-` between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The server's incarnation.
    pub life: u64,
    /// Changes in that life before this point.
    pub number: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.life, self.number)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (life, number) = text.split_once('-').ok_or(())?;
        Ok(Self { life: life.parse().map_err(|_| ())?, number: number.parse().map_err(|_| ())? })
    }
}

impl Wire for Local {
    fn encode_header(&self, out: &mut Vec<u8>) {
        to_postcard(self, out);
    }

    fn tail(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        &NONE
    }

    fn decode(header: &[u8], _: Bytes) -> Result<Self, String> {
        from_postcard(header)
    }
}
