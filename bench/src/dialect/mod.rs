//! What a load says to the system that it measures, and how it understands the answers.

mod etcd;
mod nats;
mod redis;
mod star;

use bytes::{Bytes, BytesMut};
use star_core::{Key, RequestId};

/// A system that can be measured, with what its clients have to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum System {
    /// Star.
    Star,
    /// CRAQ on Star's core, which speaks Star's wire format.
    Craq,
    /// The key-value store on Raft, which speaks Star's wire format.
    Raft,
    /// Redis: a write is a `SET` and a `WAIT` for its replicas, a read a `GET` at the server that takes the writes.
    Redis {
        /// How many replicas must have a write before it counts as done.
        replicas: usize,
    },
    /// etcd, through its JSON gateway.
    Etcd,
    /// A key-value bucket of NATS `JetStream`: a write is published and acknowledged, a read asks for the last message.
    Nats {
        /// The name of the bucket.
        bucket: String,
    },
}

impl System {
    /// Its name as an option.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Star => "star",
            Self::Craq => "craq",
            Self::Raft => "raft",
            Self::Etcd => "etcd",
            Self::Redis { .. } => "redis",
            Self::Nats { .. } => "nats",
        }
    }

    pub(crate) fn dialect(&self) -> Box<dyn Dialect> {
        match self {
            Self::Star | Self::Craq | Self::Raft => Box::new(star::Star::new()),
            Self::Etcd => Box::new(etcd::Etcd::default()),
            Self::Redis { replicas } => Box::new(redis::Redis::new(*replicas)),
            Self::Nats { bucket } => Box::new(nats::Nats::new(bucket)),
        }
    }
}

/// How a connection speaks to one system. Answers come in any order; each names the request by the id it was queued with.
pub(crate) trait Dialect {
    /// What is said first on a new connection.
    fn greeting(&self, _out: &mut Vec<u8>) {}

    /// Appends a read to what is sent next.
    fn get(&mut self, id: u64, key: &Key, out: &mut Vec<u8>);

    /// Appends a write to what is sent next.
    fn set(&mut self, id: u64, key: &Key, value: &[u8], request_id: RequestId, out: &mut Vec<u8>);

    /// Takes the next whole answer off the front of what has come in; `None` if there is none yet. May append to what is
    /// sent next.
    fn answer(&mut self, buffer: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Answer>, String>;
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What the request was queued with.
    pub(crate) id: u64,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// The object's bytes, if it was found.
    pub(crate) value: Bytes,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Written, with the version that was made where the system has versions.
    Written(Option<u64>),
    /// Found, with its version where the system has versions.
    Found(Option<u64>),
    /// There is no such object.
    NotFound,
    /// Refused.
    Refused {
        /// The system's name for the reason.
        code: String,
        /// Whether the request may have been done all the same.
        unknown: bool,
    },
}

/// Takes a line without its end (`\r\n`) off the front; `None` if there is no whole line yet.
fn line(buffer: &mut BytesMut) -> Option<BytesMut> {
    let end = find(buffer, b"\r\n")?;
    let line = buffer.split_to(end);
    let _ = buffer.split_to(2);
    Some(line)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
