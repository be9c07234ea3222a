//! What a server answers.

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{Capacity, Notice, Position, RoomPlace, Wire, from_postcard, to_postcard};
use crate::{
    error::{ErrorCode, Failure},
    ids::Version,
    store::Encoding,
};

/// A server's answer: what came of it, and the value's bytes where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What came of it.
    pub body: ResponseBody,
    /// The object's bytes for `Value`; the objects' bytes one after another for `Many`; else empty.
    pub value: Bytes,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseBody {
    /// The write is committed: every serving member has it.
    Written {
        /// The version that the write made.
        version: Version,
    },
    /// The object that was asked for.
    Value {
        /// Its version.
        version: Version,
        /// How its bytes came in.
        encoding: Encoding,
    },
    /// The key has no object.
    NotFound,
    /// The write's condition did not hold; nothing was changed.
    Conflict {
        /// The version that the key has; 0 if it has no object.
        version: Version,
    },
    /// A page of keys.
    Keys {
        /// The keys, in order.
        keys: Vec<CompactString>,
        /// Whether there may be more after the last.
        more: bool,
    },
    /// The answers to the parts of a request with many parts, in order.
    Many(Vec<ManyEntry>),
    /// A server's status, as JSON text.
    Status(String),
    /// A refusal.
    Error(Failure),
    /// The room that was asked for; see [`super::Local::Create`].
    Room(RoomPlace),
    /// It is done, and there is nothing to say of it.
    Done,
    /// How full the server's store is.
    Capacity(Capacity),
    /// What changed in the server's store, in order.
    Notices {
        /// The changes; none if nothing changed in time.
        notices: Vec<Notice>,
        /// Whether there were changes before these that the server does not remember any more.
        missed: bool,
        /// Where to go on.
        next: Position,
    },
}

/// The answer to one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManyEntry {
    /// What came of it; never [`ResponseBody::Many`].
    #[serde(deserialize_with = "without_parts")]
    pub body: ResponseBody,
    /// The length of its bytes in the answer's tail.
    pub value_bytes: u32,
}

/// Reads a part's answer. Refuses parts of parts, so that no bytes from outside can nest an answer deeply.
fn without_parts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ResponseBody, D::Error> {
    /// The variants of [`ResponseBody`], in its order.
    #[derive(Deserialize)]
    enum Part {
        Written { version: Version },
        Value { version: Version, encoding: Encoding },
        NotFound,
        Conflict { version: Version },
        Keys { keys: Vec<CompactString>, more: bool },
        Many,
        Status(String),
        Error(Failure),
        Room,
        Done,
        Capacity,
        Notices,
    }
    Ok(match Part::deserialize(deserializer)? {
        Part::Written { version } => ResponseBody::Written { version },
        Part::Value { version, encoding } => ResponseBody::Value { version, encoding },
        Part::NotFound => ResponseBody::NotFound,
        Part::Conflict { version } => ResponseBody::Conflict { version },
        Part::Keys { keys, more } => ResponseBody::Keys { keys, more },
        Part::Many => return Err(D::Error::custom("a part of an answer has parts of its own")),
        Part::Room | Part::Done | Part::Capacity | Part::Notices => {
            return Err(D::Error::custom("a part of an answer that answers no part of a request"));
        }
        Part::Status(text) => ResponseBody::Status(text),
        Part::Error(failure) => ResponseBody::Error(failure),
    })
}

impl ResponseBody {
    /// A refusal of this kind.
    pub fn error(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Error(Failure::new(code, message))
    }
}

impl From<ResponseBody> for Response {
    fn from(body: ResponseBody) -> Self {
        Self { body, value: Bytes::new() }
    }
}

impl Wire for Response {
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
