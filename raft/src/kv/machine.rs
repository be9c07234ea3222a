//! What is replicated: objects by key, and which requests were done. Pure.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use star_core::{
    ErrorCode, Key, RequestId, Version,
    message::{Condition, ResponseBody},
    store::Encoding,
};

use super::sessions::Sessions;

/// The most keys in one answer.
const LIST_KEYS_MAX: u32 = 1000;

/// One entry of the log: the writes that came in one turn of a server, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Vec<Write>);

impl Batch {
    /// Of all keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(Write::bytes).sum()
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) key: Key,
    pub(crate) change: Change,
    pub(crate) condition: Condition,
    pub(crate) request_id: RequestId,
}

impl Write {
    pub(crate) fn bytes(&self) -> u64 {
        let value = match &self.change {
            Change::Put { value, .. } => value.len(),
            Change::Delete => 0,
        };
        (self.key.len() + value) as u64
    }
}

/// What becomes of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Put { encoding: Encoding, value: Bytes },
    Delete,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Written(Version),
    Conflict(Version),
    NotFound,
    NoSpace,
    /// It was done with before, or its client is forgotten.
    Forgotten,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) value: Bytes,
    pub(crate) encoding: Encoding,
    pub(crate) version: Version,
}

/// The objects and the requests. Every server's is the same after the same entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    objects: BTreeMap<Key, Object>,
    /// Of all keys and values.
    bytes: u64,
    capacity_bytes: u64,
    sessions: Sessions,
    /// Writes that were decided, repeated ones not counted: above all versions.
    writes: u64,
}

impl Machine {
    /// An empty one, with room for so many bytes of keys and values.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, ..Self::default() }
    }

    /// Applies an entry; an outcome for each of its writes.
    pub(crate) fn apply(&mut self, batch: Batch) -> Vec<Outcome> {
        batch.0.into_iter().map(|write| self.write(write)).collect()
    }

    fn write(&mut self, write: Write) -> Outcome {
        let Write { key, change, condition, request_id } = write;
        if let Some(before) = self.sessions.outcome(&request_id) {
            return before;
        }
        self.writes += 1;
        let outcome = self.change(key, change, condition);
        // Whoever is refused for lack of room may send the same again when there is some.
        if outcome != Outcome::NoSpace {
            self.sessions.remember(&request_id, outcome, self.writes);
        }
        outcome
    }

    fn change(&mut self, key: Key, change: Change, condition: Condition) -> Outcome {
        let there = self.objects.get(&key);
        let present = there.map_or(Version(0), |object| object.version);
        if !condition.holds(present) {
            return Outcome::Conflict(present);
        }
        let size = |value: &Bytes| (key.len() + value.len()) as u64;
        let freed = there.map_or(0, |object| size(&object.value));
        let version = Version(self.writes);
        match change {
            Change::Delete if present == Version(0) => return Outcome::NotFound,
            Change::Delete => {
                self.objects.remove(&key);
                self.bytes -= freed;
            }
            Change::Put { encoding, value } => {
                let bytes = self.bytes - freed + size(&value);
                if bytes > self.capacity_bytes {
                    return Outcome::NoSpace;
                }
                self.bytes = bytes;
                self.objects.insert(key, Object { value, encoding, version });
            }
        }
        Outcome::Written(version)
    }

    /// How many objects there are, and the bytes of all keys and values.
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.objects.len() as u64, self.bytes)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// All objects in the order of their keys.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects.iter()
    }

    /// The keys that begin with `prefix` and sort after `after`.
    pub(crate) fn list(&self, prefix: &str, after: Option<&str>, limit: u32) -> ResponseBody {
        let limit = limit.clamp(1, LIST_KEYS_MAX) as usize;
        let start = Key::new(after.unwrap_or_default().max(prefix));
        let of_prefix = self.objects.range(start..).map(|(key, _)| key.as_str());
        let mut keys = of_prefix
            .skip_while(|key| after.is_some_and(|after| *key <= after))
            .take_while(|key| key.starts_with(prefix));
        let page = keys.by_ref().take(limit).map(Into::into).collect();
        ResponseBody::Keys { keys: page, more: keys.next().is_some() }
    }
}

impl From<Outcome> for ResponseBody {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Written(version) => Self::Written { version },
            Outcome::Conflict(version) => Self::Conflict { version },
            Outcome::NotFound => Self::NotFound,
            Outcome::NoSpace => Self::error(ErrorCode::NoSpace, "the store is full: delete something first"),
            Outcome::Forgotten => {
                Self::error(ErrorCode::Forgotten, "it was done with before, or its client was silent for too long")
            }
        }
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, write) in self.0.iter().enumerate() {
            write!(f, "{}{write}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_str();
        match &self.change {
            Change::Put { encoding, value } => write!(f, "put {key} {}", text(*encoding, value)),
            Change::Delete => write!(f, "delete {key}"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.encoding, &self.value))
    }
}

/// A value as the literal that it came from; what is no text is shown by its length.
pub(crate) fn text(encoding: Encoding, value: &[u8]) -> String {
    match (encoding, std::str::from_utf8(value)) {
        (Encoding::Json, Ok(text)) => text.to_owned(),
        (Encoding::Raw, Ok(text)) => serde_json::Value::from(text).to_string(),
        (_, Err(_)) => format!("({} bytes)", value.len()),
    }
}

#[cfg(test)]
mod tests {
    use star_core::ClientId;

    use super::*;

    fn put(key: &str, value: &str, request_id: RequestId) -> Write {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let change = Change::Put { encoding: Encoding::Raw, value };
        Write { key: Key::new(key), change, condition: Condition::Always, request_id }
    }

    fn counted(born: u64, number: u64, behind: u64) -> RequestId {
        RequestId::Counted { client: ClientId { born, draw: 1 }, number, behind }
    }

    #[test]
    fn a_write_that_comes_again_is_done_once_and_answered_the_same() {
        let mut machine = Machine::new(1000);
        let first = put("k", "one", counted(1, 0, 0));
        let outcomes = machine.apply(Batch(vec![first.clone(), put("k", "two", counted(2, 0, 0)), first]));
        assert_eq!(outcomes, [1, 2, 1].map(|version| Outcome::Written(Version(version))));
        assert_eq!(machine.get(&Key::new("k")).map(|object| object.value.as_ref()), Some(&b"two"[..]));
        // It has said that it will not send number 0 again, so that is forgotten, and never done.
        machine.apply(Batch(vec![put("k", "three", counted(1, 1, 0))]));
        assert_eq!(machine.apply(Batch(vec![put("k", "one", counted(1, 0, 0))])), [Outcome::Forgotten]);
    }

    #[test]
    fn conditions_room_and_deletions_are_decided_in_the_order_of_the_log() {
        let mut machine = Machine::new(20);
        let unnamed = || RequestId::Unnamed;
        let only_new = Write { condition: Condition::IfAbsent, ..put("k", "b", unnamed()) };
        let delete = Write { change: Change::Delete, ..put("k", "", unnamed()) };
        let batch =
            vec![put("k", "a", unnamed()), only_new, delete.clone(), delete, put("k", &"x".repeat(20), unnamed())];
        let written = |version| Outcome::Written(Version(version));
        let expected = [written(1), Outcome::Conflict(Version(1)), written(3), Outcome::NotFound, Outcome::NoSpace];
        assert_eq!(machine.apply(Batch(batch)), expected);
        assert_eq!((machine.bytes, machine.objects().count()), (0, 0));
    }

    #[test]
    fn lists_come_in_pages() {
        let mut machine = Machine::new(1000);
        machine.apply(Batch(["a", "ba", "bb", "bc", "c"].map(|key| put(key, "", RequestId::Unnamed)).into()));
        let page = |after, limit| match machine.list("b", after, limit) {
            ResponseBody::Keys { keys, more } => (keys.join(" "), more),
            other => panic!("{other:?}"),
        };
        assert_eq!(page(None, 2), ("ba bb".to_owned(), true));
        assert_eq!(page(Some("bb"), 2), ("bc".to_owned(), false));
    }
}
