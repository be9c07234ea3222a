//! The form of an operation in a file: one JSON object on one line.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use star_core::ids::Version;

/// One operation as clients write it down.
///
/// `{"client":0,"op":"w","key":"k","value":"v","version":3,"call":100,"ret":250,"ok":true}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// The client. One client may have several operations under way.
    pub client: u32,
    /// What was asked for.
    pub op: Op,
    /// The key.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    /// What was written, or what a read found. A digest of it does as well, if all use the same.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Cow<'a, str>>,
    /// The version that a write made or a read found; the version that a refused condition met (0: no object).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The condition of a `cas` or `del`: the version that the key must have (0: no object).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<Version>,
    /// When the client began, in nanoseconds of a clock that all clients of the history share.
    pub call: u64,
    /// When the client had its answer, in nanoseconds; absent where the outcome is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<u64>,
    /// Whether it was done; of no meaning without `ret`.
    #[serde(default)]
    pub ok: bool,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Read the key.
    #[serde(rename = "r")]
    Read,
    /// Make `value` the key's object.
    #[serde(rename = "w")]
    Write,
    /// Make `value` the key's object if it has version `if_version`.
    #[serde(rename = "cas")]
    CompareAndSet,
    /// Remove the key's object.
    #[serde(rename = "del")]
    Delete,
}

impl Op {
    /// Its name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Write => "w",
            Self::CompareAndSet => "cas",
            Self::Delete => "del",
        }
    }
}
