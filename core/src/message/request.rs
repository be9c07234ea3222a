//! What a client can ask of any server.

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Wire, from_postcard, to_postcard};
use crate::{
    ids::{RequestId, StarId, Version},
    key::Key,
    store::Encoding,
};

/// A client's request: what to do, and the value's bytes where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub body: RequestBody,
    /// The value of a `Set`; the values of a `SetMany` one after another; else empty.
    pub value: Bytes,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// Read the latest object under a key.
    Get {
        /// The key.
        key: Key,
    },
    /// Make the value the key's object, if the condition holds.
    Set {
        /// The key.
        key: Key,
        /// How the value came in.
        encoding: Encoding,
        /// When to do it.
        condition: Condition,
        /// Names the write, so that it takes effect once.
        request_id: RequestId,
    },
    /// Remove the key's object, if the condition holds.
    Delete {
        /// The key.
        key: Key,
        /// When to do it.
        condition: Condition,
        /// Names the write, so that it takes effect once.
        request_id: RequestId,
    },
    /// The keys that begin with `prefix` and sort after `after`, in order.
    List {
        /// What the keys begin with; empty for all.
        prefix: CompactString,
        /// The last key of the page before.
        after: Option<CompactString>,
        /// The most keys to return.
        limit: u32,
        /// Only keys of these stars; of all if it is empty. A server that does not serve every star can be asked for
        /// those that it serves.
        stars: Vec<StarId>,
    },
    /// Read several keys; each by itself is linearizable, together they are no snapshot.
    GetMany {
        /// The keys.
        keys: Vec<Key>,
    },
    /// Set several keys; each by itself, not as a transaction.
    SetMany {
        /// The keys with the length of each value.
        entries: Vec<SetEntry>,
        /// Names the writes: entry `i` has the id [`RequestId::part`]`(i)`.
        request_id: RequestId,
    },
    /// How this server sees itself and the cluster.
    Status,
}

/// One write of a `SetMany`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEntry {
    /// The key.
    pub key: Key,
    /// How the value came in.
    pub encoding: Encoding,
    /// The value's length in the request's tail.
    pub value_bytes: u32,
}

/// When a write is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// Only if the key has no object.
    IfAbsent,
    /// Only if the key's object has this version; version 0 stands for "no object".
    IfVersion(Version),
}

impl Condition {
    /// Whether the condition holds for a key whose object has this version (0: no object).
    pub fn holds(self, version: Version) -> bool {
        match self {
            Self::Always => true,
            Self::IfAbsent => version == Version(0),
            Self::IfVersion(wanted) => version == wanted,
        }
    }
}

impl From<RequestBody> for Request {
    fn from(body: RequestBody) -> Self {
        Self { body, value: Bytes::new() }
    }
}

impl Wire for Request {
    fn encode_header(&self, out: &mut Vec<u8>) {
        to_postcard(&self.body, out);
    }

    fn tail(&self) -> &Bytes {
        &self.value
    }

    fn decode(header: &[u8], tail: Bytes) -> Result<Self, String> {
        Ok(Self { body: from_postcard(header)?, value: tail })
    }
}
