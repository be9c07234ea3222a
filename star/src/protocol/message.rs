//! What the servers of a star say to one another. Every message names its star and epoch; messages of older epochs are
//! ignored, those of newer ones are kept until this server has the view (see `takeover`).
//!
//! All messages may be lost or come twice: each is idempotent, and `repair` says again what may be missing.

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
pub use star_core::requests::Operation;
use star_core::{
    ids::{ClientId, Epoch, RequestId, Seq, ServerId, StarId, Version},
    key::Key,
    message::{Condition, Wire, from_postcard, to_postcard},
    store::Encoding,
};

/// A message between servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The star it is about.
    pub star: StarId,
    /// The sender's epoch in that star.
    pub epoch: Epoch,
    /// What it says.
    pub body: Body,
    /// Bytes of a value for `Write` and `Piece`; else empty.
    pub tail: Bytes,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A write and the first bytes of its value (all of them if the value is no longer than a piece).
    Write(WriteHead),
    /// More bytes of a write's value.
    Piece {
        /// The write.
        write: WriteId,
        /// Where the bytes belong.
        offset: u32,
        /// See [`WriteHead::pass_on`].
        pass_on: PassOn,
    },
    /// The leader's stamps, one after another from `first` on.
    Stamps {
        /// The place of the first.
        first: Seq,
        /// The stamps.
        stamps: Vec<Stamp>,
    },
    /// The sender holds every stamp and value up to `ready`.
    Ack {
        /// The highest seq without a gap before it.
        ready: Seq,
        /// Whether the sender wants acks at once: reads wait there for what is to be committed.
        hurry: bool,
    },
    /// Asks the leader for values that the sender lacks.
    Fetch {
        /// The writes.
        writes: Vec<WriteId>,
    },
    /// Asks the leader which write to a key is the latest (`dirty_reads = "leader"`).
    Read {
        /// The asker's number for it.
        read: u64,
        /// The key.
        key: Key,
    },
    /// The leader's answer: everything up to `seq` is committed, and the key's latest write is among it.
    ReadAnswer {
        /// The asker's number.
        read: u64,
        /// A committed seq.
        seq: Seq,
    },
    /// To the leader of a new view: what the sender holds from the view before.
    Report {
        /// See [`Body::Ack`].
        ready: Seq,
        /// What the sender knows to be committed.
        committed: Seq,
    },
    /// From the leader of a new view: what the order is from now on.
    Install {
        /// What the leader knows to be committed.
        from: Seq,
        /// The stamps after `from`; the last is at the view's base.
        stamps: Vec<Stamp>,
    },
    /// To an origin: the sender has held these writes for long without a stamp. Are they still under way?
    AskUnderWay {
        /// The writes.
        writes: Vec<WriteId>,
    },
    /// The origin's answer: these are not, so the sender may drop them.
    Finished {
        /// The writes.
        writes: Vec<WriteId>,
    },
    /// From a server that does not hold the star yet, or is behind: what was done since?
    CatchUp {
        /// The asker's number for it.
        ask: u64,
        /// What the asker has.
        since: Since,
        /// While it has not come through all objects: what it holds of the next part from an earlier time, in order.
        /// Objects that are still the same are not sent again.
        kept: Vec<Kept>,
    },
    /// The answer: a part of what the asker lacks. The values follow one another in the message's tail.
    Changes {
        /// The asker's number.
        ask: u64,
        /// The part.
        changes: Changes,
    },
    /// The answer where it is forgotten which objects were changed since then.
    TooOld {
        /// The asker's number.
        ask: u64,
    },
    /// Nothing has moved here for a while, or the link is new: tell me what I may have missed.
    Hello {
        /// Whether the sender has installed this epoch.
        installed: bool,
        /// See [`Body::Ack`].
        ready: Seq,
    },
    /// To all members at once, and passed on by one of them: the copy that takes two links should come later than the other.
    Sounding {
        /// Who sounds its links.
        origin: ServerId,
        /// Its number for it.
        number: u64,
    },
    /// Values from these members come late over the links to the sender: let them go around.
    SlowLinks {
        /// The other ends of the links.
        from: Vec<ServerId>,
    },
}

/// A write as it travels: everything but the value's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteHead {
    /// Its identity between servers.
    pub id: WriteId,
    /// What the client called it.
    pub request_id: RequestId,
    /// The key.
    pub key: Key,
    /// What to do.
    pub operation: Operation,
    /// When to do it.
    pub condition: Condition,
    /// The value's length; 0 for a delete.
    pub value_bytes: u32,
    /// How many numbers before this write's the origin's oldest unfinished write of this star is: all that are older
    /// are finished, so a late copy of one is dropped.
    pub behind: u64,
    /// To whom the receiver passes it on.
    pub pass_on: PassOn,
}

/// To whom a server passes on what it gets of a write. The first two stand on the wire as the numbers 0 and 1, which is what
/// servers understand that know of no slow links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PassOn {
    /// To nobody.
    No,
    /// To the next on the write's first ring, which does the same, until the next would be the origin.
    Chain,
    /// The same along another of its rings: the first has a slow link in it.
    OtherChain(u8),
    /// To this member alone: the link from the origin to it is slow.
    To(ServerId),
}

impl PassOn {
    /// The number of the ring, if it goes along one.
    pub(crate) fn ring(self) -> Option<u8> {
        match self {
            Self::Chain => Some(0),
            Self::OtherChain(ring) => Some(ring),
            Self::No | Self::To(_) => None,
        }
    }
}

/// A write's identity between servers: its origin, and the origin's number for it, which no later life of the origin
/// uses again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId {
    /// The server that took it from the client.
    pub origin: ServerId,
    /// The origin's number for it.
    pub number: u64,
}

/// The leader's decision about a write. Its seq is its place in the message that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The write.
    pub write: WriteId,
    /// What comes of it.
    pub outcome: Outcome,
    /// True if an earlier write had the same request id: `outcome` is that one's, and this one changes nothing.
    pub repeat: bool,
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
    /// Not done: the leader's store is full. Not remembered, so that a later try may succeed.
    NoSpace,
    /// Not done now, and nobody knows whether it was before: the request is below what its client may send again, or its
    /// client is forgotten. Not remembered.
    Forgotten,
}

impl Outcome {
    /// Whether the write changes nothing and is not remembered: then nobody needs it for its stamp.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::NoSpace | Self::Forgotten)
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
    /// The sender knows all keys that were changed after this seq.
    pub forgotten: Seq,
    /// No deleted key of the star ever had a higher version.
    pub version_floor: Version,
    /// The keys that changed, as they are now.
    pub objects: Vec<Changed>,
    /// Results of requests, in the order of the last seq that each is about.
    pub remembered: Vec<Remembered>,
    /// Which clients the sender has forgotten.
    pub evicted: Evicted,
}

/// A key as it is at the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Where it was changed last; 0 if the sender does not say.
    pub seq: Seq,
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
    /// How many bytes; 0 if it is kept.
    pub value_bytes: u32,
    /// The asker holds the same object: its bytes are not sent.
    pub is_kept: bool,
}

/// An object that a server which catches up holds from an earlier time, and that may be out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The key's hash.
    pub key_hash: u64,
    /// The object's version.
    pub version: Version,
    /// See [`star_core::store::Object::digest`].
    pub digest: u64,
}

/// Results of requests, as they are committed at the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remembered {
    /// All results of a typed client, or of an origin.
    Client(ClientWindow),
    /// The result of a request with a text.
    Text(DoneText),
}

/// The results of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientWindow {
    /// The client.
    pub client: ClientId,
    /// The lowest number that the client may still send again.
    pub lowest: u64,
    /// The last write of the client.
    pub last: Seq,
    /// The results of `lowest` and later numbers, in the order of the numbers.
    pub results: Vec<DoneNumber>,
}

/// The result of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneNumber {
    /// The client's number for it.
    pub number: u64,
    /// Its place in the order.
    pub seq: Seq,
    /// What came of it.
    pub outcome: Outcome,
}

/// The result of a request that is named by a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneText {
    /// Its place in the order.
    pub seq: Seq,
    /// What the client called it.
    pub request_id: CompactString,
    /// What came of it.
    pub outcome: Outcome,
}

/// Which typed clients were forgotten, because there were too many results: those that had been silent longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Nobody younger was forgotten: a client that is unknown, and not younger, may have been.
    pub youngest: ClientId,
    /// All typed clients that have written after this seq, and no others, are remembered.
    pub last: Seq,
}

impl Evicted {
    /// Both together.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { youngest: self.youngest.max(other.youngest), last: self.last.max(other.last) }
    }
}

impl Stamp {
    /// The version that the write makes, if it changes anything.
    pub fn effect(&self) -> Option<Version> {
        match self.outcome {
            Outcome::Written(version) if !self.repeat => Some(version),
            _ => None,
        }
    }

    /// Whether the write's result is remembered under its request id.
    pub fn is_remembered(&self) -> bool {
        !self.repeat && !self.outcome.is_refusal()
    }
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
