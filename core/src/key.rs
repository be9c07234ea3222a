//! A key with its hash, computed once where the key enters the process.

use std::{cmp::Ordering, fmt, hash};

use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::StarId;

/// A key whose text is somebody else's, with its hash: for whoever only looks it up.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    hash: u64,
    text: &'a str,
}

impl<'a> KeyRef<'a> {
    /// The key of this text.
    #[inline]
    pub fn new(text: &'a str) -> Self {
        Self { hash: xxh3_64(text.as_bytes()), text }
    }

    /// See [`Key::hash`].
    #[inline]
    pub fn hash(self) -> u64 {
        self.hash
    }

    /// The key's text.
    #[inline]
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// The star that this key belongs to, of `stars` stars.
    #[inline]
    pub fn star(self, stars: u16) -> StarId {
        StarId((self.hash % u64::from(stars)) as u16)
    }

    /// The same with a text of its own.
    pub fn to_key(self) -> Key {
        Key { hash: self.hash, text: self.text.into() }
    }
}

impl<'a> From<&'a Key> for KeyRef<'a> {
    #[inline]
    fn from(key: &'a Key) -> Self {
        Self { hash: key.hash, text: &key.text }
    }
}

/// A UTF-8 key and its XXH3 hash. Short keys (24 bytes and less) live without a heap allocation.
#[derive(Clone)]
pub struct Key {
    hash: u64,
    text: CompactString,
}

impl Key {
    /// The key of this text.
    pub fn new(text: impl Into<CompactString>) -> Self {
        let text = text.into();
        Self { hash: xxh3_64(text.as_bytes()), text }
    }

    /// XXH3 (64 bits, seed 0) of the key's bytes: the same in memory, on the wire and in files.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key's length in bytes.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// True for the empty key, which no server takes.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The star that this key belongs to, of `stars` stars.
    pub fn star(&self, stars: u16) -> StarId {
        StarId((self.hash % u64::from(stars)) as u16)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}
impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl hash::Hash for Key {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CompactString::deserialize(deserializer).map(Self::new)
    }
}
