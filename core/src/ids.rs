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

impl Incarnation {
    /// A life after this one, where the date names none. Protocols may give 2^20 numbers for each millisecond between the
    /// names of two lives; a day of them is more than a life can use up.
    #[must_use]
    pub fn after(self) -> Self {
        Self(self.0 + 24 * 60 * 60 * 1000)
    }
}

/// A typed client, for as long as the process that drew it lives.
///
/// Later ones are greater, as far as dates go. A star that has to forget a client refuses from then on every client that
/// it does not know and that is not greater: so it never takes an old client's request for a new client's first one.
/// Nothing rests on the date but how often a client is refused without need and has to draw another id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId {
    /// When it was drawn, in microseconds since 1970; from 1 to [`ClientId::BORN_MAX`].
    pub born: u64,
    /// Tells apart those that were drawn at the same time.
    pub draw: u32,
}

impl ClientId {
    /// The latest date that is taken from a client.
    pub const BORN_MAX: u64 = 1 << 62;
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:08x}", self.born, self.draw)
    }
}

/// Names a client's write, so that sending it again does not do it again.
///
/// The typed client counts its writes; any other client may use any short string, or none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RequestId {
    /// The typed client's form.
    Counted {
        /// The client.
        client: ClientId,
        /// The client's own count of its writes.
        number: u64,
        /// How far back the lowest number is that the client may still send again: results of lower ones may be
        /// forgotten, and they are never done again. Less than [`RequestId::WINDOW`]. It says nothing about which write
        /// this is, and may be another when the write is sent again.
        behind: u64,
    },
    /// Any string without a NUL character, of at most [`RequestId::TEXT_BYTES_MAX`] bytes.
    Text(CompactString),
    /// A write that its client sends only once.
    Unnamed,
}

impl RequestId {
    /// The longest text that is taken as a request id.
    pub const TEXT_BYTES_MAX: usize = 128;

    /// How many numbers a client may have between the lowest that it may send again and its latest, both included.
    pub const WINDOW: u64 = 8192;

    /// The id of part `index` of a request with many parts.
    #[must_use]
    pub fn part(&self, index: u64) -> Self {
        match self {
            Self::Counted { client, number, behind } => Self::Counted {
                client: *client,
                number: number.saturating_add(index),
                behind: behind.saturating_add(index),
            },
            Self::Text(text) => Self::Text(compact_str::format_compact!("{text}\0{index}")),
            Self::Unnamed => Self::Unnamed,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counted { client, number, .. } => write!(f, "{client}-{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Unnamed => f.write_str("(unnamed)"),
        }
    }
}
