//! What the nodes of a chain say to one another. Every message names its star and epoch; messages of older epochs are
//! ignored, those of newer ones are kept until this server has the view (see `takeover`).
//!
//! All messages may be lost or come twice: each is idempotent, and `repair` says again what may be missing.

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
pub use star_core::requests::Operation;
use star_core::{
    ids::{Epoch, RequestId, Seq, ServerId, StarId, Version},
    key::Key,
    message::{Condition, ResponseBody, Wire, from_postcard, to_postcard},
    store::Encoding,
};

/// A message between servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The star, which is a chain, that it is about.
    pub star: StarId,
    /// The sender's epoch in that star.
    pub epoch: Epoch,
    /// What it says.
    pub body: Body,
    /// Bytes of values for `Forward`, `Writes`, `Piece`, `ReadAnswer` and `Changes`; else empty.
    pub tail: Bytes,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// To the head: writes of the sender's clients. Their values follow one another in the tail.
    Forward {
        /// The sender's writes with lower numbers are finished.
        oldest: u64,
        /// The writes.
        writes: Vec<ForwardedWrite>,
    },
    /// Down the chain: writes with their places. Their values follow one another in the tail; of the last it may be only
    /// the beginning.
    Writes {
        /// The place of the first.
        first: Seq,
        /// The writes.
        entries: Vec<Entry>,
    },
    /// Down the chain: more bytes of a value.
    Piece {
        /// The place of the write.
        seq: Seq,
        /// Where the bytes belong.
        offset: u32,
    },
    /// Up the chain, or from the tail to all: everything up to here is at the tail.
    Ack {
        /// The last committed seq.
        committed: Seq,
    },
    /// To the tail: what is committed? Asked for all reads of dirty keys in a turn together (§2.3, version query).
    Ask {
        /// The asker's number for it.
        ask: u64,
    },
    /// The tail's answer: everything up to `committed` is; so each key's version is the one that it has there.
    Answer {
        /// The asker's number.
        ask: u64,
        /// The last committed seq.
        committed: Seq,
    },
    /// To the tail: a read (§2.2, `Reads::Tail`).
    Read {
        /// The asker's number for it.
        ask: u64,
        /// The key.
        key: Key,
    },
    /// The tail's answer to a read; the value is in the tail of the message.
    ReadAnswer {
        /// The asker's number.
        ask: u64,
        /// What the client is to be told.
        body: ResponseBody,
    },
    /// Up the chain: what the sender has. Said in a new view, on a new link, and when something is missing.
    Position(Position),
    /// Down the chain: what is the receiver's position?
    AskPosition,
    /// Down the chain in a new view: the receiver's pending writes after `from` are not of the chain's order. The right
    /// ones follow as `Writes`.
    Install {
        /// Up to here the two have the same.
        from: Seq,
        /// The last seq that the sender has now.
        base: Seq,
    },
    /// From a server that does not hold the star yet, or is behind: what was done since?
    CatchUp {
        /// The asker's number for it.
        ask: u64,
        /// What the asker has.
        since: Since,
    },
    /// The answer: a part of what the asker lacks. The values follow one another in the message's tail.
    Changes {
        /// The asker's number.
        ask: u64,
        /// The part.
        changes: Changes,
    },
    /// The sender does not remember what was done since: the asker must begin with nothing.
    TooOld {
        /// The asker's number.
        ask: u64,
    },
}

/// A write on its way to the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedWrite {
    /// The origin's number for it: 1 higher than that of its write before to this star.
    pub number: u64,
    /// What the client calls it.
    pub request_id: RequestId,
    /// Its key.
    pub key: Key,
    /// What it does.
    pub operation: Operation,
    /// When it is to be done: test-and-set (§4.1.1).
    pub condition: Condition,
    /// How many bytes of value.
    pub value_bytes: u32,
}

/// Names a write between servers: no other write of the star, of whatever life of whatever server, has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId {
    /// The server that took it from the client.
    pub origin: ServerId,
    /// The origin's number for it.
    pub number: u64,
}

/// A write with its place in the order, as the head decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The epoch in which the head decided. An epoch has one head, and a head gives a seq once: two entries of one seq
    /// and one epoch are the same, and so is all before them.
    pub epoch: Epoch,
    /// The write.
    pub write: WriteId,
    /// What the client calls it.
    pub request_id: RequestId,
    /// Its key.
    pub key: Key,
    /// What it does.
    pub operation: Operation,
    /// What comes of it.
    pub outcome: Outcome,
    /// True if an earlier write had the same request id: `outcome` is that one's, and this one changes nothing.
    pub repeat: bool,
    /// How many bytes of value go with it; 0 where it changes nothing.
    pub value_bytes: u32,
}

impl Entry {
    /// The version that the write makes, if it changes anything.
    pub fn effect(&self) -> Option<Version> {
        match self.outcome {
            Outcome::Written(version) if !self.repeat => Some(version),
            _ => None,
        }
    }

    /// Whether its result is remembered for its request id.
    pub fn is_remembered(&self) -> bool {
        !self.repeat && self.outcome != Outcome::NoSpace
    }
}

/// What comes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Done: the key has this version now (a deleted key had it last).
    Written(Version),
    /// Not done: the key has this version (0: no object), which the condition does not want.
    Conflict(Version),
    /// A delete of a key without an object: nothing to do.
    NotFound,
    /// Not done: the head's store is full. Not remembered, so that a later try may succeed.
    NoSpace,
}

/// Where a node is in its chain's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Whether it has taken over the order of this epoch.
    pub installed: bool,
    /// What it has applied.
    pub committed: Seq,
    /// The epochs of the writes that it has after that, each with how many follow one another.
    pub pending: Vec<(Epoch, u64)>,
}

impl Position {
    /// The last seq that the node has.
    pub fn ready(&self) -> Seq {
        Seq(self.pending.iter().fold(self.committed.0, |ready, (_, count)| ready.saturating_add(*count)))
    }

    /// The epochs of the writes after `seq`, which is not before `committed`, in order.
    pub fn epochs_after(&self, seq: Seq) -> impl Iterator<Item = Epoch> + '_ {
        let skip = usize::try_from(seq.0.saturating_sub(self.committed.0)).unwrap_or(usize::MAX);
        let repeat =
            |(epoch, count): &(Epoch, u64)| std::iter::repeat_n(*epoch, usize::try_from(*count).unwrap_or(usize::MAX));
        self.pending.iter().flat_map(repeat).skip(skip)
    }
}

/// How far a server that catches up has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Since {
    /// It has the keys up to `after`, as they were at `begun` or later; `None`: it has nothing.
    Objects {
        /// What the first sender had applied when it began.
        begun: Option<Seq>,
        /// The last key that it has.
        after: Option<CompactString>,
    },
    /// It has every key as it was at `after`, or newer. Of writes up to `objects_after` it lacks only the requests.
    Writes {
        /// The last write that it knows of.
        after: Seq,
        /// The objects of later writes are wanted, too.
        objects_after: Seq,
    },
}

/// A part of what a server lacks that catches up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// What the asker has when it has applied this.
    pub next: Since,
    /// What the sender has applied; nothing in this part is newer.
    pub committed: Seq,
    /// The sender remembers all requests after this seq.
    pub forgotten: Seq,
    /// No deleted key of the star ever had a higher version.
    pub version_floor: Version,
    /// The keys that changed, as they are now.
    pub objects: Vec<Changed>,
    /// Requests that were done, in seq order.
    pub done: Vec<DoneRequest>,
}

/// A key as it is at the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The key.
    pub key: Key,
    /// Its object; `None` if it has none.
    pub object: Option<ChangedObject>,
}

/// An object whose bytes are in the message's tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedObject {
    /// Its version.
    pub version: Version,
    /// How its bytes came in.
    pub encoding: Encoding,
    /// How many bytes.
    pub value_bytes: u32,
}

/// A request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneRequest {
    /// Its place in the order.
    pub seq: Seq,
    /// What the client called it.
    pub request_id: RequestId,
    /// Its key.
    pub key: Key,
    /// What came of it.
    pub outcome: Outcome,
}

impl Wire for Message {
    fn encode_header(&self, out: &mut Vec<u8>) {
        to_postcard(&(self.star, self.epoch, &self.body), out);
    }

    fn tail(&self) -> &Bytes {
        &self.tail
    }

    fn decode(header: &[u8], tail: Bytes) -> Result<Self, String> {
        let (star, epoch, body) = from_postcard(header)?;
        Ok(Self { star, epoch, body, tail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_its_runs() {
        let pending = vec![(Epoch(3), 2), (Epoch(5), 1)];
        let position = Position { installed: false, committed: Seq(10), pending };
        assert_eq!(position.ready(), Seq(13));
        assert_eq!(position.epochs_after(Seq(10)).collect::<Vec<_>>(), [Epoch(3), Epoch(3), Epoch(5)]);
        assert_eq!(position.epochs_after(Seq(12)).collect::<Vec<_>>(), [Epoch(5)]);
        assert_eq!(position.epochs_after(Seq(14)).count(), 0);
    }
}
