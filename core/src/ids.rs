//! Identities: small, copyable, and never mixed up with one another.

use std::fmt;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number! {
    /// A server of the cluster, for the whole life of the cluster; its name is in the cluster's state.
    ServerId(u16)
}
number! {
    /// A replication group. A key belongs to star `hash(key) % stars`.
    StarId(u16)
}
number! {
    /// The number of a view; grows with every change of it. 0 is before the first view.
    Epoch(u64)
}
number! {
    /// A write's place in its star's order: 1, 2, 3 … 0 is before the first write.
    Seq(u64)
}
number! {
    /// A key's version: strictly increasing per key, given by the leader. 0 stands for "no such object".
    Version(u64)
}
number! {
    /// One life of a server's memory: a server that starts without its memory is a new incarnation.
    Incarnation(u64)
}

/// Names a client's write, so that sending it again does not do it again.
///
/// The typed client uses a random client number and a counter; any other client may use any short string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RequestId {
    /// The typed client's form.
    Counted {
        /// The client, drawn at random when it was made.
        client: u64,
        /// The client's own count of its writes.
        number: u64,
    },
    /// Any string without a NUL character, of at most [`RequestId::TEXT_BYTES_MAX`] bytes.
    Text(CompactString),
}

impl RequestId {
    /// The longest text that is taken as a request id.
    pub const TEXT_BYTES_MAX: usize = 128;

    /// The id of part `index` of a request with many parts.
    #[must_use]
    pub fn part(&self, index: u64) -> Self {
        match self {
            Self::Counted { client, number } => Self::Counted { client: *client, number: number.wrapping_add(index) },
            Self::Text(text) => Self::Text(compact_str::format_compact!("{text}\0{index}")),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counted { client, number } => write!(f, "{client:016x}-{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}
