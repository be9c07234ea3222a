//! What clients count while a load runs.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    record::Recorded,
    report::{OpenLoop, Part, Percentile},
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
    /// Operations of an open loop that are due while it is counted.
    pub(crate) wanted: u64,
    /// How late those were begun that had room.
    late_ns: Histogram<u64>,
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
            wanted: 0,
            late_ns: histogram(),
        }
    }

    pub(crate) fn kind(&mut self, is_read: bool) -> &mut Kind {
        if is_read { &mut self.read } else { &mut self.write }
    }

    /// Counts that an operation was begun so long after it was due, although there was room for it.
    pub(crate) fn late(&mut self, by: Duration) {
        self.late_ns.saturating_record(by.as_nanos() as u64);
    }

    pub(crate) fn open_loop(&self, wanted_per_s: f64) -> OpenLoop {
        let late_us = |quantile: f64| self.late_ns.value_at_quantile(quantile) as f64 / 1e3;
        OpenLoop {
            wanted_per_s,
            wanted: self.wanted,
            not_done: self.wanted.saturating_sub(self.read.done + self.write.done),
            late_p50_us: late_us(0.5),
            late_p99_us: late_us(0.99),
        }
    }
}

/// Reads or writes.
#[derive(Debug)]
pub(crate) struct Kind {
    latency_ns: Histogram<u64>,
    done: u64,
}

impl Kind {
    fn new() -> Self {
        Self { latency_ns: histogram(), done: 0 }
    }

    /// Counts one that was done.
    pub(crate) fn done(&mut self, latency: Duration) {
        self.done += 1;
        self.latency_ns.saturating_record(latency.as_nanos() as u64);
    }

    /// Counts the latency of one of an open loop that was given up after so long: it would have taken no less, and without
    /// it the slowest would be missing.
    pub(crate) fn waited(&mut self, waited: Duration) {
        self.latency_ns.saturating_record(waited.as_nanos() as u64);
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

/// Three digits, an error of at most 0.1 %; up to a day, for which an operation may wait where the longest load has too much.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 86_400_000_000_000, 3).expect("bounds that the crate takes")
}
