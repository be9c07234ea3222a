//! What clients count while a load runs.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::{
    record::Recorded,
    report::{Part, Percentile},
    usage::Usage,
};

/// What was counted so far.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) read: Kind,
    pub(crate) write: Kind,
    pub(crate) mapped_reads: u64,
    pub(crate) error_codes: BTreeMap<String, u64>,
    pub(crate) history: Vec<Recorded>,
    /// All that was done, the warm-up included.
    pub(crate) ops: u64,
    /// What was used when counting began, and when it ended.
    pub(crate) usage: Vec<Usage>,
    /// How much later than it could have been each operation of an open loop was begun, in nanoseconds.
    pub(crate) late_ns: Histogram<u64>,
    /// Operations that were due while it was counted, and not done.
    pub(crate) not_done: u64,
}

/// Reads or writes.
#[derive(Debug)]
pub(crate) struct Kind {
    latency_ns: Histogram<u64>,
    done: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            read: Kind::new(),
            write: Kind::new(),
            mapped_reads: 0,
            error_codes: BTreeMap::new(),
            history: Vec::new(),
            ops: 0,
            usage: Vec::new(),
            late_ns: histogram(),
            not_done: 0,
        }
    }

    pub(crate) fn kind(&mut self, is_read: bool) -> &mut Kind {
        if is_read { &mut self.read } else { &mut self.write }
    }
}

impl Kind {
    fn new() -> Self {
        Self { latency_ns: histogram(), done: 0 }
    }

    /// Counts one that was done.
    pub(crate) fn done(&mut self, latency_ns: u64) {
        self.done += 1;
        self.latency_ns.saturating_record(latency_ns);
    }

    /// Counts one that was never answered, with the time that it had waited when it was given up: it would have taken at
    /// least so long. Without these the slowest would be missing.
    pub(crate) fn waited(&mut self, waited_ns: u64) {
        self.latency_ns.saturating_record(waited_ns);
    }

    pub(crate) fn part(&self, seconds: f64) -> Part {
        if self.latency_ns.is_empty() {
            return Part::default();
        }
        let us = |percent: f64| self.latency_ns.value_at_quantile(percent / 100.0) as f64 / 1e3;
        Part {
            ops: self.done,
            ops_per_s: self.done as f64 / seconds,
            p50_us: us(50.0),
            p99_us: us(99.0),
            p999_us: us(99.9),
            mean_ns: self.latency_ns.mean(),
            percentiles: Part::PERCENTS.map(|percent| Percentile { percent, us: us(percent) }).into(),
        }
    }
}

/// Three digits, an error of at most 0.1 %; up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that the crate takes")
}
