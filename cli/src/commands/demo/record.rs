//! What all clients did and saw: the history for the checkers, and how long everything took.

use std::borrow::Cow;

use hdrhistogram::Histogram;
use star_core::{Time, Version};
use star_sim::history::{History, Op, Record as Line};
use xxhash_rust::xxh3::xxh3_128;

/// The record of a demonstration.
pub(super) struct Record {
    pub(super) history: History,
    /// Latencies in nanoseconds.
    pub(super) reads: Histogram<u64>,
    pub(super) writes: Histogram<u64>,
    /// Reads of each server over TCP, and of its mapped store.
    pub(super) by_server: Vec<Reads>,
    /// Bytes that reads brought.
    pub(super) read_bytes: u64,
    /// Bytes that writes carried.
    pub(super) written_bytes: u64,
}

/// Reads of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    pub(super) tcp: u64,
    pub(super) mapped: u64,
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
    /// Since the demonstration began.
    pub(super) call: Time,
    /// `None`: nobody knows whether it was done.
    pub(super) ret: Option<Time>,
    pub(super) ok: bool,
}

impl Record {
    pub(super) fn new(servers: usize) -> Self {
        // Three digits: an error of at most 0.1 %; up to a minute.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that the crate takes");
        Self {
            history: History::new(),
            reads: histogram(),
            writes: histogram(),
            by_server: vec![Reads::default(); servers],
            read_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Takes an operation down.
    pub(super) fn add(&mut self, done: &Done<'_>) {
        let bytes = done.value.map_or(0, |value| value.len() as u64);
        let (histogram, counted) = match done.op {
            Op::Read => (&mut self.reads, &mut self.read_bytes),
            Op::Write | Op::CompareAndSet | Op::Delete => (&mut self.writes, &mut self.written_bytes),
        };
        *counted += bytes;
        if let Some(ret) = done.ret {
            histogram.saturating_record(ret.since(done.call).as_nanos() as u64);
        }
        let line = Line {
            client: done.client,
            op: done.op,
            key: Cow::Borrowed(done.key),
            // A digest says as well as the value whether two are the same.
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
