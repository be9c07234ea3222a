//! What the clients did and saw: the history for the checkers, and the gaps.

use std::borrow::Cow;

use star_core::{Time, Version};
use star_sim::history::{History, Op, Record as Line};
use xxhash_rust::xxh3::xxh3_128;

use super::{busy::Busy, gaps::Gaps};

/// The record of a run.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) history: History,
    pub(super) gaps: Gaps,
    pub(super) counts: Counts,
    pub(super) busy: Busy,
    /// What must not happen and did, in words.
    pub(super) surprises: Vec<String>,
}

/// Operations that were answered.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Counts {
    /// Writes, deletes and compare-and-sets that were acknowledged.
    pub(super) acknowledged: u64,
    /// Writes of unknown outcome.
    pub(super) unknown: u64,
    /// Reads over TCP.
    pub(super) reads: u64,
    /// Reads from mapped stores.
    pub(super) mapped_reads: u64,
    /// Reads of objects that never change, compared byte for byte.
    pub(super) compared: u64,
}

/// One operation, when it is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done<'a> {
    pub(super) client: u32,
    pub(super) op: Op,
    pub(super) key: &'a str,
    /// What was written, or found.
    pub(super) value: Option<&'a [u8]>,
    pub(super) version: Option<Version>,
    pub(super) if_version: Option<Version>,
    pub(super) call: Time,
    /// `None`: nobody knows whether it was done.
    pub(super) ret: Option<Time>,
    pub(super) ok: bool,
}

impl Record {
    pub(super) fn new(stars: usize, servers: usize) -> Self {
        Self {
            history: History::new(),
            gaps: Gaps::new(stars, servers),
            counts: Counts::default(),
            busy: Busy::default(),
            surprises: Vec::new(),
        }
    }

    /// Takes an operation down.
    pub(super) fn add(&mut self, done: &Done<'_>) {
        if done.op != Op::Read {
            let counter = if done.ret.is_some() { &mut self.counts.acknowledged } else { &mut self.counts.unknown };
            *counter += 1;
        }
        let line = Line {
            client: done.client,
            op: done.op,
            key: Cow::Borrowed(done.key),
            // A digest says as well as the value whether two are the same, also where one was cut or mixed up.
            value: done.value.map(|value| Cow::Owned(format!("{:032x}", xxh3_128(value)))),
            version: done.version,
            if_version: done.if_version,
            call: done.call.0,
            ret: done.ret.map(|ret| ret.0),
            ok: done.ok,
        };
        self.history.push(&line).expect("operations are taken down in the form that the history has");
    }
}
